"""Parts of the page about runs: what was run, alarms, cost."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import PurePath
from statistics import fmean
from typing import Any

from hiexp_verl.io.rows import as_number
from hiexp_verl.report.charts import stages
from hiexp_verl.report.curves import is_place
from hiexp_verl.report.episodes import Played
from hiexp_verl.report.find import flat
from hiexp_verl.report.html import e, facts, folded, listed, number, plural, table
from hiexp_verl.report.training import Step, Training

# What one wants to know first, with the names that people use.
_HEAD = {
    "actor_rollout_ref.model.path": "model",
    "data.train_files": "training questions",
    "data.val_files": "validation questions",
    "algorithm.adv_estimator": "advantage",
    "actor_rollout_ref.actor.policy_loss.loss_mode": "policy loss",
    "data.train_batch_size": "questions per step",
    "actor_rollout_ref.rollout.n": "rollouts per question",
    "actor_rollout_ref.rollout.temperature": "temperature",
    "actor_rollout_ref.actor.optim.lr": "learning rate",
    "actor_rollout_ref.actor.use_kl_loss": "KL loss",
    "trainer.total_training_steps": "steps wanted",
    "trainer.v1.trainer_mode": "trainer",
    "hiexp.enabled": "HiExp",
    "hiexp.arm": "arm",
    "hiexp.prompt.max_tokens": "tokens for E2 and E3",
    "hiexp.tool.max_tokens": "tokens for E1",
    "hiexp.group.arms": "arms of a group",
    "hiexp.group.baseline": "baseline",
    "hiexp.group.strip": "experience stripped for training",
    "hiexp.search.engine": "search",
    "hiexp.search.corpus": "corpus",
    "hiexp.seed": "seed",
}
_MAX_DIFFERENCES = 60
_MANY = 5  # runs that stand side by side; of more, each is a row


def settings(trainings: Sequence[Training]) -> str:
    """Return the settings in which trainings differ, and those that they share."""
    names = [run.name for run in trainings]
    rows: dict[str, list[str]] = {
        "steps done": [_steps(run) for run in trainings],
        "resumed at": [", ".join(map(str, run.resumed)) for run in trainings],
        "HEK": [_hek(run) for run in trainings],
        "software": [run.software for run in trainings],
    }
    rows |= {name: [_shown(run.config.get(key)) for run in trainings] for key, name in _HEAD.items()}
    rows = {name: values for name, values in rows.items() if any(values)}
    differ = {name: values for name, values in rows.items() if len(set(values)) > 1}
    same = {name: values[0] for name, values in rows.items() if name not in differ}
    others = [key for key in dict.fromkeys(key for run in trainings for key in run.config) if key not in _HEAD and not is_place(key)]
    values_of = {key: [_shown(run.config.get(key)) for run in trainings] for key in others}
    different = {key: values for key, values in values_of.items() if len(set(values)) > 1}
    shown = dict(list(different.items())[:_MAX_DIFFERENCES])
    more = f"{plural(len(different) - len(shown), 'setting')} more" if len(different) > len(shown) else ""
    others = folded(f"{plural(len(different), 'other setting')} in which they differ", _side_by_side(names, shown) + more)
    return _side_by_side(names, differ) + others + _same(same, len(trainings))


def rollouts(specs: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the settings in which rollouts differ, and those that they share."""
    configs = [flat(spec) for spec in specs.values()]
    keys = dict.fromkeys(key for config in configs for key in config)
    rows = {key.replace("_", " "): [_shown(config.get(key)) for config in configs] for key in keys}
    differ = {name: values for name, values in rows.items() if len(set(values)) > 1}
    same = {name: values[0] for name, values in rows.items() if name not in differ and values[0]}
    return folded(f"Settings of {plural(len(specs), 'rollout')}", _side_by_side(list(specs), differ) + _same(same, len(specs)))


def _same(rows: Mapping[str, str], runs: int) -> str:
    return (f"<h3>The same in all {runs} runs</h3>" if runs > 1 and rows else "") + facts(rows)


def _hek(run: Training) -> str:
    if run.hek:
        return run.hek[:12]
    return _shown(run.hek_paths[0]) if run.hek_paths and run.config.get("hiexp.enabled") else ""


