"""Arms side by side on the same questions: one row per question, seed and arm, one table with intervals.

An arm is the policy with one kind of experience. All arms play the same episodes (`run.episode`) with the same seeds; what is
finished is on disk, so an interrupted evaluation goes on, and its rows are the same.
"""

import asyncio
import fcntl
import json
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from hiexp_verl.config import ARMS, Arm
from hiexp_verl.errors import HiExpError
from hiexp_verl.evaluate.judge import judge_key
from hiexp_verl.evaluate.tables import ALL, BASE, JUDGE, MEASURES, as_markdown, pairs_of, row_of, table_of
from hiexp_verl.guide.guide import Guide
from hiexp_verl.io.datasets import asked_twice, read_questions, read_trajectories
from hiexp_verl.io.files import atomic_writer, make_folder, write_jsonl
from hiexp_verl.io.manifest import Manifest, read_manifest
from hiexp_verl.io.rows import BadRow, read_rows
from hiexp_verl.rollout.episode import EpisodeSettings, episode
from hiexp_verl.rollout.policy import MERGED
from hiexp_verl.rollout.rollout import TRAJECTORIES, Client, check_output, rollout
from hiexp_verl.search import SearchEngine
from hiexp_verl.types import Question, Trajectory

logger = logging.getLogger(__name__)

ROWS, TABLE_JSON, TABLE_MD, VERDICTS = "rows.jsonl", "table.json", "table.md", "verdicts.jsonl"
_TAKEN = (ALL, MERGED, ROWS, TABLE_JSON, TABLE_MD, VERDICTS)  # in the table, in the output directory
Datasets = Mapping[str, Sequence[Question]]
Judge = Callable[[Sequence[Trajectory]], Mapping[str, bool | None]]  # by judge_key; None: it said neither yes nor no


def part_folder(out_dir: Path, dataset: str, seed: int, arm: str) -> Path:
    """Return where the episodes of an arm lie."""
    return out_dir / dataset / f"seed-{seed}" / arm


@dataclass(frozen=True)
class Plan:
    """What is played: every question of every data set, once with every seed in every arm."""

    datasets: Datasets
    arms: Sequence[Arm]
    seeds: Sequence[int]

    def parts(self, out_dir: Path) -> Iterator[tuple[str, int, Arm, Path]]:
        """Yield data set, seed, arm and the directory of its episodes."""
        for dataset in self.datasets:
            for seed in self.seeds:
                for arm in self.arms:
                    yield dataset, seed, arm, part_folder(out_dir, dataset, seed, arm)

    def left_out(self, out_dir: Path) -> dict[str, int]:
        """Return how many episodes on disk are not of this plan, by their directory."""
        planned = {folder: {q.id for q in self.datasets[dataset]} for dataset, _, _, folder in self.parts(out_dir)}
        found = {}
        for path in sorted(out_dir.glob(f"*/seed-*/*/{TRAJECTORIES}")):
            rows = [row for _, row in read_rows(path) if not isinstance(row, BadRow)]  # the last line of an interrupted arm may be torn
            count = sum(row.get("question_id") not in planned.get(path.parent, ()) for row in rows)
            found |= {str(path.parent.relative_to(out_dir)): count} if count else {}
        return found

    def check_output(self, out_dir: Path, resume: bool) -> None:
        """Refuse to add to another evaluation, whose rows and table would be replaced by those of this plan.

        Raises:
            HiExpError: there is an evaluation already and `resume` is off.
        """
        for *_, folder in self.parts(out_dir):
            check_output(folder, resume)
        others = [out_dir / TABLE_JSON, out_dir / ROWS, *out_dir.glob(f"*/seed-*/*/{TRAJECTORIES}")]
        if not resume and (found := next((path for path in others if path.exists()), None)):
            raise HiExpError(f"{out_dir} holds an evaluation ({found}); add --resume to go on with it, or choose another output directory")


def read_datasets(paths: Sequence[Path], limit: int | None = None) -> dict[str, list[Question]]:
    """Read question files, each a data set named after its file; a warning tells of questions that are asked twice.

    Raises:
        HiExpError: a file is not usable, or two have one name.
    """
    datasets: dict[str, list[Question]] = {}
    for path in paths:
        name = path.name.removesuffix(".gz").rpartition(".")[0] or path.name
        if name in datasets or name in _TAKEN:
            taken = "there is a data set" if name in datasets else "no data set can be called"
            raise HiExpError(f"{path}: {taken} {name!r}{' already' * (name in datasets)}; rename the file, rows are kept under its name")
        datasets[name] = read_questions(path)[:limit]
        if twice := asked_twice(datasets[name]):
            logger.warning(
                "%s: questions that are asked more than once, and count so often: %d (the first: %s)", path, len(twice), twice[0]
            )
    return datasets


