"""Parts of the page about runs: what was run, alarms, cost."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import PurePath
from statistics import fmean
from typing import Any

from hiexp_verl.io.manifest import Manifest
from hiexp_verl.report.charts import stages
from hiexp_verl.report.curves import PLACES
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
_MANY = 5  # runs that stand side by side; of more, each is a row
Rows = dict[str, list[str]]  # name of a setting -> its value in each run


def settings(trainings: Sequence[Training]) -> str:
    """Return the settings in which trainings differ, and those that they share."""
    names = [run.name for run in trainings]
    rows: Rows = {
        "steps done": [spans(run.trained) if run.trained else "none" for run in trainings],
        "resumed at": [", ".join(map(str, run.resumed)) for run in trainings],
        "HEK": [run.hek[:12] for run in trainings],
        "software": [run.software for run in trainings],
    }
    configs = [run.config for run in trainings]
    rows |= {name: [_shown(config.get(key)) for config in configs] for key, name in _HEAD.items()}
    keys = dict.fromkeys(key for config in configs for key in config if key not in _HEAD and key not in PLACES)
    differ, same = _split(rows)
    others, _ = _split({key: [_shown(config.get(key)) for config in configs] for key in keys})
    folded_others = folded(f"{plural(len(others), 'other setting')} in which they differ", _side_by_side(names, others))
    return _side_by_side(names, differ) + folded_others + _same(same, len(trainings))


def rollouts(specs: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the settings in which rollouts differ, and those that they share."""
    configs = [flat(spec) for spec in specs.values()]
    keys = dict.fromkeys(key for config in configs for key in config)
    differ, same = _split({key.replace("_", " "): [_shown(config.get(key)) for config in configs] for key in keys})
    return folded(f"Settings of {plural(len(specs), 'rollout')}", _side_by_side(list(specs), differ) + _same(same, len(specs)))


def _split(rows: Rows) -> tuple[Rows, dict[str, str]]:
    """Return the settings in which runs differ, and the values of those that they share and that are set."""
    differ = {name: values for name, values in rows.items() if len(set(values)) > 1}
    return differ, {name: values[0] for name, values in rows.items() if name not in differ and any(values)}


def _same(rows: Mapping[str, str], runs: int) -> str:
    return (f"<h3>The same in all {runs} runs</h3>" if runs > 1 and rows else "") + facts(rows)


def _side_by_side(names: Sequence[str], rows: Rows) -> str:
    cells = {name: [e(value or "none") for value in values] for name, values in rows.items()}
    if cells and len(names) > _MANY:
        return table([{"run": f"<b>{e(run)}</b>", **{name: values[i] for name, values in cells.items()}} for i, run in enumerate(names)])
    return table([{"": e(name), **dict(zip(names, values, strict=True))} for name, values in cells.items()])


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
_FAULTS: dict[str, Callable[[Step], bool]] = {
    "look-ups of experience failed": lambda step: step.get("hiexp/lookup_failures", 0.0) > 0,
    "search calls failed": lambda step: step.get("hiexp/failed_search_rate", 0.0) > 0.1,
    "more than half of the responses were cut off": lambda step: step.get("response_length/clip_ratio", 0.0) > 0.5,
    "no group had variance: a step without a gradient": lambda step: step.get("hiexp/zero_variance_groups", 0.0) == 1.0,
    "the gradient norm or the loss is not a number": lambda step: any(
        math.isnan(step.get(key, 0.0)) for key in ("actor/grad_norm", "actor/loss", "actor/pg_loss")
    ),
}
_MIN_PEARSON = 0.99  # in sync it is 0.998 and more; three steps behind, it was 0.96
_WITHOUT_STRIP: dict[str, Callable[[Step], bool]] = {  # with it the two see different contexts, by design
    f"the rollout's probabilities are not the policy's (Pearson below {_MIN_PEARSON})": lambda step: (
        step.get("training/rollout_actor_probs_pearson_corr", 1.0) < _MIN_PEARSON
    ),
}


def alarms(trainings: Sequence[Training]) -> str:
    """Return the alarms and faults of each run with their steps, and the error that ended it."""
    runs_of: dict[str, list[str]] = {}
    for run in trainings:
        faults = _FAULTS if run.config.get("hiexp.group.strip") else _FAULTS | _WITHOUT_STRIP
        found = {fault: [step for step, values in run.steps.items() if holds(values)] for fault, holds in faults.items()}
        lines = [f"<b>alarm {e(name)}</b> at {spans(steps)}" for name, steps in _triggered(run).items()]
        lines += [f"{e(fault)}: {spans(steps)}" for fault, steps in found.items() if steps]
        lines += [f"ended with <b>{e(run.error)}</b>"] if run.error else []
        for line in lines:
            runs_of.setdefault(line, []).append(e(run.name))
    if not runs_of and any(run.trained for run in trainings):
        watched = f"<code>{_ALARM}*</code>; {'; '.join(map(e, _FAULTS))}"
        return f'<p class="soft">None in {plural(len(trainings), "run")}. Checked: {watched}.</p>'
    return listed([f"{line} ({', '.join(runs)})" for line, runs in runs_of.items()])


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
_MEMORY = ("perf/max_memory_allocated_gb", "actor/perf/max_memory_allocated_gb", "actor/perf/cpu_memory_used_gb")


def cost(trainings: Sequence[Training], recipes: Mapping[str, Mapping[str, Any]], builds: Mapping[str, Manifest]) -> str:
    """Return the time by part for each training, the stages of recipes, and what the last build of each HEK took."""
    timed = [run for run in trainings if run.curve(_WHOLE)]
    bars = {f"{run.name}: seconds per step, by part": stages(parts_of(list(run.steps.values())), "A step takes") for run in timed}
    bars |= {f"{name}: stages": stages(list(recipe["seconds"].items())) for name, recipe in recipes.items() if "seconds" in recipe}
    cards = [f'<div class="card"><h3>{e(title)}</h3>{drawn}</div>' for title, drawn in bars.items()]
    drawn = f'<div class="grid wide">{"".join(cards)}</div>' if cards else ""
    tested = any(run.curve(_TIME + _AFTER) for run in timed)
    note = f'<p class="soft">The trainer\'s clock of a step leaves out the validation after it ({_AFTER}).</p>' if tested else ""
    built = table([{"build": e(name), **_build(manifest)} for name, manifest in builds.items()])
    return drawn + table([{"training": e(run.name), **_training(run)} for run in timed]) + note + built


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


def _build(manifest: Manifest) -> dict[str, str]:
    usage = manifest.outcome.get("usage") or {}  # None where no model was asked
    counts = {name.replace("_", " "): usage[name] for name in ("calls", "stored", "prompt_tokens", "completion_tokens") if name in usage}
    price = {} if manifest.outcome.get("cost") is None else {"cost": manifest.outcome["cost"]}
    row = {"distiller": manifest.spec.get("distiller", ""), **counts, **price, "seconds": manifest.seconds}
    return {name: number(value) for name, value in row.items()}


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
