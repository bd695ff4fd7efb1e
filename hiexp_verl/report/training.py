"""A training run as it is found on disk: metrics of all its lives, configuration, state, what its log said."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hiexp_verl.report.find import Found
from hiexp_verl.report.finite import finite, or_nan
from hiexp_verl.rows import BadRow, read_rows

Step = dict[str, float]  # metric -> value

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_SAID = re.compile(r"(?:\balarm|\bHiExpError): (.+)")
_MAX_SAID = 20


@dataclass(frozen=True)
class Training:
    """A run of verl's trainer."""

    name: str
    steps: Mapping[int, Step]  # in order; where two lives did a step, the later one's
    resumed: tuple[int, ...] = ()  # first steps of the second and later lives
    config: Mapping[str, Any] = field(default_factory=dict)  # flat: dotted name -> value
    hek: str | None = None  # content hash; None where it is not known
    hek_paths: tuple[str, ...] = ()  # where it lay when the run used it
    counters: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # entry -> episodes and sum of rewards, by the last state
    software: str = ""  # versions, by the last state
    said: tuple[str, ...] = ()  # alarms and our errors, from its logs

    @property
    def trained(self) -> list[int]:
        """The steps that trained; the validation before the first one is none."""
        return _trained(self.steps)

    def curve(self, key: str) -> list[tuple[float, float]]:
        """Return (step, value) of a metric, where it is a finite number."""
        return [(float(step), values[key]) for step, values in self.steps.items() if math.isfinite(values.get(key, math.nan))]


def read_training(name: str, metrics: Sequence[Path], found: Found) -> Training:
    """Read a run from its metrics and from the configs, states and logs found with them; faults are added to `found`."""
    steps: dict[int, Step] = {}
    resumed: list[int] = []
    for path in sorted(metrics, key=lambda path: (path.stat().st_mtime_ns, path)):
        for life in _lives(path, found):
            if steps and (trained := _trained(life)):
                resumed.append(min(trained))
            for step, values in life.items():
                steps[step] = steps.get(step, {}) | values  # a life that begins with a validation has no more than that of its step
    config = max(found.configs.items(), key=lambda item: item[0].stat().st_mtime_ns)[1] if found.configs else {}
    state = max(found.states.values(), key=lambda state: finite(state.get("step")) or 0.0, default={})
    hek = state.get("identity", {}).get("hek") or config.get("hiexp.hek_hash")
    paths = [path for path in (state.get("hek_path"), config.get("hiexp.hek")) if isinstance(path, str)]
    return Training(
        name,
        dict(sorted(steps.items())),
        tuple(resumed),
        config,
        hek if isinstance(hek, str) else None,
        tuple(paths),
        _counters(state),
        _software(state),
        tuple(dict.fromkeys(line for path in found.logs for line in _said(path)))[:_MAX_SAID],
    )


def _trained(steps: Mapping[int, Step]) -> list[int]:
    return [step for step, values in steps.items() if any(not key.startswith("val-") for key in values)]


def _lives(path: Path, found: Found) -> Iterator[dict[int, Step]]:
    """Yield the steps of each life in a file; a step below the one before begins another."""
    life: dict[int, Step] = {}
    bad: list[str] = []
    for line, row in read_rows(path, halves=True):
        number = None if isinstance(row, BadRow) else finite(row.get("step"))
        if isinstance(row, BadRow) or number is None or not isinstance(row.get("data"), dict):
            bad.append(f"line {line}: {row if isinstance(row, BadRow) else 'no step with data'}")
            continue
        step = int(number)
        if life and step < max(life):
            yield life
            life = {}
        life[step] = life.get(step, {}) | {key: or_nan(value) for key, value in row["data"].items()}
    if bad:
        found.faults.append(f"{path}: {len(bad)} lines cannot be read ({bad[0]})")
    if life:
        yield life


def _counters(state: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    counters = state.get("watched", {}).get("counters")
    return {
        entry: counter
        for entry, counter in (counters.items() if isinstance(counters, dict) else ())
        if isinstance(counter, dict) and finite(counter.get("episodes")) is not None and finite(counter.get("reward")) is not None
    }


def _software(state: Mapping[str, Any]) -> str:
    versions = state.get("software")
    return ", ".join(f"{name} {version}" for name, version in versions.items()) if isinstance(versions, dict) else ""


def _said(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for line in file:
            if b"alarm: " in line or b"HiExpError: " in line:
                text = _ANSI.sub("", line.decode("utf-8", "replace"))
                if match := _SAID.search(text):
                    yield match.group().strip()[:500]
