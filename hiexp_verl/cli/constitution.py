"""`hiexp constitution`: choose the entries that the arm `constitution` shows for every question."""

import argparse
from typing import Any

from hiexp_verl.cli.options import add_hek, add_verb, print_result
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.constitution import block_of, chosen, save, tokens_of
from hiexp_verl.hek.store import HEK, root_of
from hiexp_verl.ledger.credit import credit
from hiexp_verl.ledger.rows import read_ledger

_EPILOG = """\
E2 and E3 are chosen by greedy cover: the next one adds the most questions per token, times its effect by the ledger where the HEK
has one. The text is the same for every question; the choice is kept beside the versions, for this version.

examples: hiexp constitution hek --tokens 300
          then hiexp eval --arms none,full,constitution, hiexp rollout --arm constitution, hiexp.arm=constitution"""


def add(verbs: Any) -> None:
    """Add the verb."""
    help = "Choose a fixed text of a HEK's most useful entries, for the arm constitution."
    parser = add_verb(verbs, "constitution", run_constitution, help, _EPILOG)
    add_hek(parser, json=True)
    parser.add_argument("--tokens", type=int, default=300, metavar="N", help="budget of the text, by estimate (default 300)")


def run_constitution(arguments: argparse.Namespace) -> int:
    """Choose, save, and print the text."""
    if arguments.tokens < 1:
        raise HiExpError(f"--tokens must be at least 1, found {arguments.tokens}")
    hek = HEK.load(arguments.hek)
    rows = read_ledger(root_of(arguments.hek))
    effects = {content: found.shrunk for content, found in credit(rows, hek.entries).of.items()} if rows else None
    entries = chosen(hek, arguments.tokens, effects)
    if not entries:
        why = "has no E2 or E3 of several questions" if effects is None else "has no E2 or E3 of several questions with an effect above 0"
        raise HiExpError(f"HEK {arguments.hek} {why} that fits {arguments.tokens} tokens; raise --tokens, or build from more questions")
    path = save(arguments.hek, hek.header.content_hash, entries)
    block = block_of(entries)
    tokens = tokens_of(block)
    value = {"entries": [entry.id for entry in entries], "text": block.text, "tokens": tokens, "by_effect": effects is not None}
    basis = "by cover and effect" if effects is not None else "by cover alone (the HEK has no ledger)"
    names = ", ".join(entry.id for entry in entries)
    print_result(arguments.json, value, f"{block.text}\n\n{names}: about {tokens} tokens, chosen {basis}; saved {path}")
    return 0
