"""`hiexp eval`: arms compared on the same questions."""

import argparse
from pathlib import Path
from typing import Any

from hiexp_verl.cli.options import QUESTIONS_HELP, SEED_HELP, add_episode_arguments, add_verb, say
from hiexp_verl.cli.rollout import check_numbers, play_options
from hiexp_verl.config import MEANING_OF
from hiexp_verl.errors import HiExpError
from hiexp_verl.evaluate.evaluate import evaluate
from hiexp_verl.evaluate.tables import as_markdown
from hiexp_verl.rollout.spec import EvalSpec


def add(verbs: Any) -> None:
    """Add the verb."""
    arms = "".join(f"  {arm:14} {meaning}\n" for arm, meaning in MEANING_OF.items())
    epilog = (
        f"arms:\n{arms}"
        "table: correct (a right answer and no more than that), EM (exact match), F1 (of words), CEM (a right answer is in the answer,\n"
        "      whatever else it says); intervals are 95% over questions; the difference to none on the same questions,\n"
        "      with the p of a sign-flip test (0.05: such a difference comes by chance 1 in 20)\n"
        "model: a directory, a verl checkpoint (global_step_N, or the directory that holds them), URL or URL#MODEL\n"
        "example: hiexp eval --questions val.jsonl --corpus corpus.jsonl --model DIR --hek hek --arms none,full,random --out outputs/eval"
    )
    help = "Compare arms (with and without experience) on the same questions: rows, intervals, a table."
    parser = add_verb(verbs, "eval", run_eval, help, epilog)
    several = "; several files are several data sets"
    parser.add_argument("--questions", type=Path, nargs="+", required=True, metavar="FILE", help=QUESTIONS_HELP + several)
    parser.add_argument("--limit", type=int, help="only the first N questions of each file")
    add_episode_arguments(parser, temperature=0.0)
    parser.add_argument("--seed", type=int, nargs="+", default=[0], metavar="S", help=SEED_HELP + "; each seed plays every question once")
    parser.add_argument("--arms", default="none,full", help="comma-separated (default none,full)")
    parser.add_argument("--out", type=Path, required=True, help="directory for rows.jsonl, table.json, table.md and the episodes")
    parser.add_argument("--judge", metavar="DIR_or_URL", help="a model that judges whether an answer means the same as a gold answer")
    alone = "play N episodes of all arms again without batches, and count how many change (default 16; 0: none)"
    parser.add_argument("--alone", type=int, default=16, metavar="N", help=alone)


def run_eval(arguments: argparse.Namespace) -> int:
    """Evaluate and print the table."""
    say(as_markdown(evaluate(eval_spec(arguments))))
    return 0


def eval_spec(arguments: argparse.Namespace) -> EvalSpec:
    """Return what these arguments ask for.

    Raises:
        HiExpError: an option is out of range, missing, or does not fit the others.
    """
    check_numbers(vars(arguments), "limit")
    if arguments.alone < 0:
        raise HiExpError(f"--alone must be at least 0, found {arguments.alone}")
    if len(set(arguments.seed)) < len(arguments.seed):
        raise HiExpError(f"--seed names one twice: {' '.join(map(str, arguments.seed))}")
    if len(arguments.seed) > 1 and not arguments.temperature:
        raise HiExpError("--temperature 0 is greedy, and plays the same with every seed; raise it, or give one --seed")
    return EvalSpec(
        **play_options(arguments, arguments.seed[0]),
        questions=tuple(arguments.questions),
        arms=tuple(arguments.arms.split(",")),
        seeds=tuple(arguments.seed),
        alone=arguments.alone,
        judge=arguments.judge,
    )
