"""Arms side by side on the same questions: one row per question and arm, one table with intervals.

An arm is the policy with one kind of experience. All arms play the same episodes (`run.episode`) with the same seeds; what is
finished is on disk, so an interrupted evaluation goes on, and its rows are the same.
"""

import asyncio
import fcntl
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hiexp_verl.config import CONTROLS
from hiexp_verl.errors import HiExpError
from hiexp_verl.jsonl import atomic_writer, read_trajectories
from hiexp_verl.run.episode import EpisodeSettings, episode
from hiexp_verl.run.experience import Experience
from hiexp_verl.run.rollout import SETTINGS, TRAJECTORIES, Client, rollout
from hiexp_verl.run.statistics import mean_interval, paired_difference
from hiexp_verl.search import SearchEngine
from hiexp_verl.types import Question, Trajectory

BASE = "base"
_NAMED = {BASE: "none", "hek": "full", "hek-start": "start-only", "hek-step": "step-only"}
ARMS: dict[str, str] = {**_NAMED, **{c: c for c in CONTROLS if c not in (*_NAMED.values(), "train-only", "inference-only")}}  # to controls
ROWS, TABLE_JSON, TABLE_MD = "rows.jsonl", "table.json", "table.md"
MEASURES = ("em", "f1", "cem")


def check_arms(arms: Sequence[str], has_hek: bool) -> list[str]:
    """Return the arms, the base first where it is among them.

    Raises:
        HiExpError: none, an unknown or repeated one, or one that needs a HEK and there is none.
    """
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown or not arms:
        raise HiExpError(f"--arms has {unknown[0] if unknown else 'nothing'!r}; known: {', '.join(ARMS)}")
    if len(set(arms)) < len(arms):
        raise HiExpError(f"--arms names one twice: {', '.join(arms)}")
    guided = [arm for arm in arms if arm != BASE]
    if guided and not has_hek:
        raise HiExpError(f"arm {guided[0]} shows experience; give a HEK as --hek, or --arms base")
    return sorted(arms, key=lambda arm: arm != BASE)


def evaluate(
    questions: Sequence[Question],
    client: Client,
    search: SearchEngine,
    settings: EpisodeSettings,
    arms: Sequence[str],
    experience_of: Callable[[str], Experience | None],
    out_dir: Path,
    resume: bool = False,
    batch_size: int = 16,
    corpus: str = "",
    alone: int = 0,
) -> dict[str, Any]:
    """Play every question once in each arm; write rows.jsonl, table.json and table.md to `out_dir`; return the table.

    Args:
        experience_of: what is shown in an arm, by the name of its control.
        batch_size: episodes at a time. Each has seeds of its own, so this changes speed, and rows only where the engine's
            arithmetic depends on what it computes together.
        alone: so many episodes of the first arm are played once more, one at a time: the share that differs is in the table.

    Raises:
        HiExpError: an evaluation is there already and `resume` is off, or was of something else; another is running there.
    """
    with _only_one(out_dir):
        for arm in arms:
            rollout(
                *(questions, client, search, settings, 1, out_dir / arm, resume, experience_of(ARMS[arm]), batch_size),
                progress=arm,
                corpus=corpus,
            )
        rows = [row_of(arm, t) for arm in arms for t in _played(out_dir / arm, questions)]
        with atomic_writer(out_dir / ROWS) as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        table: dict[str, Any] = {
            "questions": len(questions),
            "settings": json.loads((out_dir / arms[0] / SETTINGS).read_text(encoding="utf-8")),
            "batch_size": batch_size,
            "arms": table_of(rows),
        }
        if alone:
            again = asyncio.run(_one_at_a_time(questions[:alone], client, search, settings, experience_of(ARMS[arms[0]])))
            before = [t.messages for t in _played(out_dir / arms[0], questions[:alone])]
            table["replayed"] = len(again)
            table["differ_alone"] = sum(one.messages != other for one, other in zip(again, before, strict=True))
        with atomic_writer(out_dir / TABLE_JSON) as file:
            file.write(json.dumps(table, ensure_ascii=False, indent=1) + "\n")
        with atomic_writer(out_dir / TABLE_MD) as file:
            file.write(as_markdown(table))
    return table


