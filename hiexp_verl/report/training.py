"""A training as its manifest describes it: metrics of all its sessions, configuration, use of entries."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from hiexp_verl.io.manifest import Manifest
from hiexp_verl.io.rows import Row, number_or_nan
from hiexp_verl.report.find import files_of, flat, paths_of, read_lines, read_object
from hiexp_verl.rollout.policy import EVENTS, STATE

Step = Mapping[str, float]  # metric -> value


@dataclass(frozen=True)
class Training:
    """A run of verl's trainer."""

    name: str
    steps: Mapping[int, Step]  # in order; of a step that was repeated after a resume, the later values
    resumed: tuple[int, ...] = ()  # first steps of the second and later sessions
    config: Mapping[str, Any] = field(default_factory=dict)  # dotted name -> value
    hek: str = ""  # content hash; "" without HiExp
    hek_path: str = ""  # the version that the run used
    counters: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # entry -> episodes and sum of rewards
    events: Sequence[Row] = ()  # of the loop: proposals, verdicts
    software: str = ""  # names and versions
    error: str = ""  # that ended it

    @property
    def trained(self) -> list[int]:
        """The steps that trained, without a validation before the first one."""
        return [step for step, values in self.steps.items() if _trains(values)]

    @property
    def published(self) -> list[float]:
        """The steps from which another version of the HEK is in use."""
        return [step + 1 for (_, before), (step, version) in pairwise(self.curve("hiexp/loop/version")) if version != before]

    def curve(self, key: str) -> list[tuple[float, float]]:
        """Return (step, value) of a metric, where it is a finite number."""
        return [(float(step), values[key]) for step, values in self.steps.items() if math.isfinite(values.get(key, math.nan))]


def read_training(name: str, folder: Path, manifest: Manifest, faults: list[str]) -> Training:
    """Read what the manifest names. Every session of a training has a metrics file of its own."""
    steps: dict[int, Step] = {}
    resumed: list[int] = []
    for path in files_of(folder, manifest, "metrics", faults):
        session = read_lines(path, _step, faults)
        if steps and (trained := [step for step, values in session if _trains(values)]):
            resumed.append(min(trained))
        for step, values in session:
            steps[step] = {**steps.get(step, {}), **values}  # a session may begin with the validation of a step before it
    return Training(
        name,
        dict(sorted(steps.items())),
        tuple(resumed),
        flat(manifest.spec),
        manifest.outcome.get("hek", ""),
        manifest.outcome.get("hek_path") or "",
        _counters(folder, manifest, faults),
        _events(folder, manifest, faults),
        ", ".join(f"{name} {version}" for name, version in manifest.software.items()),
        manifest.error,
    )


def _step(line: int, row: Row) -> tuple[int, Step]:
    return int(float(row["step"])), {key: number_or_nan(value) for key, value in dict(row["data"]).items()}


def _trains(values: Step) -> bool:
    return any(not key.startswith("val-") for key in values)


def _events(folder: Path, manifest: Manifest, faults: list[str]) -> list[Row]:
    """Return what the loop did, where there was one."""
    paths = [path for place in paths_of(folder, manifest, "checkpoints") if (path := place / EVENTS).is_file()]
    return [row for path in paths for row in read_lines(path, _event, faults)]


def _event(line: int, row: Row) -> Row:
    verdict = row.get("verdict") or {}
    tested = verdict.get("error") is not None
    numbers = {"verdict": {name: float(verdict[name]) for name in ("difference", "error", "look")}} if tested else {}
    return {"step": int(row["step"]), **{name: str(row.get(name, "")) for name in ("event", "version", "why")}, **numbers}


def _counters(folder: Path, manifest: Manifest, faults: list[str]) -> Mapping[str, Mapping[str, float]]:
    """Return the use of each entry by the newest checkpoint."""
    found = [path for place in paths_of(folder, manifest, "checkpoints") for path in place.glob(f"global_step_*/{STATE}")]
    states = {int(step): path for path in found if (step := path.parents[1].name.removeprefix("global_step_")).isdecimal()}
    if not states:
        return {}
    newest = states[max(states)]
    try:
        counters = read_object(newest, faults).get("watched", {}).get("counters", {})
        return {entry: {"episodes": int(float(one["episodes"])), "reward": float(one["reward"])} for entry, one in counters.items()}
    except (AttributeError, KeyError, ValueError, TypeError, OverflowError) as error:
        faults.append(f"{newest} has damaged counters of entries ({error})")
        return {}