def _side_by_side(names: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    if not rows:
        return ""
    cells = {name: [e(value or "none") for value in values] for name, values in rows.items()}
    if len(names) > _MANY:
        return table([{"run": f"<b>{e(run)}</b>", **{name: values[i] for name, values in cells.items()}} for i, run in enumerate(names)])
    return table([{"": e(name), **dict(zip(names, values, strict=True))} for name, values in cells.items()])


def _steps(run: Training) -> str:
    numbers = run.trained
    if not numbers:
        return "none"
    missing = "" if len(numbers) == numbers[-1] - numbers[0] + 1 else f", {len(numbers)} of them logged"
    return f"{numbers[0]} to {numbers[-1]}{missing}" if len(numbers) > 1 else str(numbers[0])


def _shown(value: Any) -> str:
    """Return a value in brief: of a path, its last parts."""
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    text = str(value)
    if re.fullmatch("[0-9a-f]{32,64}", text):
        return text[:12]  # of a hash
    return "/".join(PurePath(text).parts[-2:]) if text.startswith(("/", "~")) else text


_ALARM = "hiexp/alarm/"
_PEARSON = "training/rollout_actor_probs_pearson_corr"
_MIN_PEARSON = 0.99  # in sync it is 0.998 and more; three steps behind, it was 0.96
_FAULTS: dict[str, Callable[[Step], bool]] = {
    "look-ups of experience failed": lambda step: step.get("hiexp/lookup_failures", 0.0) > 0,
    "search calls failed": lambda step: step.get("hiexp/failed_search_rate", 0.0) > 0.1,
    "more than half of the responses were cut off": lambda step: step.get("response_length/clip_ratio", 0.0) > 0.5,
    "no group had variance: a step without a gradient": lambda step: step.get("hiexp/zero_variance_groups", 0.0) == 1.0,
    "the gradient norm or the loss is not a number": lambda step: any(
        math.isnan(step.get(key, 0.0)) for key in ("actor/grad_norm", "actor/loss", "actor/pg_loss")
    ),
}


def alarms(trainings: Sequence[Training]) -> str:
    """Return the alarms and faults of each run with their steps, and the error that ended it."""
    runs_of: dict[str, list[str]] = {}
    for run in trainings:
        held = [f"<b>alarm {e(name)}</b> at {spans(steps)}" for name, steps in _triggered(run).items()]
        ended = [f"ended with <b>{e(run.error)}</b>"] if run.error else []
        faults = dict(_FAULTS)
        if not run.config.get("hiexp.group.strip"):  # then the two see different contexts, by design
            faults[f"the rollout's probabilities are not the policy's (Pearson below {_MIN_PEARSON})"] = _out_of_sync
        found = {fault: [step for step, values in run.steps.items() if holds(values)] for fault, holds in faults.items()}
        wrong = [f"{e(fault)}: {spans(steps)}" for fault, steps in found.items() if steps]
        for line in held + wrong + ended:
            runs_of.setdefault(line, []).append(e(run.name))
    if not runs_of and any(run.trained for run in trainings):
        watched = f"<code>{_ALARM}*</code>; {'; '.join(map(e, _FAULTS))}"
        return f'<p class="soft">None in {plural(len(trainings), "run")}. Checked: {watched}.</p>'
    return listed([f"{line} ({', '.join(runs)})" for line, runs in runs_of.items()])


def _out_of_sync(step: Step) -> bool:
    return step.get(_PEARSON, 1.0) < _MIN_PEARSON


def _triggered(run: Training) -> dict[str, list[int]]:
    triggered: dict[str, list[int]] = {}
    for step, values in run.steps.items():
        for key, value in values.items():
            if key.startswith(_ALARM) and value > 0:
                triggered.setdefault(key.removeprefix(_ALARM), []).append(step)
    return triggered


def spans(steps: Sequence[int]) -> str:
    """Return `steps 3, 5 to 9`; of very many spans the first ones."""
    starts = [steps[0], *(b for a, b in pairwise(steps) if b > a + 1)]
    ends = [*(a for a, b in pairwise(steps) if b > a + 1), steps[-1]]
    parts = [str(a) if a == b else f"{a} to {b}" for a, b in zip(starts, ends, strict=True)]
    more = f" and {len(parts) - 8} more" if len(parts) > 8 else ""
    return f"step{'' if len(steps) == 1 else 's'} {', '.join(parts[:8])}{more}"


_TIME = "timing_s/"
_WHOLE = "timing_s/step"
_AFTER = "testing"  # the one part that all trainers of verl time outside of the step
_MAX_DRAWINGS = 6  # of more, a table
_MEMORY = ("perf/max_memory_allocated_gb", "actor/perf/max_memory_allocated_gb", "actor/perf/cpu_memory_used_gb")


def cost(trainings: Sequence[Training], played: Sequence[Played], recipes: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the time by part for each training, the cost of all episodes, and the stages of recipes."""
    by_run: dict[str, list[Played]] = defaultdict(list)
    for one in played:
        by_run[f"{one.run} {one.arm}".strip()].append(one)
    timed = [run for run in trainings if run.curve(_WHOLE)]
    bars = [f'<div class="card"><h3>{e(run.name)}: seconds per step, by part</h3>{_by_part(run)}</div>' for run in timed]
    for name, recipe in recipes.items():
        seconds = recipe["seconds"].items() if isinstance(recipe.get("seconds"), dict) else ()
        shown = [(str(stage), float(value)) for stage, value in seconds if as_number(value) is not None]
        bars.append(f'<div class="card"><h3>{e(name)}: stages</h3>{stages(shown)}</div>')
    drawn = f'<div class="grid wide">{"".join(bars)}</div>' if len(bars) <= _MAX_DRAWINGS else _parts(timed)
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