def row_of(arm: str, t: Trajectory) -> dict[str, Any]:
    """Return what is kept of one episode."""
    shown = t.extra["shown"]
    return {
        "arm": arm,
        "id": t.question_id,
        "prediction": t.prediction,
        **{name: t.extra[name] for name in (*MEASURES, "format")},
        "searches": t.extra["searches"],
        "failed_searches": t.extra["failed_searches"],
        "tokens": t.extra["completion_tokens"],  # that the policy wrote
        "experience_tokens": sum(row["tokens"] for row in shown),
        "shown": [row["entry"] for row in shown],
        "stop": t.extra["stop"],
        "seconds": t.extra["seconds"],
    }


def table_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return for each arm its means with 95% intervals, and the paired differences to the base where it was played.

    Raises:
        HiExpError: two arms did not play the same questions.
    """
    by_arm: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_arm[row["arm"]].append(row)
    table = []
    for arm, played in by_arm.items():
        line: dict[str, Any] = {"arm": arm, "episodes": len(played)}
        for name in MEASURES:
            values = {row["id"]: float(row[name]) for row in played}
            line[name] = float(np.mean(list(values.values())))
            line[f"{name}_interval"] = list(mean_interval(values))
            if BASE in by_arm and arm != BASE:
                difference = paired_difference(values, {row["id"]: float(row[name]) for row in by_arm[BASE]})
                line[f"{name}_minus_base"] = vars(difference)
        for name in ("format", "searches", "tokens", "experience_tokens", "seconds"):
            line[name] = float(np.mean([row[name] for row in played]))
        line["with_experience"] = float(np.mean([bool(row["shown"]) for row in played]))
        table.append(line)
    return table


def as_markdown(table: Mapping[str, Any]) -> str:
    """Return the table for people."""
    lines = ["| arm | episodes | EM [95%] | F1 | CEM [95%] | CEM - base [95%], p | format | searches | tokens | with experience |"]
    lines += ["| --- | ---: | --- | ---: | --- | --- | ---: | ---: | ---: | ---: |"]
    for line in table["arms"]:
        spans = {name: f"{line[name]:.3f} [{line[f'{name}_interval'][0]:.3f}, {line[f'{name}_interval'][1]:.3f}]" for name in ("em", "cem")}
        gap = line.get("cem_minus_base")
        told = f"{gap['mean']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}], p {gap['p']:.3f}" if gap else ""
        rates = f"{line['format']:.2f} | {line['searches']:.2f} | {line['tokens']:.0f} | {line['with_experience']:.2f}"
        lines.append(f"| {line['arm']} | {line['episodes']} | {spans['em']} | {line['f1']:.3f} | {spans['cem']} | {told} | {rates} |")
    settings = table["settings"]
    told = f"{table['questions']} questions, {settings['model']}, temperature {settings['temperature']:g}, seed {settings['seed']}"
    lines += ["", f"{told}, {table['batch_size']} episodes at a time."]
    if "replayed" in table:
        lines += [f"Played once more one at a time, {table['differ_alone']} of {table['replayed']} episodes differ."]
    return "\n".join([*lines, ""])


def _played(folder: Path, questions: Sequence[Question]) -> list[Trajectory]:
    """Return the episodes in the order of the questions."""
    found = {t.question_id: t for t in read_trajectories(folder / TRAJECTORIES)}
    return [found[q.id] for q in questions]


async def _one_at_a_time(
    questions: Sequence[Question], client: Client, search: SearchEngine, settings: EpisodeSettings, experience: Experience | None
) -> list[Trajectory]:
    try:
        return [await episode(question, client, search, settings, experience) for question in questions]
    finally:
        await client.close()


@contextmanager
def _only_one(out_dir: Path) -> Iterator[None]:
    if out_dir.exists() and not out_dir.is_dir():
        raise HiExpError(f"{out_dir} is a file; give a directory for the evaluation")
    out_dir.mkdir(parents=True, exist_ok=True)
    handle = os.open(out_dir, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise HiExpError(f"another evaluation is writing to {out_dir}; wait for it, or choose another directory") from error
    finally:
        os.close(handle)
