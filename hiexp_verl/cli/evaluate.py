"""`hiexp eval`."""

import argparse
from pathlib import Path
from typing import Any

from hiexp_verl.cli.common import MAX_MODEL_LEN_HELP, add_verb


def add_eval(verbs: Any) -> None:
    """Add the verb."""
    epilog = (
        "arms: base (no experience), hek (all of it), hek-start (E2, E3), hek-step (E1), and the controls random, shuffled, e1, e2, e3,\n"
        "      with-own-question (`hiexp.control`)\n"
        "example: hiexp eval --questions val.jsonl --corpus corpus.jsonl --model DIR --hek hek --arms base,hek,random --out outputs/eval"
    )
    help = "Compare arms (with and without experience, controls) on the same questions: rows, intervals, a table."
    parser = add_verb(verbs, "eval", run_eval, help, epilog)
    parser.add_argument("--questions", type=Path, required=True, help="JSONL with id, question, answer or answers")
    parser.add_argument("--search", default="bm25", choices=("bm25", "dense", "http"), help="as hiexp.search.engine (default bm25)")
    parser.add_argument("--corpus", metavar="FILE", help="JSONL (.gz) with id, title, text, for bm25 and dense")
    parser.add_argument("--search-url", metavar="URL", help="of a retrieval server in the Search-R1 wire format, for http")
    parser.add_argument("--search-encoder", metavar="DIR_OR_NAME", help="for dense (default: --encoder, or the encoder of the HEK)")
    parser.add_argument("--model", required=True, help="model directory (served by vLLM), URL, or URL#MODEL of an OpenAI-compatible server")
    parser.add_argument("--hek", type=Path, help="whose experience is shown")
    parser.add_argument("--encoder", help="where the encoder of the HEK lies, if it has moved")
    parser.add_argument("--arms", default="base,hek", help="comma-separated (default base,hek)")
    parser.add_argument("--batch-size", type=int, default=16, help="episodes at a time (default 16)")
    parser.add_argument("--seed", type=int, default=0, help="of the sampling; every turn of every question has its own (default 0)")
    parser.add_argument("--limit", type=int, help="only the first N questions")
    parser.add_argument("--out", type=Path, required=True, help="directory for rows.jsonl, table.json, table.md and the episodes")
    parser.add_argument("--resume", action="store_true", help="go on after an interruption")
    parser.add_argument("--temperature", type=float, default=0.0, help="(default 0: greedy)")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--format", default="search_tags", choices=("search_tags", "hermes"), help="dialect of search calls")
    parser.add_argument("--max-tokens", type=int, default=128, help="per turn (default 128)")
    parser.add_argument("--max-model-len", type=int, default=4096, help=MAX_MODEL_LEN_HELP)
    parser.add_argument("--max-searches", type=int, default=4, help="per episode (default 4)")
    parser.add_argument("--top-k", type=int, default=3, help="passages per search (default 3)")
    parser.add_argument("--max-words", type=int, default=60, help="words per passage (default 60)")
    parser.add_argument("--alone", type=int, default=8, metavar="N", help="replay N episodes one at a time: do batches matter? (default 8)")


def run_eval(arguments: argparse.Namespace) -> int:
    """Evaluate and print the table."""
    from hiexp_verl.run.command import eval_command

    print(eval_command(arguments))
    return 0
