"""What `hiexp eval` does with its arguments."""

import argparse
import logging
from dataclasses import replace
from pathlib import Path

from hiexp_verl.errors import HiExpError
from hiexp_verl.llm import open_model
from hiexp_verl.run.as_trained import play_as_trained
from hiexp_verl.run.command import (
    EPISODE_NUMBERS,
    check_numbers,
    check_policy,
    check_sampling,
    episode_settings,
    identify_search,
    open_experience,
    open_search,
    run_settings,
)
from hiexp_verl.run.encoders import open_encoders, open_hek
from hiexp_verl.run.eval_markdown import as_markdown
from hiexp_verl.run.eval_table import JUDGE
from hiexp_verl.run.evaluate import TABLE_JSON, VERDICTS, Plan, check_arms, only_one, play, read_datasets, replay, write_tables
from hiexp_verl.run.experience import Experience
from hiexp_verl.run.judge import judge
from hiexp_verl.run.policy import find_policy, identify
from hiexp_verl.vllm_engine import check_model_dir

logger = logging.getLogger(__name__)


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

        def experience_of(control: str) -> Experience | None:
            if hek is None or encoder is None or control == "none":
                return None
            return open_experience(hek, encoder, tokenizer, run.start, control, run.step)

        with open_model(arguments.model, arguments.batch_size, arguments.max_model_len, name) as client:
            settings = replace(episode_settings(arguments), seed=arguments.seed[0])
            told = play(
                plan,
                client,
                search,
                settings,
                experience_of,
                out,
                arguments.resume,
                arguments.batch_size,
                corpus=identify_search(run.search, search_encoder),
                policy=policy,
                same_policy=arguments.same_model,
            )
            if arguments.alone:
                try:
                    told |= replay(plan, arguments.alone, client, search, settings, experience_of, out)
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
