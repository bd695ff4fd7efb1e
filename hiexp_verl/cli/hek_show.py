"""`hiexp inspect`, `retrieve`, `versions`, `rollback`, `diff` and `audit`."""

import argparse
import logging
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hiexp_verl.cli.options import DOMAIN_HELP, JSON_HELP, add_hek, add_verb, print_result, say
from hiexp_verl.domains import domain_for, ours
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.blocks import LEVELS_OF
from hiexp_verl.guide.lookup import text_at
from hiexp_verl.hek.audit import audit, audit_text
from hiexp_verl.hek.diff import diff, diff_text
from hiexp_verl.hek.opening import open_encoder
from hiexp_verl.hek.provenance import read_transcripts
from hiexp_verl.hek.retrieve import Retriever
from hiexp_verl.hek.store import HEK
from hiexp_verl.hek.text_view import entry_json, inspect_entry, inspect_hek
from hiexp_verl.hek.versions import rollback, versions, versions_text
from hiexp_verl.io.datasets import read_questions
from hiexp_verl.ledger.table import effects_of
from hiexp_verl.models.encoder import Encoder
from hiexp_verl.report.viewer import write_viewer
from hiexp_verl.types import LEVELS, Level, to_json

_INSPECT = """\
examples: hiexp inspect hek                       the tree E3 > E2 > E1
          hiexp inspect hek e1-0001               one entry: parents, children, neighbours, failure beside success, evidence
          hiexp inspect hek e1-0001 --trajectories outputs/rollouts/trajectories.jsonl
          hiexp inspect hek --html hek.html       all of it as one page with search and filters"""
_ROLLBACK = "Nothing is deleted; --to a later version undoes it.\n\nexample: hiexp rollback hek --to 0002"
_DIFF = "A and B are HEK directories (their current version) or versions.\n\nexample: hiexp diff hek/0001 hek"
_RETRIEVE = """\
E1 are compared with the text as it stands, E2 and E3 with the text without its names, as in a run.

example: hiexp retrieve hek "What is the currency of the country whose capital is Kabul?" --level e2"""
_AUDIT = """\
Exit code 0: nothing overlaps; 1: something does; 2: an error. Near-duplicates share a third of their words and have a
cosine of at least 0.95, or share 80% of their words where the encoder is not found; their names and numbers agree.

example: hiexp audit hek --questions test.jsonl"""


def add(verbs: Any) -> None:
    """Add the verbs."""
    parser = add_verb(verbs, "inspect", run_inspect, "Show a HEK as a tree, as a page, or one entry with where it comes from.", _INSPECT)
    add_hek(parser, json=True)
    parser.add_argument("entry", nargs="?", metavar="ENTRY", help="id of an entry")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page that opens without a network")
    parser.add_argument("--trajectories", type=Path, nargs="+", metavar="FILE", help="also show the documents around the evidence")

    help = "Show the entries nearest to a text, without minimum scores or leave-one-out."
    parser = add_verb(verbs, "retrieve", run_retrieve, help, _RETRIEVE)
    add_hek(parser, encoder=True, json=True)
    parser.add_argument("text", metavar="TEXT", help="a question or a search query")
    parser.add_argument("--level", choices=LEVELS, help="default: all levels")
    parser.add_argument("--domain", help=f"of the text: {DOMAIN_HELP} (default: that of the HEK)")
    parser.add_argument("--top-k", type=int, default=5, help="entries (default 5)")

    parser = add_verb(verbs, "audit", run_audit, "Report what a HEK knows of a test set: questions, answers in entries.", _AUDIT)
    add_hek(parser, encoder=True, json=True)
    parser.add_argument("--questions", type=Path, required=True, metavar="FILE", help="the test set, as of `hiexp eval`")

    help = "List the versions of a HEK: entries, origin, reason; * is the current one."
    add_hek(add_verb(verbs, "versions", run_versions, help, "example: hiexp versions hek"), json=True)

    parser = add_verb(verbs, "diff", run_diff, "Show what changed from one HEK to another: entries, levels, thresholds, header.", _DIFF)
    parser.add_argument("a", type=Path, metavar="A", help="a HEK, or one of its versions (hek/0001)")
    parser.add_argument("b", type=Path, metavar="B", help="another one")
    parser.add_argument("--json", action="store_true", help=JSON_HELP)

    parser = add_verb(verbs, "rollback", run_rollback, "Make an earlier version of a HEK the current one.", _ROLLBACK)
    add_hek(parser)
    parser.add_argument("--to", metavar="VERSION", help="default: the one that the current version was made from, or the one before it")


