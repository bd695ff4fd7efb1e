"""`hiexp doctor`."""

import argparse
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hiexp_verl.cli.common import add_verb, print_result


def add_doctor(verbs: Any) -> None:
    """Add the verb."""
    help = "Check that everything a run needs is here, and say what to do."
    parser = add_verb(verbs, "doctor", run_doctor, help, "Exit code 0: all is well, 1: something is not.")
    parser.add_argument("--hek", type=Path, help="also check this HEK and its encoder")
    parser.add_argument("--encoder", help="check this encoder; with --hek, where that of the HEK lies, if it has moved")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run_doctor(arguments: argparse.Namespace) -> int:
    """Print the findings; 0 when all is well, 1 otherwise."""
    from hiexp_verl.doctor import examine

    with redirect_stdout(sys.stderr):  # libraries greet on stdout when they are imported
        findings = examine(arguments.hek, arguments.encoder)
    lines = []
    for finding in findings:
        lines.append(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name}: {finding.found}")
        if finding.todo:
            lines.append(f"      -> {finding.todo}")
    print_result(arguments.json, [asdict(f) for f in findings], "\n".join(lines))
    return 0 if all(f.ok for f in findings) else 1
