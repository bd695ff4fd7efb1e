"""Comparison of policies that were evaluated on the same questions, paired by question."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean

from hiexp_verl.evaluate.statistics import mean_interval, paired_difference
from hiexp_verl.evaluate.tables import BASE, p_value, signed
from hiexp_verl.report.curves import grouped
from hiexp_verl.report.evaluations import Evaluation, Values, by_verdict, gap_bar, reach_of, score_bar, side_of
from hiexp_verl.report.html import e, number, table
from hiexp_verl.report.training import Training

_NOTE = (
    "Share of right answers of each policy and arm, and its difference to <b>{policy}</b> without experience ({why}), paired by question; "
    "p by sign flips, not corrected for the number of comparisons. Policies that differ in seeds alone are one line with the mean over "
    "seeds; the intervals do not include the variance between trainings, which the scores of each run show."
)


@dataclass(frozen=True)
class Scores:
    """Share of right answers of a policy in an arm, in each of its runs."""

    policy: str
    arm: str
    runs: Sequence[Values]

    @cached_property
    def mean(self) -> dict[str, float]:
        """Mean over the runs, by question."""
        return {question: fmean(values[question] for values in self.runs) for question in self.runs[0]}


@dataclass(frozen=True)
class Comparison:
    """Policies and arms on one data set, against one policy without experience."""

    dataset: str
    reference: Scores
    why: str  # of the choice of the reference
    lines: Sequence[tuple[Scores, Mapping[str, float] | None]]  # with its difference; None: the reference itself
    other: Sequence[Scores]  # of other questions


def comparisons(found: Sequence[Evaluation], trainings: Sequence[Training]) -> list[Comparison]:
    """Return a comparison for each data set and temperature at which several policies were evaluated.

    The reference is the first policy that was trained without experience, or else the first one.
    """
    temperatures = dict.fromkeys(one.facts.get("temperature") for one in found)
    compared = []
    for temperature in temperatures:
        at_it = _compared([one for one in found if one.facts.get("temperature") == temperature], trainings)
        title = f", temperature {temperature}" if len(temperatures) > 1 else ""
        compared += [replace(one, dataset=one.dataset + title) for one in at_it]
    return compared


def _compared(found: Sequence[Evaluation], trainings: Sequence[Training]) -> list[Comparison]:
    policies = _by_policy(found, trainings)
    unguided = {run.name for run in trainings if not any(value for _, value in run.curve("hiexp/with_experience"))}
    compared = []
    for dataset in dict.fromkeys(name for one in found for name in one.datasets):
        played = list(_played(policies, dataset))
        bases = [one for one in played if one.arm == BASE and len(one.runs[0]) > 1]
        if not bases:
            continue
        trained = [one for one in bases if all(run.training in unguided for run in policies[one.policy])]
        reference = (trained or bases)[0]
        questions = reference.runs[0].keys()
        alike = [one for one in played if all(values.keys() == questions for values in one.runs)]
        if len({one.policy for one in alike}) > 1:
            gaps = [(one, None if one is reference else vars(paired_difference(one.mean, reference.mean))) for one in alike]
            why = "the first one trained without" if trained else "the first one"
            compared.append(Comparison(dataset, reference, why, gaps, [one for one in played if one not in alike]))
    return compared


def between(compared: Sequence[Comparison]) -> str:
    """Return a table for each data set."""
    parts = [f"<h4>{e(one.dataset)}</h4>{_against(one)}" for one in compared]
    return f"<h3>Policies compared</h3>{''.join(parts)}" if parts else ""


def in_short(compared: Sequence[Comparison]) -> list[str]:
    """Return one sentence (HTML) for each data set: which policies differ from the reference, without experience and with all of it."""
    sentences = []
    for one in compared:
        verdicts = [
            (side_of(gap), f"<b>{e(played.policy)}, {e(played.arm)}</b> ({signed(gap['mean'])}, {e(p_value(gap['p']))})")
            for played, gap in one.lines
            if gap is not None and played.arm in (BASE, "full")
        ]
        where = f"Against <b>{e(one.reference.policy)}</b> without experience on {e(one.dataset)}"
        sentences.append(f"{where}, correct: {by_verdict(verdicts)}.")
    return sentences


def _by_policy(found: Sequence[Evaluation], trainings: Sequence[Training]) -> dict[str, list[Evaluation]]:
    """Return the evaluations of each policy. Several of one training are kept apart: their settings differ."""
    group_of = {run.name: group.name for group in grouped(trainings) for run in group.runs}
    kinds: dict[str, dict[str, list[Evaluation]]] = defaultdict(lambda: defaultdict(list))
    for one in found:
        within = one.name.removeprefix(one.training).strip("/") if one.training else ""
        kinds[group_of.get(one.training, one.name)][within].append(one)
    return {
        f"{policy} {within}".strip() if len(by_place) > 1 else policy: evaluations
        for policy, by_place in kinds.items()
        for within, evaluations in by_place.items()
    }


def _played(policies: Mapping[str, Sequence[Evaluation]], dataset: str) -> Iterator[Scores]:
    for policy, evaluations in policies.items():
        for arm in dict.fromkeys(arm for one in evaluations for of, arm in one.values if of == dataset):
            yield Scores(policy, arm, [one.values[dataset, arm] for one in evaluations if (dataset, arm) in one.values])


def _against(compared: Comparison) -> str:
    spans = [mean_interval(played.mean) for played, _ in compared.lines]
    scale = (min(low for low, _ in spans), max(high for _, high in spans))
    reach = reach_of([gap for _, gap in compared.lines if gap])
    rows = []
    for (played, gap), span in zip(compared.lines, spans, strict=True):
        means = played.mean
        row = {"policy, arm": f"<b>{e(played.policy)}</b>, {e(played.arm)}", "correct": score_bar(fmean(means.values()), span, scale)}
        row["against the reference"] = gap_bar(gap, reach) if gap else ""
        if len(played.runs) > 1:
            row["each run"] = ", ".join(f"{fmean(each.values()):.3f}" for each in played.runs)
        rows.append(row | {"questions": number(len(means))})
    note = _NOTE.format(policy=e(compared.reference.policy), why=compared.why)
    names = ", ".join(f"{e(one.policy)}, {e(one.arm)}" for one in compared.other)
    other = f" Not compared, other questions: {names}." if names else ""
    return table(rows) + f'<p class="soft">{note}{other}</p>'
