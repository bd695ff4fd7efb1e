"""Learning and variance curves of several runs over each other; runs that differ in their seeds alone become one mean with a band."""

import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hiexp_verl.report.charts import Line, Point, chart, mean_and_band
from hiexp_verl.report.html import e, number
from hiexp_verl.report.training import Training

STYLES = 10  # in report.css; more runs share them
# Settings that say where a run writes. Runs that differ in them and in seeds alone are one experiment.
PLACES = {
    "trainer.default_local_dir",
    "trainer.experiment_name",
    "trainer.rollout_data_dir",
    "trainer.validation_data_dir",
    "trainer.resume_mode",
    "trainer.resume_from_path",
    "hiexp.dump_dir",
}
_SEED = re.compile(r"(^|[._])seed$")

REWARD = ("critic/score/mean", "hiexp/reward_mean")  # the first one that a run has
MEASURES: Mapping[str, Mapping[str, Sequence[str]]] = {
    "Learning": {
        "reward": REWARD,
        "right answers in training": ("hiexp/acc",),
        "answers in the right format": ("hiexp/format",),
        "response length (tokens)": ("response_length/mean", "hiexp/response_tokens"),
        "responses cut off": ("response_length/clip_ratio",),
    },
    "Variance": {
        "variance of the reward in a step": ("hiexp/reward_variance",),
        "variance of the reward over a window of steps": ("hiexp/window/reward_variance",),
        "variance of the advantage in a step": ("hiexp/advantage_variance",),
        "variance of the advantage over a window": ("hiexp/window/advantage_variance",),
        "gradient norm": ("actor/grad_norm",),
        "variance of the gradient norm over a window": ("hiexp/window/gradient_variance",),
        "groups without variance": ("hiexp/zero_variance_groups",),
    },
    "Search and experience": {
        "searches per episode": ("hiexp/searches",),
        "repeated queries": ("hiexp/repeated_query_rate",),
        "episodes with experience": ("hiexp/with_experience",),
        "search calls with E1": ("hiexp/e1_fire_rate",),
        "episodes with E2 or E3": ("hiexp/e2_e3_hit_rate",),
        "experience (tokens per episode)": ("hiexp/experience_tokens",),
        "episodes that followed the plan they were shown": ("hiexp/plan_followed",),
        "novelty of right episodes among those of their question": ("hiexp/novelty",),
        "reward with minus without experience": ("hiexp/gap/reward",),
        "searches with minus without experience": ("hiexp/gap/searches",),
        "version of the HEK in use": ("hiexp/loop/version",),
        "reward of the candidate minus that of the version in use": ("hiexp/loop/gain",),
        "reward with minus without experience since the version is in use": ("hiexp/loop/gap",),
        "share of what is shown that is one entry": ("hiexp/loop/top_share",),
    },
    "Self-distillation": {
        "KL to the teacher, learnt": ("hiexp/distil/kl",),
        "KL to the teacher, held out": ("hiexp/distil/held_out_kl",),
        "KL of thoughts": ("hiexp/distil/kl_thought",),
        "KL of queries": ("hiexp/distil/kl_query",),
        "KL of answers": ("hiexp/distil/kl_answer",),
        "drift from the start of the round": ("hiexp/distil/drift",),
        "students": ("hiexp/distil/students",),
    },
    "Policy": {
        "entropy": ("actor/entropy",),
        "KL of old and new policy": ("actor/ppo_kl",),
        "ratios clipped": ("actor/pg_clipfrac",),
        "Pearson of rollout and actor probabilities": ("training/rollout_actor_probs_pearson_corr",),
    },
}
_MAIN = re.compile(r"val-core/(.+)")  # verl's name for the one metric of each data set that counts
_VALIDATION = re.compile(r"val-(?:core|aux(?=.+/(?:reward|em|f1|cem)/mean@))/(.+)")
_TOKENS = "perf/total_num_tokens"


@dataclass(frozen=True)
class Group:
    """Runs drawn as one line."""

    name: str
    style: int
    runs: Sequence[Training]

    def line(self, curves: Sequence[Sequence[Point]]) -> Line:
        """Return the line of the runs' curves."""
        marks = [float(step) for run in self.runs for step in run.resumed]
        published = sorted({step for run in self.runs for step in run.published})
        if len(curves) == 1:
            return Line(self.name, self.style, curves[0], marks=marks, published=published)
        mean, band = mean_and_band(curves)
        return Line(self.name, self.style, mean, band, marks, published, faint=[curve for curve in curves if len(curve) > len(mean)])


def grouped(trainings: Sequence[Training]) -> list[Group]:
    """Return the runs, those that differ in seeds and places alone together."""
    by_config: dict[str, list[Training]] = defaultdict(list)
    for i, run in enumerate(trainings):
        by_config[_identity(run.config) if run.config else f"run {i}"].append(run)
    return [Group(_name(runs), i % STYLES, runs) for i, runs in enumerate(by_config.values())]


