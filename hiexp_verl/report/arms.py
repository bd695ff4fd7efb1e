"""Tables of evaluations: scores of each arm with intervals on one scale, and differences to `none`."""

from collections.abc import Mapping, Sequence
from typing import Any

from hiexp_verl.evaluate.tables import BASE, JUDGE, gap_as_text, p_value, replayed_as_text, signed
from hiexp_verl.report.charts import interval_bar
from hiexp_verl.report.evaluations import Evaluation, Values
from hiexp_verl.report.html import e, facts, folded, number, table

_NAMES = {"cem": "CEM", "em": "EM", "f1": "F1", JUDGE: "judge"}  # the first one is compared with `none` beside it
_GAP = "cem_minus_none"
_SIGNIFICANT = 0.05  # of the paired test
_VERDICTS = {1: "better", -1: "worse", 0: "no significant difference"}  # by the side of zero
_NO_TABLE = (
    "This evaluation has no table yet: <code>hiexp eval --resume</code> continues it. Means over its episodes so far are under Episodes."
)
_NOTES = (
    "Brackets and bars are 95% bootstrap intervals over questions; differences are paired by question, p by sign flips, not corrected for "
    "the number of comparisons. Won: questions with a higher CEM than without experience; lost: with a lower one."
)


def evaluations(found: Sequence[Evaluation]) -> str:
    """Return the tables of all evaluations."""
    return "".join((f"<h3>{e(one.name)}</h3>" if len(found) > 1 else "") + _evaluation(one) for one in found)


def _evaluation(one: Evaluation) -> str:
    if not one.arms:
        return f'<p class="bad">{_NO_TABLE}</p>'
    tables = [f"<h4>{e(dataset)}</h4>{_scores(one, dataset)}{_pairs(one, dataset)}" for dataset in one.datasets]
    replayed = f" {e(replayed_as_text(one.facts))}" if "replayed" in one.facts else ""
    settings = {key.replace("_", " "): value for key, value in one.facts.items() if value not in (None, "")}
    return f'{"".join(tables)}<p class="soft">{_NOTES}{replayed}</p>{folded("Settings", facts(settings))}'


def _scores(one: Evaluation, dataset: str) -> str:
    """Return a row for each arm."""
    lines = [line for line in one.arms if line["dataset"] == dataset]
    measures = [key for key in _NAMES if key in lines[0]]
    bounds = [bound for line in lines for key in measures for bound in line.get(f"{key}_interval", ())]
    scale = (min(bounds, default=0.0), max(bounds, default=1.0))
    reach = reach_of([line[_GAP] for line in lines if _GAP in line])
    rows = []
    for line in lines:
        row = {"arm": f"<b>{e(line['arm'])}</b>"}
        for key in measures:
            row[_NAMES[key]] = score_bar(line[key], line.get(f"{key}_interval"), scale)
            if key == "cem" and any(_GAP in each for each in lines):
                row["CEM against none"] = gap_bar(line[_GAP], reach) if _GAP in line else ""
                row["won, lost"] = _won_lost(one.values.get((dataset, line["arm"]), {}), one.values.get((dataset, BASE), {}))
        rows.append(row | {"episodes": number(line["episodes"])})
    return table(rows)


def _won_lost(values: Values, base: Values) -> str:
    if not base or values is base or values.keys() != base.keys():
        return ""
    return f"{sum(values[key] > base[key] for key in base)}, {sum(values[key] < base[key] for key in base)}"


def _pairs(one: Evaluation, dataset: str) -> str:
    """Return the differences of arms in all measures, a row for each pair."""
    found = sorted((pair for pair in one.pairs if pair["dataset"] == dataset), key=lambda pair: list(_NAMES).index(pair["measure"]))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for pair in found:
        row = rows.setdefault((pair["arm"], pair["against"]), {"arm": f"<b>{e(pair['arm'])}</b>", "against": e(pair["against"])})
        row[_NAMES[pair["measure"]]] = gap_bar(pair, reach_of(found))
    return folded(f"Arm against arm ({len(rows)})", table([*rows.values()]))


def reach_of(gaps: Sequence[Mapping[str, Any]]) -> float:
    """Return the bound that is farthest from zero: the scale of the bars."""
    return max((abs(gap[bound]) for gap in gaps for bound in ("low", "high")), default=1.0)


def score_bar(mean: float, span: Sequence[float] | None, scale: tuple[float, float]) -> str:
    """Return a mean with its interval, as numbers and as a drawing."""
    if not span:
        return f"{mean:.3f}"
    low, high = span
    return f'{mean:.3f} <span class="soft">[{low:.3f}, {high:.3f}]</span>{interval_bar(mean, low, high, scale)}'


def gap_bar(gap: Mapping[str, Any], reach: float) -> str:
    """Return a difference (mean, low, high, p) with its interval and p, as numbers and as a drawing."""
    mean, low, high = gap["mean"], gap["low"], gap["high"]
    text = f'{signed(mean)} <span class="soft">[{signed(low)}, {signed(high)}],</span> <span class="soft">{e(p_value(gap["p"]))}</span>'
    return text + interval_bar(mean, low, high, (-reach, reach), side_of(gap))


def side_of(gap: Mapping[str, Any]) -> int:
    """Return 1 or -1 for a significant difference, else 0. The test decides too: with few questions a percentile interval is too narrow."""
    sure = gap["p"] < _SIGNIFICANT
    return (gap["low"] > 0 and sure) - (gap["high"] < 0 and sure)


def by_verdict(found: Sequence[tuple[int, str]]) -> str:
    """Return texts (HTML), given with their side of zero, by verdict: `better: A, B; worse: C`."""
    names = {verdict: [text for side, text in found if side == of] for of, verdict in _VERDICTS.items()}
    return "; ".join(f"{verdict}: {', '.join(texts)}" for verdict, texts in names.items() if texts)


def in_short(found: Sequence[Evaluation]) -> list[str]:
    """Return one sentence (HTML) for each evaluation and data set: which arms differ from `none`."""
    sentences = []
    for one in found:
        if not one.arms:
            sentences.append(f"{e(one.name)}: no table yet.")
        for dataset in one.datasets:
            verdicts = [
                (side_of(line[_GAP]), f"<b>{e(line['arm'])}</b> (CEM {e(gap_as_text(line[_GAP]))})")
                for line in one.arms
                if line["dataset"] == dataset and _GAP in line
            ]
            sentences += [f"{e(one.name)}, {e(dataset)}, against none: {by_verdict(verdicts)}."] if verdicts else []
    return sentences
