"""`hiexp retrieve`."""

import argparse
from pathlib import Path
from typing import Any

from hiexp_verl.cli.common import add_verb, print_result
from hiexp_verl.errors import HiExpError


def add_retrieve(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(verbs, "retrieve", run_retrieve, "Show which experience a question or a search query would get.", "")
    parser.add_argument("hek", type=Path, metavar="HEK")
    parser.add_argument("text")
    parser.add_argument("--level", choices=("e1", "e2", "e3"), help="default: all levels")
    parser.add_argument("--top-k", type=int, default=5)
    parser.add_argument("--encoder", help="where the encoder of the HEK lies, if it has moved")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run_retrieve(arguments: argparse.Namespace) -> int:
    """Print the hits, best first."""
    from hiexp_verl.hek.locate import open_encoder
    from hiexp_verl.hek.retrieve import Retriever
    from hiexp_verl.hek.store import HEK
    from hiexp_verl.run.guide import LEVELS_OF
    from hiexp_verl.run.lookup import way_of
    from hiexp_verl.types import Level, to_json

    if arguments.top_k < 1:
        raise HiExpError(f"--top-k must be at least 1, found {arguments.top_k}")
    if not arguments.text.strip():
        raise HiExpError("the text is empty; give a question or a search query")
    hek = HEK.load(arguments.hek)
    retriever = Retriever(hek, open_encoder(hek, arguments.hek, arguments.encoder))
    hits = []
    for text, levels in ((arguments.text, LEVELS_OF["step"]), (way_of(arguments.text), LEVELS_OF["start"])):
        wanted: list[Level] = [level for level in levels if arguments.level in (level, None)]
        hits += retriever.retrieve([text], levels=wanted, top_k=arguments.top_k)[0]
    hits = sorted(hits, key=lambda hit: -hit.score)[: arguments.top_k]
    text = "\n".join(f"{h.score:.3f}  {h.entry.level.upper()} {h.entry.id}  {h.entry.title}\n       {h.entry.description}" for h in hits)
    print_result(arguments.json, [{"score": h.score, **to_json(h.entry)} for h in hits], text or "nothing found")
    return 0