def check_arms(names: Sequence[str], has_hek: bool) -> list[Arm]:
    """Return the arms, `none` first where it is among them.

    Raises:
        HiExpError: one is unknown or named twice, or shows experience where there is no HEK.
    """
    if unknown := [name for name in names if name not in ARMS]:
        raise HiExpError(f"--arms has {unknown[0]!r}; known: {', '.join(ARMS)}")
    if len(set(names)) < len(names):
        raise HiExpError(f"--arms names one twice: {','.join(names)}")
    arms: list[Arm] = [arm for arm in ARMS if arm in names]
    if not has_hek and list(names) != [BASE]:
        raise HiExpError(f"arm {next(name for name in names if name != BASE)} shows experience; give a HEK as --hek, or --arms none")
    return sorted(arms, key=lambda arm: (arm != BASE, names.index(arm)))


def play(
    plan: Plan,
    client: Client,
    search: SearchEngine,
    settings: EpisodeSettings,
    guide_of: Callable[[Arm], Guide | None],
    out_dir: Path,
    resume: bool = False,
    batch_size: int = 16,
    corpus: str = "",
    policy: str = "",
    same_policy: bool = False,
) -> dict[str, Any]:
    """Play all episodes; return what the table says of how they were played.

    Args:
        guide_of: what is shown in an arm.
        batch_size: episodes at a time. Each has seeds of its own, so this changes speed, and rows only where the engine's
            arithmetic depends on what it computes together.

    Raises:
        HiExpError: an evaluation is there already and `resume` is off, or was of something else.
    """
    if others := plan.left_out(out_dir):
        told_of = ", ".join(f"{count} of {name}" for name, count in others.items())
        logger.warning("episodes that were not asked for stay in %s and are in no row and table: %s", out_dir, told_of)
    _manifest(plan, batch_size, out_dir).write(out_dir)
    for dataset, seed, arm, folder in plan.parts(out_dir):
        shown = guide_of(arm)
        seeded = replace(settings, seed=seed)
        questions = plan.datasets[dataset]
        name = f"{dataset} {arm} {seed}"
        known = {"corpus": corpus, "policy": policy, "same_policy": same_policy}
        rollout(questions, client, search, seeded, 1, folder, resume, shown, batch_size, progress=name, **known)
    return {
        "questions": sum(map(len, plan.datasets.values())),
        "seeds": list(plan.seeds),
        "settings": settings_of(plan, out_dir),
        **_spent([folder for *_, folder in plan.parts(out_dir)]),
    }


def _manifest(plan: Plan, batch_size: int, out_dir: Path) -> Manifest:
    spec = {"datasets": list(plan.datasets), "seeds": list(plan.seeds), "arms": list(plan.arms)}
    results = {"rows": [ROWS], "table": [TABLE_JSON, TABLE_MD]}
    manifest = Manifest(kind="evaluation", spec=spec, batch_sizes=[batch_size], results=results)
    with suppress(HiExpError):
        manifest.begun = read_manifest(out_dir).begun
    return manifest


def _spent(folders: Sequence[Path]) -> dict[str, Any]:
    """Return seconds and batch size of these parts as the table has them."""
    parts = sorted(map(read_manifest, folders), key=lambda part: part.begun)
    sizes = [size for size, _ in groupby(size for part in parts for size in part.batch_sizes)]
    return {
        "seconds": round(sum(part.seconds for part in parts), 1),
        "batch_size": sizes[0] if len(sizes) == 1 else ", then ".join(map(str, sizes)),
    }


def settings_of(plan: Plan, out_dir: Path) -> dict[str, Any]:
    """Return how episodes were played, with the HEK and the budgets of the arms that show experience."""
    folders = [folder for *_, folder in plan.parts(out_dir)]
    first, last = (read_manifest(folder).spec for folder in (folders[0], folders[-1]))
    shown = {name: value for name, value in last.items() if name == "hek" or name.startswith(("prompt.", "tool."))}
    return {name: value for name, value in {**first, **shown}.items() if name != "arm"}  # each arm has its own


