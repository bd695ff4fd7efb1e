"""Alarms that rang, and what else in the metrics is never right."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from hiexp_verl.report.markup import e, folded, listed, plural
from hiexp_verl.report.training import Step, Training

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
