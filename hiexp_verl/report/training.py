"""A training run as it is found on disk: metrics of all its lives, configuration, state, what its log said.

Alarms that rang, and what else in the metrics is never right.

What it cost: time per step by part, tokens, searches and look-ups, seconds per episode."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from hiexp_verl.io.rows import BadRow, finite, or_nan, read_rows
from hiexp_verl.report.charts import stages
from hiexp_verl.report.episodes import Played
from hiexp_verl.report.find import Found
from hiexp_verl.report.html import e, folded, listed, number, plural, table

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


_ALARM = "hiexp/alarm/"
_PEARSON = "training/rollout_actor_probs_pearson_corr"
_MIN_PEARSON = 0.99  # in sync it is 0.998 and more; three steps behind, it was 0.96
_FAULTS: dict[str, Callable[[Step], bool]] = {
    "look-ups of experience failed": lambda step: step.get("hiexp/lookup_failures", 0.0) > 0,
    "search calls failed": lambda step: step.get("hiexp/failed_search_rate", 0.0) > 0.1,
    "more than half of the responses were cut off": lambda step: step.get("response_length/clip_ratio", 0.0) > 0.5,
    "no group had variance, so nothing was learnt": lambda step: step.get("hiexp/zero_variance_groups", 0.0) == 1.0,
    "the gradient norm or the loss is not a number": lambda step: any(
        math.isnan(step.get(key, 0.0)) for key in ("actor/grad_norm", "actor/loss", "actor/pg_loss")
    ),
}


def alarms(trainings: Sequence[Training]) -> str:
    """Return for each run what rang and when, with the words of its log."""
    runs_of: dict[str, list[str]] = {}
    said = []
    for run in trainings:
        held = [f"<b>alarm {e(name)}</b> held at {spans(steps)}" for name, steps in _rang(run).items()]
        faults = dict(_FAULTS)
        if not run.config.get("hiexp.group.strip"):  # then the two see different contexts, by design
            faults[f"the rollout's probabilities are not the policy's (Pearson below {_MIN_PEARSON})"] = _out_of_sync
        found = {fault: [step for step, values in run.steps.items() if holds(values)] for fault, holds in faults.items()}
        wrong = [f"{e(fault)}: {spans(steps)}" for fault, steps in found.items() if steps]
        for line in held + wrong:
            runs_of.setdefault(line, []).append(e(run.name))
        said += [f"{e(run.name)}: {e(line)}" for line in run.said]
    rang = listed([f"{line} ({', '.join(runs)})" for line, runs in runs_of.items()])
    if not rang and any(run.trained for run in trainings):
        watched = f"<code>{_ALARM}*</code>; {'; '.join(map(e, _FAULTS))}"
        rang = f'<p class="soft">None rang in {plural(len(trainings), "run")}. Looked for: {watched}.</p>'
    return rang + folded(f"What the logs said ({len(said)})", listed(said))


def _out_of_sync(step: Step) -> bool:
    return step.get(_PEARSON, 1.0) < _MIN_PEARSON


def _rang(run: Training) -> dict[str, list[int]]:
    rang: dict[str, list[int]] = {}
    for step, values in run.steps.items():
        for key, value in values.items():
            if key.startswith(_ALARM) and value > 0:
                rang.setdefault(key.removeprefix(_ALARM), []).append(step)
    return rang


def spans(steps: Sequence[int]) -> str:
    """Return `steps 3, 5 to 9`; of very many spans the first ones."""
    starts = [steps[0], *(b for a, b in pairwise(steps) if b > a + 1)]
    ends = [*(a for a, b in pairwise(steps) if b > a + 1), steps[-1]]
    told = [str(a) if a == b else f"{a} to {b}" for a, b in zip(starts, ends, strict=True)]
    more = f" and {len(told) - 8} times more" if len(told) > 8 else ""
    return f"step{'' if len(steps) == 1 else 's'} {', '.join(told[:8])}{more}"


_TIME = "timing_s/"
_WHOLE = "timing_s/step"
_AFTER = "testing"  # the one part that all trainers of verl time outside of the step
_MANY = 6  # drawings; more are read better as a table
_MEMORY = ("perf/max_memory_allocated_gb", "actor/perf/max_memory_allocated_gb", "actor/perf/cpu_memory_used_gb")


def cost(trainings: Sequence[Training], played: Sequence[Played], recipes: Mapping[str, Mapping[str, Any]]) -> str:
    """Return time by part for each training, a table of all that was played, and the stages of recipes."""
    by_run: dict[str, list[Played]] = defaultdict(list)
    for one in played:
        by_run[f"{one.run} {one.arm}".strip()].append(one)
    timed = [run for run in trainings if run.curve(_WHOLE)]
    bars = [f'<div class="card"><h3>{e(run.name)}: seconds per step, by part</h3>{_by_part(run)}</div>' for run in timed]
    for name, recipe in recipes.items():
        shown = [(str(stage), float(seconds)) for stage, seconds in recipe["seconds"].items()]
        bars.append(f'<div class="card"><h3>{e(name)}: stages</h3>{stages(shown)}</div>')
    drawn = f'<div class="grid wide">{"".join(bars)}</div>' if len(bars) <= _MANY else _parts(timed)
    rows = [{"training": e(run.name), **_training(run)} for run in timed]
    episodes = [{"per episode of": e(name), **_episodes(group)} for name, group in by_run.items()]
    tested = any(run.curve(_TIME + _AFTER) for run in timed)
    note = f'<p class="soft">The trainer\'s clock of a step leaves out the validation after it ({_AFTER}).</p>' if tested else ""
    return f"{drawn}{table(rows)}{note}{table(episodes)}" if bars or episodes else ""


def _by_part(run: Training) -> str:
    """Return the bars of a run, and what the trainer's own clock says where that is less than their sum."""
    parts, clock = parts_of(list(run.steps.values())), fmean(value for _, value in run.curve(_WHOLE))
    if sum(seconds for _, seconds in parts) < 1.01 * clock:
        return stages(parts)
    return f'{stages(parts)}<p class="soft">By the trainer\'s own clock of a step: {clock:.1f} s.</p>'


