"""Arms side by side on the same questions: one row per question, seed and arm, one table with intervals.

An arm is the policy with one kind of experience. All arms play the same questions (`rollout.episode`) with the same seeds. Finished
episodes are on disk: an evaluation that is resumed has the same rows.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from hiexp_verl.config import Arm
from hiexp_verl.errors import HiExpError
from hiexp_verl.evaluate.judge import judge, judge_key
from hiexp_verl.evaluate.plan import ROWS, TABLE_JSON, TABLE_MD, VERDICTS, EvaluationPlan, Judge, check_arms, part_folder, read_datasets
from hiexp_verl.evaluate.tables import ALL, BASE, JUDGE, MEASURES, as_markdown, pairs_of, row_of, table_of
from hiexp_verl.io.datasets import read_trajectories
from hiexp_verl.io.files import atomic_writer, only_one, write_jsonl
from hiexp_verl.io.manifest import MANIFEST, Manifest, read_manifest, timed
from hiexp_verl.models.chat import open_model
from hiexp_verl.models.vllm_process import check_model_dir
from hiexp_verl.rollout.episode import Players, episode
from hiexp_verl.rollout.opening import check_policy, open_spec
from hiexp_verl.rollout.policy import find_policy, identify
from hiexp_verl.rollout.rollout import TRAJECTORIES, Job, described
from hiexp_verl.rollout.rollout import play as play_questions
from hiexp_verl.rollout.spec import EvalSpec
from hiexp_verl.types import Question, Trajectory

PlayersOf = Callable[[Arm], Players]


def evaluate(spec: EvalSpec) -> dict[str, Any]:
    """Play every question in every arm with the model of the spec; write rows and tables; return the table.

    Raises:
        HiExpError: questions, arms, search, model or HEK are not usable, or an evaluation is there already.
    """
    plan = EvaluationPlan(read_datasets(spec.questions, spec.limit), check_arms(spec.arms, spec.hek is not None), spec.seeds)
    plan.check_output(spec.out, spec.resume)
    with only_one(spec.out):
        policy = find_policy(spec.model, spec.out)
        tokenizer = check_policy(policy.spec, [question for questions in plan.datasets.values() for question in questions], spec)
        if spec.judge and "://" not in spec.judge:
            check_model_dir(Path(spec.judge.removeprefix("vllm:")))
        opened = open_spec(spec, tokenizer)
        job = Job(spec.out, replace(spec.settings, seed=spec.seeds[0]), resume=spec.resume, batch_size=spec.batch_size)
        job = replace(job, corpus=opened.corpus, policy=policy.identity, same_policy=spec.same_model)
        with open_model(policy.spec, spec.batch_size, spec.max_model_len, policy.name) as client:

            def players_of(arm: Arm) -> Players:
                return Players(client, opened.engine, opened.guide(arm), spec.search, opened.domain)

            summary = play(plan, players_of, job)
            if spec.alone:
                summary = _with_replay(plan, players_of, job, spec.alone, summary)
        table = write_tables(plan, summary, spec.out)  # before the judge is asked, who may fail
        return _judged(plan, spec, summary) if spec.judge else table


def _with_replay(plan: EvaluationPlan, players_of: PlayersOf, job: Job, count: int, summary: dict[str, Any]) -> dict[str, Any]:
    try:
        return summary | replay(plan, players_of, job, count)
    except HiExpError as error:
        write_tables(plan, summary, job.out)
        raise HiExpError(f"{error}; the table is written, --resume goes on with the replay (--alone {count})") from error


def _judged(plan: EvaluationPlan, spec: EvalSpec, summary: dict[str, Any]) -> dict[str, Any]:
    assert spec.judge
    with open_model(spec.judge, spec.batch_size) as client:  # now that the policy's memory is free
        name = f"{client.model} ({identify(spec.judge)})"
        verdicts = spec.out / VERDICTS
        return write_tables(plan, {**summary, JUDGE: name}, spec.out, lambda episodes: judge(episodes, client, name, verdicts))


def play(plan: EvaluationPlan, players_of: PlayersOf, job: Job) -> dict[str, Any]:
    """Play all episodes; return what the table records about how they were played.

    Each episode has its own seeds, so rows depend on the batch size only where the engine's arithmetic does.

    Raises:
        HiExpError: an evaluation is there already and `resume` is off, or was of something else.
    """
    spec = {"datasets": list(plan.datasets), "seeds": list(plan.seeds), "arms": list(plan.arms)}
    spec |= _shared(described(players_of(plan.arms[-1]), job))
    resumed = job.resume and (job.out / MANIFEST).is_file()
    results = {"rows": [ROWS], "table": [TABLE_JSON, TABLE_MD]}
    manifest = read_manifest(job.out) if resumed else Manifest(kind="evaluation", spec=spec, results=results)
    manifest.add_batch_size(job.batch_size)
    with timed(job.out, manifest):
        for dataset, seed, arm, folder in plan.parts(job.out):
            part = replace(job, out=folder, settings=replace(job.settings, seed=seed), progress=f"{dataset} {arm} {seed}")
            play_questions(plan.datasets[dataset], players_of(arm), part)
        manifest.spec = spec  # after the parts have accepted it: a resumed evaluation may have more of them
    parts = [read_manifest(folder) for *_, folder in plan.parts(job.out)]
    sizes = sorted({size for part in parts for size in part.batch_sizes})
    return {
        "questions": sum(map(len, plan.datasets.values())),
        "seeds": list(plan.seeds),
        "settings": _shared(parts[-1].spec),
        "seconds": round(sum(part.seconds for part in parts), 1),
        "batch_size": " or ".join(map(str, sizes)),
    }


def _shared(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the last arm (`none` is first: the last has the HEK) without those that differ from part to part."""
    return {name: value for name, value in settings.items() if name not in ("arm", "seed")}


