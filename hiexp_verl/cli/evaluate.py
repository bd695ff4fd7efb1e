"""`hiexp eval`."""

import argparse
from pathlib import Path
from typing import Any

from hiexp_verl.cli.common import QUESTIONS_HELP, SEED_HELP, add_episode_arguments, add_verb


def add_eval(verbs: Any) -> None:
    """Add the verb."""
    epilog = (
        "arms: base (no experience), hek (all of it), hek-start (E2, E3), hek-step (E1), and the controls random, shuffled, e1, e2, e3,\n"
        "      with-own-question (`hiexp.control`)\n"
        "table: EM (exact match), F1 (of words), CEM (a right answer is in the answer), each with a 95% interval over questions; the\n"
        "      difference to base on the same questions, with the p of a sign-flip test (0.05: such a difference comes by chance 1 in 20)\n"
        "model: a directory, a verl checkpoint (global_step_N, or the directory that holds them), URL or URL#MODEL\n"
        "example: hiexp eval --questions val.jsonl --corpus corpus.jsonl --model DIR --hek hek --arms base,hek,random --out outputs/eval"
    )
    help = "Compare arms (with and without experience, controls) on the same questions: rows, intervals, a table."
    parser = add_verb(verbs, "eval", run_eval, help, epilog)
    several = "; several files are several data sets"
    parser.add_argument("--questions", type=Path, nargs="+", required=True, metavar="FILE", help=QUESTIONS_HELP + several)
    parser.add_argument("--limit", type=int, help="only the first N questions of each file")
    add_episode_arguments(parser, temperature=0.0)
    parser.add_argument("--seed", type=int, nargs="+", default=[0], metavar="S", help=SEED_HELP + "; several play every question again")
    parser.add_argument("--arms", default="base,hek", help="comma-separated (default base,hek)")
    parser.add_argument("--batch-size", type=int, default=16, help="episodes at a time (default 16)")
    parser.add_argument("--out", type=Path, required=True, help="directory for rows.jsonl, table.json, table.md and the episodes")
    parser.add_argument("--judge", metavar="DIR_or_URL", help="a model that says whether an answer means the same as a right one")
    alone = "replay N episodes of all arms one at a time: do batches matter? (default 16; 0: do not)"
    parser.add_argument("--alone", type=int, default=16, metavar="N", help=alone)


def run_eval(arguments: argparse.Namespace) -> int:
    """Evaluate and print the table."""
    from hiexp_verl.run.eval_command import eval_command

    print(eval_command(arguments))
    return 0
