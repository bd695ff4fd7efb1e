"""Policy against policy: evaluations of different ones on the same questions, paired by question."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean

from hiexp_verl.report.arms import gap_bar, score_bar
from hiexp_verl.report.curves import grouped
from hiexp_verl.report.evaluation import Evaluation
from hiexp_verl.report.markup import e, number, table
from hiexp_verl.report.training import Training
from hiexp_verl.run.eval_table import BASE
from hiexp_verl.run.statistics import Difference, mean_interval, paired_difference

_MAX_POLICIES = 12
_NOTE = (
    "Right answers (CEM) of what each policy played, against <b>{policy}</b> without experience: a difference for each question, p by "
    "sign flips, not corrected for the number of comparisons. Policies that differ in seeds alone are one line, where a question is "
    "worth its mean over them; how far trainings differ is seen beside it, and is in no interval."
)
Values = Mapping[str, float]  # by question


def between(found: Sequence[Evaluation], trainings: Sequence[Training]) -> str:
    """Return for each data set that several policies answered a table of all of them against the first one's base."""
    policies = _by_policy(found, trainings)
    parts = []
    for dataset in dict.fromkeys(name for one in found for name in one.datasets()):
        lines = [
            (policy, arm, [one.values[dataset, arm] for one in evaluations if (dataset, arm) in one.values])
            for policy, evaluations in list(policies.items())[:_MAX_POLICIES]
            for arm in dict.fromkeys(arm for one in evaluations for of, arm in one.values if of == dataset)
        ]
        reference = next(((policy, _mean(values)) for policy, arm, values in lines if arm == BASE), None)
        if reference is not None:
            comparable = [line for line in lines if all(values.keys() == reference[1].keys() for values in line[2])]
            if len({policy for policy, *_ in comparable}) > 1 and len(reference[1]) > 1:
                parts.append((f"<h4>{e(dataset)}</h4>" if dataset else "") + _against(*reference, comparable))
    note = f'<p class="soft">Of {len(policies)} policies the first {_MAX_POLICIES}.</p>' if len(policies) > _MAX_POLICIES else ""
    return f"<h3>Policy against policy</h3>{''.join(parts)}{note}" if parts else ""


def _by_policy(found: Sequence[Evaluation], trainings: Sequence[Training]) -> dict[str, list[Evaluation]]:
    group_of = {run.name: group.name for group in grouped(trainings) for run in group.runs}
    policies: dict[str, list[Evaluation]] = defaultdict(list)
    for one in found:
        policies[group_of.get(one.training, one.name)].append(one)
    return policies


def _against(policy: str, base: Values, lines: Sequence[tuple[str, str, Sequence[Values]]]) -> str:
    worth = [_mean(values) for *_, values in lines]
    spans = [mean_interval(values) for values in worth]
    scale = (min(low for low, _ in spans), max(high for _, high in spans))
    gaps: list[Difference | None] = [
        None if (name, arm) == (policy, BASE) else paired_difference(values, base)
        for (name, arm, _), values in zip(lines, worth, strict=True)
    ]
    reach = max((max(abs(gap.low), abs(gap.high)) for gap in gaps if gap), default=1.0)
    rows = []
    for (name, arm, runs), values, span, gap in zip(lines, worth, spans, gaps, strict=True):
        row = {"policy, arm": f"<b>{e(name)}</b>, {e(arm)}", "CEM": score_bar(fmean(values.values()), span, scale)}
        row["against the first"] = gap_bar(gap.mean, gap.low, gap.high, gap.p, reach) if gap else ""
        row["of each run"] = ", ".join(f"{fmean(each.values()):.3f}" for each in runs) if len(runs) > 1 else ""
        rows.append(row | {"questions": number(len(values))})
    return table(rows) + f'<p class="soft">{_NOTE.format(policy=e(policy))}</p>'


def _mean(runs: Sequence[Values]) -> dict[str, float]:
    return {question: fmean(values[question] for values in runs if question in values) for question in runs[0]}
