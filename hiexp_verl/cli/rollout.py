"""`hiexp rollout`."""

import argparse
from pathlib import Path
from typing import Any

from hiexp_verl.cli.common import MAX_MODEL_LEN_HELP, add_verb
from hiexp_verl.config import CONTROLS


def add_rollout(verbs: Any) -> None:
    """Add the verb."""
    epilog = (
        "example: hiexp rollout --questions train.jsonl --corpus corpus.jsonl --model DIR --k 4 --out outputs/rollouts\n"
        "         ... --search dense --corpus corpus.jsonl --search-encoder ENCODER_DIR\n"
        "         ... --search http --search-url http://HOST:8000/retrieve     (`hiexp serve-search` is such a server)"
    )
    parser = add_verb(verbs, "rollout", run_rollout, "Run K episodes of the search agent on every question.", epilog)
    parser.add_argument("--questions", type=Path, required=True, help="JSONL with id, question, answer or answers")
    parser.add_argument("--search", default="bm25", choices=("bm25", "dense", "http"), help="as hiexp.search.engine (default bm25)")
    parser.add_argument("--corpus", metavar="FILE", help="JSONL (.gz) with id, title, text, for bm25 and dense")
    parser.add_argument("--search-url", metavar="URL", help="of a retrieval server in the Search-R1 wire format, for http")
    parser.add_argument("--search-encoder", metavar="DIR_OR_NAME", help="for dense (default: --encoder, or the encoder of the HEK)")
    parser.add_argument("--model", required=True, help="model directory (served by vLLM), URL, or URL#MODEL of an OpenAI-compatible server")
    parser.add_argument("--k", type=int, default=4, help="episodes per question (default 4; the paper's builds use about 8)")
    parser.add_argument("--out", type=Path, required=True, help="directory for trajectories.jsonl and summary.json")
    parser.add_argument("--resume", action="store_true", help="go on after an interruption")
    parser.add_argument("--limit", type=int, help="only the first N questions")
    parser.add_argument("--format", default="search_tags", choices=("search_tags", "hermes"), help="dialect of search calls")
    parser.add_argument("--hek", type=Path, help="show experience of this HEK")
    parser.add_argument("--control", default="full", choices=CONTROLS, help="what to show instead of the best entries (default full)")
    parser.add_argument("--encoder", help="where the encoder of the HEK lies, if it has moved")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--max-tokens", type=int, default=128, help="per turn (default 128); with --by verl only beside --hek")
    parser.add_argument("--max-model-len", type=int, default=4096, help=MAX_MODEL_LEN_HELP)
    parser.add_argument("--max-searches", type=int, default=4, help="per episode (default 4)")
    parser.add_argument("--top-k", type=int, default=3, help="passages per search (default 3)")
    parser.add_argument("--max-words", type=int, default=60, help="words per passage (default 60)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--by", choices=("server", "verl"), default="server", help="verl: by a verl validation run on this machine")


def run_rollout(arguments: argparse.Namespace) -> int:
    """Run the episodes and print their summary."""
    from hiexp_verl.run.command import rollout_command

    print(rollout_command(arguments))
    return 0
