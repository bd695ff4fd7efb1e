"""`hiexp inspect`."""

import argparse
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hiexp_verl.cli.common import add_verb, print_result
from hiexp_verl.errors import HiExpError


def add_inspect(verbs: Any) -> None:
    """Add the verb."""
    epilog = (
        "examples: hiexp inspect hek                       the tree E3 > E2 > E1\n"
        "          hiexp inspect hek e1-0001               one entry: parents, children, failure beside success, evidence\n"
        "          hiexp inspect hek e1-0001 --trajectories outputs/rollouts/trajectories.jsonl\n"
        "          hiexp inspect hek --html hek.html       all of it as one page with search and filters"
    )
    parser = add_verb(verbs, "inspect", run_inspect, "Show a HEK as a tree, as a page, or one entry with where it comes from.", epilog)
    parser.add_argument("hek", type=Path, metavar="HEK")
    parser.add_argument("entry", nargs="?", metavar="ENTRY", help="id of an entry")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page that opens without a network")
    parser.add_argument("--trajectories", type=Path, nargs="+", metavar="FILE", help="also show the documents around the evidence")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run_inspect(arguments: argparse.Namespace) -> int:
    """Print the tree or the entry, or write the page."""
    from hiexp_verl.hek.inspect import entry_json, inspect_entry, inspect_hek
    from hiexp_verl.hek.store import HEK
    from hiexp_verl.hek.trace import read_transcripts
    from hiexp_verl.hek.viewer import write_viewer
    from hiexp_verl.types import to_json

    if arguments.html and arguments.entry:
        raise HiExpError(f"--html shows the whole HEK; leave out {arguments.entry!r} and open FILE#{arguments.entry}")
    if arguments.trajectories and not (arguments.html or arguments.entry):
        raise HiExpError("--trajectories shows the documents around the evidence of entries; give an ENTRY or --html")
    hek = HEK.load(arguments.hek)
    shown = [hek.entry(arguments.entry)] if arguments.entry else hek.entries
    sources = {source.id: source for source in hek.sources}
    transcripts = read_transcripts(arguments.trajectories, shown, sources) if arguments.trajectories else {}
    if arguments.html:
        size = write_viewer(hek, arguments.html, transcripts)
        value = {"html": str(arguments.html), "bytes": size}
        print_result(arguments.json, value, f"{arguments.html}: {len(hek.entries)} entries, {size / 1e6:.1f} MB; open it in a browser")
    elif arguments.entry:
        width = shutil.get_terminal_size().columns
        text = inspect_entry(hek, arguments.entry, transcripts, width)
        print_result(arguments.json, entry_json(hek, arguments.entry, transcripts), text)
    else:
        value = {"header": asdict(hek.header), "entries": [to_json(e) for e in hek.entries]}
        print_result(arguments.json, value, inspect_hek(hek))
    return 0
