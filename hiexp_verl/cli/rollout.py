"""`hiexp rollout`."""

import argparse
from pathlib import Path
from typing import Any

from hiexp_verl.cli.common import QUESTIONS_HELP, SEED_HELP, add_episode_arguments, add_verb
from hiexp_verl.config import CONTROLS


def add_rollout(verbs: Any) -> None:
    """Add the verb."""
    epilog = (
        "example: hiexp rollout --questions train.jsonl --corpus corpus.jsonl --model DIR --k 4 --out outputs/rollouts\n"
        "         ... --search dense --corpus corpus.jsonl --search-encoder ENCODER_DIR\n"
        "         ... --search http --search-url http://HOST:8000/retrieve     (`hiexp serve-search` is such a server)"
    )
    parser = add_verb(verbs, "rollout", run_rollout, "Run K episodes of the search agent on every question.", epilog)
    parser.add_argument("--questions", type=Path, required=True, help=QUESTIONS_HELP)
    parser.add_argument("--limit", type=int, help="only the first N questions")
    add_episode_arguments(parser, temperature=1.0)
    parser.add_argument("--seed", type=int, default=0, help=SEED_HELP)
    parser.add_argument("--k", type=int, default=4, help="episodes per question (default 4; the paper's builds use about 8)")
    parser.add_argument("--out", type=Path, required=True, help="directory for trajectories.jsonl and summary.json")
    parser.add_argument("--control", default="full", choices=CONTROLS, help="what to show instead of the best entries (default full)")
    parser.add_argument(
        "--by",
        choices=("server", "verl"),
        default="server",
        help="verl: by a verl validation run on this machine, where --max-tokens needs --hek",
    )


def run_rollout(arguments: argparse.Namespace) -> int:
    """Run the episodes and print their summary."""
    from hiexp_verl.run.command import rollout_command

    print(rollout_command(arguments))
    return 0