def write_tables(plan: EvaluationPlan, summary: dict[str, Any], out_dir: Path, judge_all: Judge | None = None) -> dict[str, Any]:
    """Write rows.jsonl, table.json and table.md from the episodes on disk; return the table."""
    played = [(*part[:3], t) for part in plan.parts(out_dir) for t in _played(part[3], plan.datasets[part[0]])]
    verdicts = judge_all([t for *_, t in played]) if judge_all is not None else None
    rows, seconds = [], defaultdict[tuple[str, str], list[float]](list)
    for dataset, seed, arm, t in played:
        try:
            rows.append(row_of(dataset, seed, arm, t))
            for name in (dataset, ALL):
                seconds[name, arm].append(t.extra["seconds"])
        except KeyError as error:
            folder = part_folder(out_dir, dataset, seed, arm)
            fault = f"{folder / TRAJECTORIES}: the episode of question {t.question_id} is not of an evaluation (it has no {error})"
            raise HiExpError(f"{fault}; remove {folder} and add --resume, which plays it anew") from error
        if verdicts is not None:
            rows[-1][JUDGE] = float(bool(verdicts.get(judge_key(t))))
    if verdicts is not None:
        summary = {**summary, "verdicts": len(verdicts), "unreadable_verdicts": sum(right is None for right in verdicts.values())}
    lines = table_of(rows)
    for line in lines:
        line["seconds"] = fmean(seconds[line["dataset"], line["arm"]])  # an episode's, among those of its batch
    table = {**summary, "arms": lines, "pairs": pairs_of(rows)}
    write_jsonl(out_dir / ROWS, rows)
    with atomic_writer(out_dir / TABLE_JSON) as file:
        file.write(json.dumps(table, ensure_ascii=False, indent=1) + "\n")
    with atomic_writer(out_dir / TABLE_MD) as file:
        file.write(as_markdown(table))
    read_manifest(out_dir).finish(out_dir)
    return table


def _played(folder: Path, questions: Sequence[Question]) -> list[Trajectory]:
    """Return the episodes in the order of the questions."""
    found = {t.question_id: t for t in read_trajectories(folder / TRAJECTORIES)}
    return [found[q.id] for q in questions]


def replay(plan: EvaluationPlan, players_of: PlayersOf, job: Job, count: int) -> dict[str, int]:
    """Play `count` episodes, spread over all arms, once more and one at a time; return how many differ, and how many in their scores.

    Raises:
        HiExpError: the server fails for good.
    """
    return asyncio.run(_replay(plan, players_of, job, count))


async def _replay(plan: EvaluationPlan, players_of: PlayersOf, job: Job, count: int) -> dict[str, int]:
    parts = list(plan.parts(job.out))
    turns = -(-count // len(parts))
    differ = scores_differ = replayed = 0
    try:
        for place, (dataset, seed, arm, folder) in enumerate(parts):
            questions = plan.datasets[dataset]
            evenly = sorted({turn * len(questions) // turns for turn in range(turns) if turn * len(parts) + place < count})
            chosen = [questions[i] for i in evenly]
            players, settings = players_of(arm), replace(job.settings, seed=seed)
            for question, before in zip(chosen, _played(folder, chosen), strict=True):
                again = await episode(question, players, settings)
                replayed += 1
                differ += again.messages != before.messages
                scores_differ += any(again.extra[name] != before.extra[name] for name in MEASURES)
    finally:
        await players_of(BASE).client.close()
    return {"replayed": replayed, "differ_alone": differ, "scores_differ_alone": scores_differ}
