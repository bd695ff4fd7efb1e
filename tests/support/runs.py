"""Runs on disk for tests of the report: trainings, evaluations, rollouts, as the programs leave them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hiexp_verl.evaluate.plan import part_folder
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.io.manifest import MANIFEST, Manifest, read_manifest
from hiexp_verl.rollout.policy import STATE
from hiexp_verl.types import Trajectory
from tests.support.factories import trajectory

CONFIG = {
    "actor_rollout_ref": {"model": {"path": "/models/policy"}, "rollout": {"n": 4, "seed": 0}},
    "trainer": {"default_local_dir": "somewhere"},
    "hiexp": {"enabled": True, "seed": 0, "arm": "full", "group": {"strip": False}},
}
SETTINGS = {"temperature": 0.0, "seed": 0, "hek": "", "model": "policy"}
TABLE = {"questions": 50, "settings": SETTINGS, "seeds": [0], "batch_size": "4", "pairs": []}


def write_metrics(path: Path, rewards: Mapping[int, float], **more: float | None) -> None:
    """Write what verl's file logger writes; `more` stands in every step, `__` for the slash."""
    extra = {key.replace("__", "/"): value for key, value in more.items()}
    rows = [
        {"step": step, "data": {"critic/score/mean": reward, "training/global_step": step, **extra}} for step, reward in rewards.items()
    ]
    write_jsonl(path, rows)


def config_of(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a run; `a__b=1` sets `a.b`."""
    config = json.loads(json.dumps(CONFIG))
    for name, value in changes.items():
        *parents, last = name.split("__")
        block = config
        for parent in parents:
            block = block.setdefault(parent, {})
        block[last] = value
    return config


def write_training(
    folder: Path,
    rewards: Mapping[int, float] | None = None,
    config: Mapping[str, Any] | None = None,
    episodes: Sequence[Trajectory] = (),
    metrics: Sequence[str] = ("metrics.jsonl",),
    error: str = "",
    **more: float | None,
) -> None:
    """Write what a training leaves: metrics (unless they are there), episodes, manifest."""
    if rewards is not None:
        write_metrics(folder / metrics[0], rewards, **more)
    results = {"checkpoints": ["."], "metrics": list(metrics)}
    if episodes:
        write_jsonl(folder / "dump" / "000001.jsonl", episodes)
        results["episodes"] = ["dump"]
    manifest = Manifest(kind="training", spec=config_of(config or {}), results=results, error=error)
    manifest.write(folder) if error else manifest.finish(folder)


def write_state(folder: Path, step: int, hek: str, counters: Mapping[str, Any], hek_path: str | None = None) -> None:
    """Write the state of a checkpoint of a training, and the HEK into its manifest."""
    path = folder / f"global_step_{step}" / STATE
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"step": step, "watched": {"counters": counters}}))
    read_manifest(folder).finish(folder, hek=hek, hek_path=hek_path)


def write_recipe(folder: Path, **outcome: Any) -> None:
    """Write the manifest of a recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    Manifest(kind="recipe", spec={}).finish(folder, **outcome)


def shown(*entries: str, place: str = "prompt") -> list[dict[str, Any]]:
    return [{"entry": each, "content": f"of {each}", "level": each[:2], "score": 0.5, "place": place, "tokens": 10} for each in entries]


def dumped(question_id: str, step: int, correct: bool, *entries: str, sample: int = 0) -> Trajectory:
    """An episode as a training keeps it."""
    extra = {"split": "train", "arm": "full", "shown": shown(*entries), "searches": 2, "lookups": 3}
    return trajectory(question_id, correct, id=f"{question_id}#{sample}@{step}", extra=extra)


def write_rollout(folder: Path, episodes: Sequence[Trajectory], **settings: Any) -> None:
    """Write what `hiexp rollout` leaves."""
    write_jsonl(folder / "trajectories.jsonl", episodes)
    Manifest(kind="rollout", spec=SETTINGS | settings, results={"episodes": ["trajectories.jsonl"]}).finish(folder)


def arm(name: str, right: float, gain: float | None = None, **more: Any) -> dict[str, Any]:
    """A line of an evaluation's table; the interval reaches 0.1 to both sides."""
    line: dict[str, Any] = {"dataset": "set", "arm": name, "episodes": 50}
    for key in ("concise", "em", "f1", "cem"):
        line |= {key: right, f"{key}_interval": [right - 0.1, right + 0.1]}
        if gain is not None:
            line[f"{key}_minus_none"] = {"mean": gain, "low": gain - 0.1, "high": gain + 0.1, "p": 0.02}
    return line | {"format": 1.0, "searches": 2.0, "tokens": 90.0, "seconds": 3.0, "with_experience": 0.5} | more


def write_evaluation(folder: Path, arms: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]] = (), **more: Any) -> None:
    """Write the table and the rows that `hiexp eval` leaves."""
    plan(folder)
    (folder / "table.json").write_text(json.dumps({**TABLE, **more, "arms": arms}))
    manifest = read_manifest(folder)
    manifest.results["table"] = ["table.json"]
    if rows:
        write_jsonl(folder / "rows.jsonl", rows)
        manifest.results["rows"] = ["rows.jsonl"]
    manifest.finish(folder)


def plan(folder: Path) -> None:
    """Write the manifest of an evaluation, unless it is there."""
    if not (folder / MANIFEST).is_file():
        Manifest(kind="evaluation", spec={}).write(folder)


def write_part(
    evaluation: Path,
    dataset: str,
    seed: int,
    arm: str,
    right: Sequence[bool],
    shown: Sequence[Any] = (),
    question: str = "What is the capital of France?",
    **more: Any,
) -> None:
    """Write what `hiexp eval` leaves of an arm before its table: settings and episodes on the questions q0, q1, ..."""
    extra = {"arm": arm, "searches": 2, "completion_tokens": 9, "stop": "answer", "shown": list(shown)}
    episodes = [trajectory(f"q{i}", good, question=question, extra=extra) for i, good in enumerate(right)]
    settings = {"hek": "abc", "arm": arm} if arm != "none" else {}
    write_rollout(part_folder(evaluation, dataset, seed, arm), episodes, seed=seed, **settings, **more)
    plan(evaluation)


def row(arm: str, id: str, right: bool, dataset: str = "set", seed: int = 0) -> dict[str, Any]:
    return {"dataset": dataset, "seed": seed, "arm": arm, "id": id, "question": f"What is {id}?", "concise": float(right)}