def write_tables(plan: Plan, told: dict[str, Any], out_dir: Path, judge: Judge | None = None) -> dict[str, Any]:
    """Write rows.jsonl, table.json and table.md from the episodes on disk; return the table."""
    played = [(*part[:3], t) for part in plan.parts(out_dir) for t in _played(part[3], plan.datasets[part[0]])]
    verdicts = judge([t for *_, t in played]) if judge is not None else None
    rows, seconds = [], defaultdict[tuple[str, str], list[float]](list)
    for dataset, seed, arm, t in played:
        try:
            rows.append(row_of(dataset, seed, arm, t))
            for name in (dataset, ALL):
                seconds[name, arm].append(t.extra["seconds"])
        except KeyError as error:
            folder = out_dir / dataset / f"seed-{seed}" / arm
            fault = f"{folder / TRAJECTORIES}: the episode of question {t.question_id} is none of an evaluation (it has no {error})"
            raise HiExpError(f"{fault}; remove {folder} and add --resume, which plays it anew") from error
        if verdicts is not None:
            rows[-1][JUDGE] = float(bool(verdicts.get(judge_key(t))))
    if verdicts is not None:
        told = {**told, "verdicts": len(verdicts), "unreadable_verdicts": sum(right is None for right in verdicts.values())}
    lines = table_of(rows)
    for line in lines:
        line["seconds"] = fmean(seconds[line["dataset"], line["arm"]])  # an episode's, among those of its batch
    table = {**told, "arms": lines, "pairs": pairs_of(rows, lines)}
    write_jsonl(out_dir / ROWS, rows)
    with atomic_writer(out_dir / TABLE_JSON) as file:
        file.write(json.dumps(table, ensure_ascii=False, indent=1) + "\n")
    with atomic_writer(out_dir / TABLE_MD) as file:
        file.write(as_markdown(table))
    manifest = read_manifest(out_dir)
    manifest.seconds = told["seconds"]
    manifest.finish(out_dir)
    return table


def _played(folder: Path, questions: Sequence[Question]) -> list[Trajectory]:
    """Return the episodes in the order of the questions."""
    found = {t.question_id: t for t in read_trajectories(folder / TRAJECTORIES)}
    return [found[q.id] for q in questions]


def replay(
    plan: Plan,
    count: int,
    client: Client,
    search: SearchEngine,
    settings: EpisodeSettings,
    guide_of: Callable[[Arm], Guide | None],
    out_dir: Path,
) -> dict[str, int]:
    """Play so many episodes of all arms in turn once more, one at a time; count those that are not the same, and those with other scores.

    Raises:
        HiExpError: the server fails for good.
    """
    return asyncio.run(_replay(plan, count, client, search, settings, guide_of, out_dir))


async def _replay(
    plan: Plan,
    count: int,
    client: Client,
    search: SearchEngine,
    settings: EpisodeSettings,
    guide_of: Callable[[Arm], Guide | None],
    out_dir: Path,
) -> dict[str, int]:
    parts = list(plan.parts(out_dir))
    turns = -(-count // len(parts))
    differ = scores_differ = replayed = 0
    try:
        for place, (dataset, seed, arm, folder) in enumerate(parts):
            questions = plan.datasets[dataset]
            evenly = sorted({turn * len(questions) // turns for turn in range(turns) if turn * len(parts) + place < count})
            chosen = [questions[i] for i in evenly]
            shown = guide_of(arm) if chosen else None
            for question, before in zip(chosen, _played(folder, chosen), strict=True):
                again = await episode(question, client, search, replace(settings, seed=seed), shown)
                replayed += 1
                differ += again.messages != before.messages
                scores_differ += any(again.extra[name] != before.extra[name] for name in MEASURES)
    finally:
        await client.close()
    return {"replayed": replayed, "differ_alone": differ, "scores_differ_alone": scores_differ}


@contextmanager
def only_one(out_dir: Path) -> Iterator[None]:
    """Hold a directory for one evaluation.

    Raises:
        HiExpError: another holds it, or it is a file.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise HiExpError(f"{out_dir} is a file; give a directory for the evaluation")
    make_folder(out_dir)
    handle = os.open(out_dir, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise HiExpError(f"another evaluation is writing to {out_dir}; wait for it, or choose another directory") from error
    finally:
        os.close(handle)