def run_inspect(arguments: argparse.Namespace) -> int:
    """Print the tree or the entry, or write the page."""
    if arguments.html and arguments.entry:
        raise HiExpError(f"--html shows the whole HEK; leave out {arguments.entry!r} and open FILE#{arguments.entry}")
    if arguments.trajectories and not (arguments.html or arguments.entry):
        raise HiExpError("--trajectories shows the documents around the evidence of entries; give an ENTRY or --html")
    hek = HEK.load(arguments.hek)
    shown = [hek.entry(arguments.entry)] if arguments.entry else hek.entries
    sources = {source.id: source for source in hek.sources}
    transcripts = read_transcripts(arguments.trajectories, shown, sources, ours(hek.header.domain)) if arguments.trajectories else {}
    effects = effects_of(hek, arguments.hek) if arguments.html or arguments.entry else {}
    if arguments.html:
        size = write_viewer(hek, arguments.html, transcripts, effects)
        value = {"html": str(arguments.html), "bytes": size}
        print_result(arguments.json, value, f"{arguments.html}: {len(hek.entries)} entries, {size / 1e6:.1f} MB; open it in a browser")
    elif arguments.entry:
        width = shutil.get_terminal_size().columns
        effect = effects.get(hek.entry(arguments.entry).content_id, "")
        text = inspect_entry(hek, arguments.entry, transcripts, width, effect)
        print_result(arguments.json, {**entry_json(hek, arguments.entry, transcripts), "effect": effect or None}, text)
    else:
        value = {"header": asdict(hek.header), "entries": [to_json(e) for e in hek.entries]}
        print_result(arguments.json, value, inspect_hek(hek))
    return 0


def run_retrieve(arguments: argparse.Namespace) -> int:
    """Print the hits, best first."""
    if arguments.top_k < 1:
        raise HiExpError(f"--top-k must be at least 1, found {arguments.top_k}")
    if not arguments.text.strip():
        raise HiExpError("the text is empty; give a question or a search query")
    hek = HEK.load(arguments.hek)
    retriever = Retriever(hek, open_encoder(hek, arguments.hek, arguments.encoder))
    domain = domain_for(hek.header.domain, arguments.domain)
    hits = []
    for place, levels in LEVELS_OF.items():
        wanted: list[Level] = [level for level in levels if arguments.level in (level, None)]
        text = text_at(place if domain.tool is not None else "prompt", arguments.text, domain)
        hits += retriever.retrieve([text], levels=wanted, top_k=arguments.top_k)[0]
    hits = sorted(hits, key=lambda hit: -hit.score)[: arguments.top_k]
    text = "\n".join(f"{h.score:.3f}  {h.entry.level.upper()} {h.entry.id}  {h.entry.title}\n       {h.entry.description}" for h in hits)
    print_result(arguments.json, [{"score": h.score, **to_json(h.entry)} for h in hits], text or "nothing found")
    return 0


def run_versions(arguments: argparse.Namespace) -> int:
    """Print one line per version."""
    listed = versions(arguments.hek)
    print_result(arguments.json, [asdict(version) for version in listed], versions_text(listed))
    return 0


def run_rollback(arguments: argparse.Namespace) -> int:
    """Point CURRENT at the version."""
    say(f"current is {rollback(arguments.hek, arguments.to)}")
    return 0


def run_diff(arguments: argparse.Namespace) -> int:
    """Print the differences; the exit code is 0 also when there are some."""
    found = diff(HEK.load(arguments.a), HEK.load(arguments.b))
    print_result(arguments.json, asdict(found), diff_text(found))
    return 0


def run_audit(arguments: argparse.Namespace) -> int:
    """Print what overlaps; 1 when something does."""
    hek = HEK.load(arguments.hek)
    found = audit(hek, read_questions(arguments.questions), _encoder(hek, arguments), ours(hek.header.domain) or SEARCH)
    print_result(arguments.json, asdict(found), audit_text(found))
    return 0 if found.clean else 1


def _encoder(hek: HEK, arguments: argparse.Namespace) -> Encoder | None:
    """Return the encoder, None with a warning where it was not asked for and cannot be found."""
    try:
        return open_encoder(hek, arguments.hek, arguments.encoder)
    except HiExpError as error:
        if arguments.encoder:
            raise
        logging.getLogger(__name__).warning("near-duplicates are searched by words only: %s", error)
        return None
