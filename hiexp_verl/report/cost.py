"""What it cost: time per step by part, tokens, searches and look-ups, seconds per episode."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from hiexp_verl.report.bars import stages
from hiexp_verl.report.episodes import Played
from hiexp_verl.report.markup import e, number, table
from hiexp_verl.report.training import Step, Training

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
