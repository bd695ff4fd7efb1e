"""A training as its manifest describes it: the metrics of all its lives, configuration, use of entries."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hiexp_verl.io.manifest import Manifest
from hiexp_verl.io.rows import BadRow, as_number, number_or_nan, read_rows
from hiexp_verl.report.find import Found, files_of, flat, paths_of, read_object
from hiexp_verl.rollout.policy import STATE

Step = dict[str, float]  # metric -> value


@dataclass(frozen=True)
class Training:
    """A run of verl's trainer."""

    name: str
    steps: Mapping[int, Step]  # in order; where two lives did a step, the later one's
    resumed: tuple[int, ...] = ()  # first steps of the second and later lives
    config: Mapping[str, Any] = field(default_factory=dict)  # flat: dotted name -> value
    hek: str | None = None  # content hash; None without HiExp
    hek_paths: tuple[str, ...] = ()  # where it lay when the run used it
    counters: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # entry -> episodes and sum of rewards, by the last state
    software: str = ""  # names and versions
    error: str = ""  # that ended it

    @property
    def trained(self) -> list[int]:
        """The steps that trained, without a validation before the first one."""
        return _trained(self.steps)

    def curve(self, key: str) -> list[tuple[float, float]]:
        """Return (step, value) of a metric, where it is a finite number."""
        return [(float(step), values[key]) for step, values in self.steps.items() if math.isfinite(values.get(key, math.nan))]


def read_training(name: str, folder: Path, manifest: Manifest, found: Found) -> Training:
    """Read what the manifest names; faults are added to `found`."""
    steps: dict[int, Step] = {}
    resumed: list[int] = []
    for path in files_of(folder, manifest, "metrics", found):
        life = _life(path, found)
        if steps and (trained := _trained(life)):
            resumed.append(min(trained))
        for step, values in life.items():
            steps[step] = steps.get(step, {}) | values  # a life that begins with a validation has no more than that of its step
    config = flat(manifest.spec)
    hek = manifest.outcome.get("hek")
    paths = [path for path in (manifest.outcome.get("hek_path"), config.get("hiexp.hek")) if isinstance(path, str)]
    return Training(
        name,
        dict(sorted(steps.items())),
        tuple(resumed),
        config,
        hek if isinstance(hek, str) else None,
        tuple(paths),
        _counters(_last_state(folder, manifest, found)),
        ", ".join(f"{name} {version}" for name, version in manifest.software.items()),
        manifest.error,
    )


def _trained(steps: Mapping[int, Step]) -> list[int]:
    return [step for step, values in steps.items() if any(not key.startswith("val-") for key in values)]


def _life(path: Path, found: Found) -> dict[int, Step]:
    """Return the steps in a file of verl's logger, which every life opens anew."""
    life: dict[int, Step] = {}
    bad: list[str] = []
    for line, row in read_rows(path, surrogates=True):
        number = None if isinstance(row, BadRow) else as_number(row.get("step"))
        if isinstance(row, BadRow) or number is None or not isinstance(row.get("data"), dict):
            bad.append(f"line {line}: {row if isinstance(row, BadRow) else 'no step with data'}")
            continue
        life[int(number)] = life.get(int(number), {}) | {key: number_or_nan(value) for key, value in row["data"].items()}
    if bad:
        found.faults.append(f"{path}: {len(bad)} lines cannot be read ({bad[0]})")
    return life


def _last_state(folder: Path, manifest: Manifest, found: Found) -> Mapping[str, Any]:
    """Return what HiExp kept in the newest checkpoint."""
    states = {
        int(number): path
        for place in paths_of(folder, manifest, "checkpoints")
        for path in place.glob(f"global_step_*/{STATE}")
        if (number := path.parents[1].name.removeprefix("global_step_")).isdecimal()
    }
    return read_object(states[max(states)], found.faults) if states else {}


def _counters(state: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    watched = state.get("watched")
    counters = watched.get("counters") if isinstance(watched, dict) else None
    return {
        entry: counter
        for entry, counter in (counters.items() if isinstance(counters, dict) else ())
        if isinstance(counter, dict) and None not in (as_number(counter.get("episodes")), as_number(counter.get("reward")))
    }