def _parts(trainings: Sequence[Training]) -> str:
    parts = {run.name: dict(parts_of(list(run.steps.values()))) for run in trainings}
    names = dict.fromkeys(name for found in parts.values() for name in found)
    return table([{"seconds per step, by part": e(run), **{n: f"{found.get(n, 0.0):.1f}" for n in names}} for run, found in parts.items()])


def parts_of(steps: Sequence[Step]) -> list[tuple[str, float]]:
    """Return (part, mean seconds per step), the longest first; what no part accounts for is `other`."""
    whole = [step for step in steps if step.get(_WHOLE, 0.0) > 0]
    if not whole:
        return []
    names = dict.fromkeys(key for step in whole for key in step if key.startswith(_TIME) and key != _WHOLE and "/" not in key[len(_TIME) :])
    means = {name.removeprefix(_TIME): sum(step.get(name, 0.0) for step in whole) / len(whole) for name in names}
    other = fmean(step[_WHOLE] for step in whole) - sum(seconds for name, seconds in means.items() if name != _AFTER)
    means |= {"other": other} if other > 0.01 else {}
    return sorted(((name, seconds) for name, seconds in means.items() if seconds > 0), key=lambda part: -part[1])


def _training(run: Training) -> dict[str, str]:
    seconds = [value for _, value in run.curve(_WHOLE)]
    tokens = sum(value for _, value in run.curve("perf/total_num_tokens"))
    memory = [value for key in _MEMORY for _, value in run.curve(key)]
    tested = [value for _, value in run.curve(_TIME + _AFTER)]
    row = {
        "steps": number(len(seconds)),
        "seconds per step (trainer's clock)": f"{fmean(seconds):.1f}",
        "hours of steps": f"{sum(seconds) / 3600:.2f}",
    }
    if tested:
        row["hours of validation"] = f"{sum(tested) / 3600:.2f}"
    if tokens:
        row |= {"tokens": number(int(tokens)), "tokens per second": f"{tokens / sum(seconds):.0f}"}
    if memory and max(memory) > 0:
        row["most memory (GB)"] = f"{max(memory):.1f}"
    return row


def _episodes(played: Sequence[Played]) -> dict[str, str]:
    row = {"experience tokens": f"{fmean(one.experience_tokens for one in played):.0f}"}
    for name, values in {
        "policy tokens": [one.tokens for one in played if one.tokens is not None],
        "look-ups": [one.lookups for one in played if one.lookups is not None],
        "seconds": [one.seconds for one in played if one.seconds is not None],
    }.items():
        if values:
            row[name] = f"{fmean(values):.1f}"
    return row
