"""`hiexp eval`.

What `hiexp eval` does with its arguments."""

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from hiexp_verl.cli.options import QUESTIONS_HELP, SEED_HELP, add_episode_arguments, add_verb
from hiexp_verl.cli.rollout import (
    EPISODE_NUMBERS,
    check_numbers,
    check_policy,
    check_sampling,
    episode_settings,
    identify_search,
    open_guide,
    open_search,
    run_settings,
)
from hiexp_verl.config import MEANING_OF, Arm, Budgets
from hiexp_verl.errors import HiExpError
from hiexp_verl.evaluate.evaluate import TABLE_JSON, VERDICTS, Plan, check_arms, only_one, play, read_datasets, replay, write_tables
from hiexp_verl.evaluate.judge import judge
from hiexp_verl.evaluate.tables import JUDGE, as_markdown
from hiexp_verl.guide.guide import Guide
from hiexp_verl.hek.opening import open_encoders, open_hek
from hiexp_verl.models.chat import open_model
from hiexp_verl.models.vllm_process import check_model_dir
from hiexp_verl.rollout.as_trained import play_as_trained
from hiexp_verl.rollout.policy import find_policy, identify

logger = logging.getLogger(__name__)


def add_eval(verbs: Any) -> None:
    """Add the verb."""
    arms = "".join(f"  {arm:14} {meaning}\n" for arm, meaning in MEANING_OF.items())
    epilog = (
        f"arms:\n{arms}"
        "table: EM (exact match), F1 (of words), CEM (a right answer is in the answer), each with a 95% interval over questions; the\n"
        "      difference to none on the same questions, with the p of a sign-flip test (0.05: such a difference comes by chance 1 in 20)\n"
        "model: a directory, a verl checkpoint (global_step_N, or the directory that holds them), URL or URL#MODEL\n"
        "example: hiexp eval --questions val.jsonl --corpus corpus.jsonl --model DIR --hek hek --arms none,full,random --out outputs/eval"
    )
    help = "Compare arms (with and without experience) on the same questions: rows, intervals, a table."
    parser = add_verb(verbs, "eval", run_eval, help, epilog)
    several = "; several files are several data sets"
    parser.add_argument("--questions", type=Path, nargs="+", required=True, metavar="FILE", help=QUESTIONS_HELP + several)
    parser.add_argument("--limit", type=int, help="only the first N questions of each file")
    add_episode_arguments(parser, temperature=0.0)
    parser.add_argument("--seed", type=int, nargs="+", default=[0], metavar="S", help=SEED_HELP + "; several play every question again")
    parser.add_argument("--arms", default="none,full", help="comma-separated (default none,full)")
    parser.add_argument("--batch-size", type=int, default=16, help="episodes at a time (default 16)")
    parser.add_argument("--out", type=Path, required=True, help="directory for rows.jsonl, table.json, table.md and the episodes")
    parser.add_argument("--judge", metavar="DIR_or_URL", help="a model that says whether an answer means the same as a right one")
    alone = "replay N episodes of all arms one at a time: do batches matter? (default 16; 0: do not)"
    parser.add_argument("--alone", type=int, default=16, metavar="N", help=alone)


def run_eval(arguments: argparse.Namespace) -> int:
    """Evaluate and print the table."""

    print(eval_command(arguments))
    return 0


def eval_command(arguments: argparse.Namespace) -> str:
    """Check everything that is cheap to check, then serve the model and play all arms; return the table.

    Raises:
        HiExpError: questions, arms, search, model or HEK are not usable.
    """
    play_as_trained(arguments)
    check_numbers(arguments, "limit", "batch_size", *EPISODE_NUMBERS)
    check_sampling(arguments.temperature, arguments.top_p)
    if arguments.alone < 0:
        raise HiExpError(f"--alone must be at least 0, found {arguments.alone}")
    if len(set(arguments.seed)) < len(arguments.seed):
        raise HiExpError(f"--seed names one twice: {' '.join(map(str, arguments.seed))}")
    if len(arguments.seed) > 1 and not arguments.temperature:
        raise HiExpError("--temperature 0 is greedy, and plays the same with every seed; raise it, or give one --seed")
    out: Path = arguments.out
    arms = check_arms(arguments.arms.split(","), arguments.hek is not None)
    plan = Plan(read_datasets(arguments.questions, arguments.limit), arms, arguments.seed)
    plan.check_output(out, arguments.resume)
    run = run_settings(arguments)
    with only_one(out):
        arguments.model, name, policy = find_policy(arguments.model, out)
        tokenizer = check_policy(arguments, [question for questions in plan.datasets.values() for question in questions])
        if arguments.judge and "://" not in arguments.judge:
            check_model_dir(Path(arguments.judge.removeprefix("vllm:")))
        hek = open_hek(run)
        encoder, search_encoder = open_encoders(run, hek)
        search = open_search(run.search, search_encoder)

        def guide_of(arm: Arm) -> Guide | None:
            if hek is None or encoder is None or arm == "none":
                return None
            return open_guide(hek, encoder, tokenizer, Budgets(run.prompt, run.tool), arm)

        with open_model(arguments.model, arguments.batch_size, arguments.max_model_len, name) as client:
            settings = replace(episode_settings(arguments), seed=arguments.seed[0])
            told = play(
                plan,
                client,
                search,
                settings,
                guide_of,
                out,
                arguments.resume,
                arguments.batch_size,
                corpus=identify_search(run.search, search_encoder),
                policy=policy,
                same_policy=arguments.same_model,
            )
            if arguments.alone:
                try:
                    told |= replay(plan, arguments.alone, client, search, settings, guide_of, out)
                except HiExpError as error:
                    if not (out / TABLE_JSON).exists():  # one of before knows more than one without the replay
                        write_tables(plan, told, out)
                    missing = f"the replay (--alone {arguments.alone}){' and the judge' if arguments.judge else ''}"
                    raise HiExpError(f"{error}; all episodes are played, {missing} to come: --resume goes on there") from error
        table = write_tables(plan, told, out)  # also before a judge speaks, who may fail
        verdicts = out / VERDICTS
        if not arguments.judge:
            if verdicts.is_file() and verdicts.stat().st_size:  # a judge that never answered leaves an empty one
                logger.warning("%s keeps verdicts of a judge: the table is without them; give --judge again to have them in it", verdicts)
            return as_markdown(table)
        with open_model(arguments.judge, arguments.batch_size) as judging:  # now that the policy's memory is free
            judge_name = f"{judging.model} ({identify(arguments.judge)})"
            told[JUDGE] = judge_name
            return as_markdown(write_tables(plan, told, out, lambda episodes: judge(episodes, judging, judge_name, verdicts)))
