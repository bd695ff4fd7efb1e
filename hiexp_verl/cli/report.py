"""`hiexp report`."""

import argparse
import os
from pathlib import Path
from typing import Any

from hiexp_verl.cli.options import add_verb, say, tell
from hiexp_verl.report import write_report
from hiexp_verl.report.html import plural


def add(verbs: Any) -> None:
    """Add the verb."""
    epilog = (
        "RUN: the output directory of a training (trainer.default_local_dir), of `hiexp eval`, `rollout` or `build`, or one that holds\n"
        "     several of them; each has a run.json that names its files, and other files are not read. Curves need trainer.logger=[file].\n"
        "example: hiexp report outputs/grpo outputs/grpo-hiexp outputs/eval --out report.html"
    )
    parser = add_verb(verbs, "report", run_report, "Write one HTML page about runs: tables, curves, HEK, episodes, alarms, cost.", epilog)
    runs = "output directory of a training, an evaluation, rollouts or a HEK, or one that holds several"
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help=runs)
    out = "page (.html), or directory for report.html (default report.html)"
    parser.add_argument("--out", type=Path, default=Path("report.html"), help=out)
    parser.add_argument("--title", default="", help="of the page (default: the names of the runs)")


def run_report(arguments: argparse.Namespace) -> int:
    """Write the page and print what is on it; what cannot be read goes to stderr, too."""
    out = page_at(arguments.out)
    found = write_report(arguments.runs, out, arguments.title)
    for fault in found.faults:
        tell(fault)
    counts = {
        "training": len(found.trainings),
        "evaluation": len(found.evaluations),
        "rollout": len(found.rollouts),
        "episode": len(found.played),
        "HEK": len(found.heks),
        "build": len(found.builds),
        "set of pairs": len(found.pairs),
    }
    contents = ", ".join(plural(count, noun) for noun, count in counts.items() if count)
    say(f"{out}: {contents}; {out.stat().st_size / 1e6:.1f} MB; open it in a browser")
    return 0


def page_at(out: Path) -> Path:
    """Return the file that --out means: a page, or report.html in a directory, which need not exist yet."""
    is_page = out.suffix.lower() in (".html", ".htm") and not os.path.isdir(out)  # Path.is_dir raises where a name is too long
    return out if is_page else out / "report.html"
