"""`hiexp diff`."""

import argparse
from pathlib import Path
from typing import Any

from hiexp_verl.cli.common import add_verb, print_result


def add_diff(verbs: Any) -> None:
    """Add the verb."""
    epilog = "A and B are HEK directories (their current version) or versions.\n\nexample: hiexp diff hek/0001 hek"
    parser = add_verb(verbs, "diff", run_diff, "Show what changed from one HEK to another: entries, levels, thresholds, header.", epilog)
    parser.add_argument("a", type=Path, metavar="A")
    parser.add_argument("b", type=Path, metavar="B")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run_diff(arguments: argparse.Namespace) -> int:
    """Print the differences; that there are some is no failure."""
    from dataclasses import asdict

    from hiexp_verl.hek.diff import diff
    from hiexp_verl.hek.difftext import diff_text
    from hiexp_verl.hek.store import HEK

    found = diff(HEK.load(arguments.a), HEK.load(arguments.b))
    print_result(arguments.json, asdict(found), diff_text(found))
    return 0