def _identity(config: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in config.items() if key not in PLACES and not _SEED.search(key)}
    return json.dumps(kept, sort_keys=True, default=str)


def _name(runs: Sequence[Training]) -> str:
    if len(runs) == 1:
        return runs[0].name
    return f"{os.path.commonprefix([run.name for run in runs])}* ({len(runs)} runs)"  # noqa: RUF071 (by character, as wanted)


def curves(trainings: Sequence[Training]) -> str:
    """Return the charts of all runs under a common legend whose boxes hide lines."""
    groups = grouped([run for run in trainings if run.steps])
    runs = [run for group in groups for run in group.runs]
    parts, constant = [], []
    for heading, measures in MEASURES.items():
        charts = []
        for title, keys in measures.items():
            values = {value for run in runs for _, value in first_curve(run, keys)}
            if len(values) == 1:
                constant.append(f"{e(title)} {number(values.pop())}")
            else:
                charts.append(_chart(title, groups, keys))
        if heading == "Learning":
            validated = [_chart(f"validation: {name}", groups, (key,)) for key, name in validations(runs, _VALIDATION).items()]
            charts[1:1] = [*validated, *_by_tokens(groups)]
        if any(charts):
            parts.append(f'<h3 class="part">{heading}</h3><div class="grid">{"".join(charts)}</div>')
    same = f'<p class="soft">Constant in all steps of all runs: {", ".join(constant)}.</p>' if constant else ""
    return f'<div class="curves">{_legend(groups)}{"".join(parts)}{same}</div>' if parts or same else ""


def first_curve(run: Training, keys: Sequence[str]) -> list[Point]:
    """Return the curve of the first of the metrics that the run has."""
    return next((curve for key in keys if (curve := run.curve(key))), [])


def _chart(title: str, groups: Sequence[Group], keys: Sequence[str]) -> str:
    lines = [(group, [curve for run in group.runs if (curve := first_curve(run, keys))]) for group in groups]
    return chart(title, [group.line(curves) for group, curves in lines if curves])


def _by_tokens(groups: Sequence[Group]) -> list[str]:
    """Return reward and validation by tokens spent, where runs are compared: equal steps are not equal budgets."""
    if len(groups) < 2:
        return []
    validated = validations([run for group in groups for run in group.runs])
    measures = {"reward": REWARD} | {f"validation: {name}": (key,) for key, name in validated.items()}
    charts = []
    for title, keys in measures.items():
        lines = [Line(run.name, group.style, _over_tokens(run, keys)) for group in groups for run in group.runs]
        charts.append(chart(f"{title} by tokens spent", lines, by="tokens of prompts and responses in training"))
    return charts


def _over_tokens(run: Training, keys: Sequence[str]) -> list[Point]:
    """Return (tokens of all steps up to this one, value); none where the tokens are not known."""
    spent, points, values = 0.0, [], dict(first_curve(run, keys))
    for step, metrics in run.steps.items():
        tokens = metrics.get(_TOKENS, 0.0)
        spent += tokens if math.isfinite(tokens) else 0.0
        points += [(spent, values[step])] if step in values else []
    return points if spent else []


def validations(runs: Sequence[Training], kind: re.Pattern[str] = _MAIN) -> dict[str, str]:
    """Return the names of the validation metrics of these runs by their keys, the main ones first."""
    keys = {key for run in runs for step in run.steps.values() for key in step}
    return {key: match[1] for key in sorted(keys, reverse=True) if (match := kind.fullmatch(key))}


def _legend(groups: Sequence[Group]) -> str:
    keys = [
        f'<label><input type="checkbox" class="c{group.style}" checked><svg viewBox="0 0 28 8" aria-hidden="true">'
        f'<path class="r{group.style}" d="M1 4H27"/></svg>{e(group.name)}</label>'
        for group in groups
    ]
    notes = []
    if any(len(group.runs) > 1 for group in groups):
        notes.append("Runs that differ in seeds alone are one line: their mean, in a band from the lowest to the highest.")
    if any(run.resumed for group in groups for run in group.runs):
        notes.append("A diamond marks where a run was resumed.")
    if any(run.published for group in groups for run in group.runs):
        notes.append("A dotted line marks the step from which a new version of the HEK is in use.")
    if len(groups) > STYLES:
        notes.append(f"Beyond {STYLES}, lines share colours and boxes.")
    note = f'<p class="soft">{" ".join(notes)}</p>' if notes else ""
    return f'<div class="legend">{"".join(keys)}</div>{note}' if len(groups) > 1 or notes else ""
