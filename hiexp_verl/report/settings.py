"""What was run: in what the trainings differ, side by side, and what they have in common."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from hiexp_verl.report.curves import is_place
from hiexp_verl.report.html import e, facts, folded, plural, table
from hiexp_verl.report.training import Training

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
_MANY = 6  # runs; more columns than that are read better as rows


def settings(trainings: Sequence[Training]) -> str:
    """Return in what the runs differ, and what they have in common."""
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
    alike = f"<h3>The same in all {len(trainings)} runs</h3>" if len(trainings) > 1 and same else ""
    return (
        _side_by_side(trainings, differ)
        + folded(f"{plural(len(different), 'other setting')} in which they differ", _side_by_side(trainings, shown) + more)
        + alike
        + facts(same)
    )


def _hek(run: Training) -> str:
    if run.hek:
        return run.hek[:12]
    return _shown(run.hek_paths[0]) if run.hek_paths and run.config.get("hiexp.enabled") else ""


def _side_by_side(trainings: Sequence[Training], rows: Mapping[str, Sequence[str]]) -> str:
    if not rows:
        return ""
    cells = {name: [e(value or "none") for value in values] for name, values in rows.items()}
    if len(trainings) > _MANY:
        return table(
            [{"run": f"<b>{e(run.name)}</b>", **{name: values[i] for name, values in cells.items()}} for i, run in enumerate(trainings)]
        )
    return table([{"": e(name), **{run.name: values[i] for i, run in enumerate(trainings)}} for name, values in cells.items()])


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
    return "/".join(PurePath(text).parts[-2:]) if text.startswith(("/", "~")) else text
