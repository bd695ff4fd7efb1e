"""Evaluations: the table of each as it was written, the score of every question, and how the page shows both."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError, model_validator

from hiexp_verl.config import MEANING_OF
from hiexp_verl.evaluate.plan import TABLE_JSON
from hiexp_verl.evaluate.tables import ALL, BASE, NAMES, gap_as_text, p_value, replayed_as_text, signed
from hiexp_verl.io.manifest import Manifest
from hiexp_verl.io.rows import Row, as_number, number_or_nan
from hiexp_verl.report.charts import interval_bar
from hiexp_verl.report.find import files_of, flat, read_lines, read_object
from hiexp_verl.report.html import e, facts, folded, number, table

_GAP = "concise_minus_none"
_SIGNIFICANT = 0.05  # of the paired test
_VERDICTS = {1: "better", -1: "worse", 0: "no significant difference"}  # by the side of zero
_NO_TABLE = (
    "This evaluation has no table yet: <code>hiexp eval --resume</code> continues it. Means over its episodes so far are under Episodes."
)
_NOTES = (
    "Brackets and bars are 95% bootstrap intervals over questions; differences are paired by question, p by sign flips, not corrected for "
    "the number of comparisons. Won: questions with more right than without experience; lost: with fewer. "
    "Correct: the answer covers a gold answer and says no more; EM: it equals one; F1: words shared with one; CEM: it contains one."
)
Values = Mapping[str, float]  # by data set, id and text of the question: other questions may have the same id


class _Gap(BaseModel):
    model_config = ConfigDict(strict=True)
    mean: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    p: FiniteFloat


class _Pair(_Gap):
    dataset: str
    arm: str
    against: str
    measure: str


class _Line(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    dataset: str
    arm: str
    episodes: int
    concise_minus_none: _Gap | None = None

    @model_validator(mode="after")
    def _check(self) -> "_Line":
        found = self.model_extra or {}
        if any(as_number(found[name]) is None for name in NAMES if name in found):
            raise ValueError("a mean is no number")
        spans = [found[f"{name}_interval"] for name in NAMES if f"{name}_interval" in found]
        if not all(isinstance(span, list) and len(span) == 2 and None not in map(as_number, span) for span in spans):
            raise ValueError("an interval is not two numbers")
        return self


class _Table(BaseModel):
    """What the page reads of a table.json."""

    model_config = ConfigDict(strict=True)
    arms: list[_Line]
    pairs: list[_Pair]
    settings: dict[str, Any]
    seeds: list[Any]

    @model_validator(mode="after")
    def _check(self) -> "_Table":
        for dataset in {line.dataset for line in self.arms}:
            measured = {tuple(name for name in NAMES if name in (line.model_extra or {})) for line in self.arms if line.dataset == dataset}
            if len(measured) > 1:
                raise ValueError("the arms have not the same measures")
        if odd := {pair.measure for pair in self.pairs} - NAMES.keys():
            raise ValueError(f"the measure {odd.pop()!r} is unknown")
        return self


@dataclass(frozen=True)
class Evaluation:
    """Arms side by side on the same questions."""

    name: str
    arms: Sequence[Mapping[str, Any]] = ()  # lines of the table; none while it is not finished
    pairs: Sequence[Mapping[str, Any]] = ()  # differences of two arms
    facts: Mapping[str, Any] = field(default_factory=dict)  # settings, seeds, batch size, outcome of the replay
    values: Mapping[tuple[str, str], Values] = field(default_factory=dict)  # (data set, arm) -> share right of each question
    training: str = ""  # name of the training whose policy it is, where it is in its folder

    @property
    def datasets(self) -> list[str]:
        """The data sets in the order of the table."""
        return list(dict.fromkeys(line["dataset"] for line in self.arms))


def read_evaluation(name: str, folder: Path, manifest: Manifest, faults: list[str], training: str = "") -> Evaluation:
    """Read the table and rows of a finished evaluation."""
    written = read_object(folder / TABLE_JSON, faults) if manifest.finished else {}
    if not written.get("arms"):
        return Evaluation(name, training=training)
    try:
        _Table.model_validate(written)
    except ValidationError as error:
        fault = error.errors()[0]
        faults.append(f"{folder / TABLE_JSON} cannot be read ({'.'.join(map(str, fault['loc']))}: {fault['msg']})")
        return Evaluation(name, training=training)
    rows = [row for path in files_of(folder, manifest, "rows", faults) for row in read_lines(path, _value, faults)]
    scores: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for dataset, arm, question, value in rows:
        for of in (dataset, ALL):
            scores[of, arm][question].append(value)
    values = {of: {question: fmean(each) for question, each in found.items()} for of, found in scores.items()}
    rest = flat({key: value for key, value in written.items() if key not in ("arms", "pairs", "settings", "seeds")})
    known = {**rest, **flat(written["settings"]), "seed": ", ".join(map(str, written["seeds"]))}
    return Evaluation(name, written["arms"], written["pairs"], known, values, training)


def _value(line: int, row: Row) -> tuple[str, str, str, float]:
    """Return data set, arm, question of a row, and whether it is right."""
    return str(row["dataset"]), str(row["arm"]), f"{row['dataset']}/{row['id']}: {row['question']}", number_or_nan(row["concise"])


def tables(found: Sequence[Evaluation]) -> str:
    """Return the tables of all evaluations."""
    return "".join((f"<h3>{e(one.name)}</h3>" if len(found) > 1 else "") + _evaluation(one) for one in found)


def _evaluation(one: Evaluation) -> str:
    if not one.arms:
        return f'<p class="bad">{_NO_TABLE}</p>'
    parts = [f"<h4>{e(dataset)}</h4>{_scores(one, dataset)}{_pairs(one, dataset)}" for dataset in one.datasets]
    replayed = f" {e(replayed_as_text(one.facts))}" if {"replayed", "differ_alone", "scores_differ_alone"} <= one.facts.keys() else ""
    settings = {key.replace("_", " "): value for key, value in one.facts.items() if value not in (None, "")}
    played = {line["arm"]: MEANING_OF[line["arm"]] for line in one.arms if line["arm"] in MEANING_OF}
    notes = f'<p class="soft">{_NOTES}{replayed}</p>{folded("What the arms show", facts(played))}'
    return f"{''.join(parts)}{notes}{folded('Settings', facts(settings))}"


def _scores(one: Evaluation, dataset: str) -> str:
    """Return a row for each arm."""
    lines = [line for line in one.arms if line["dataset"] == dataset]
    measures = [key for key in NAMES if key in lines[0]]
    bounds = [bound for line in lines for key in measures for bound in line.get(f"{key}_interval", ())]
    scale = (min(bounds, default=0.0), max(bounds, default=1.0))
    reach = reach_of([line[_GAP] for line in lines if _GAP in line])
    rows = []
    for line in lines:
        row = {"arm": f"<b>{e(line['arm'])}</b>"}
        for key in measures:
            row[NAMES[key]] = score_bar(line[key], line.get(f"{key}_interval"), scale)
            if key == "concise" and any(_GAP in each for each in lines):
                row["correct against none"] = gap_bar(line[_GAP], reach) if _GAP in line else ""
                row["won, lost"] = _won_lost(one.values.get((dataset, line["arm"]), {}), one.values.get((dataset, BASE), {}))
        rows.append(row | {"episodes": number(line["episodes"])})
    return table(rows)


def _won_lost(values: Values, base: Values) -> str:
    if not base or values is base or values.keys() != base.keys():
        return ""
    return f"{sum(values[key] > base[key] for key in base)}, {sum(values[key] < base[key] for key in base)}"


def _pairs(one: Evaluation, dataset: str) -> str:
    """Return the differences of arms in all measures, a row for each pair."""
    found = sorted((pair for pair in one.pairs if pair["dataset"] == dataset), key=lambda pair: list(NAMES).index(pair["measure"]))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for pair in found:
        row = rows.setdefault((pair["arm"], pair["against"]), {"arm": f"<b>{e(pair['arm'])}</b>", "against": e(pair["against"])})
        row[NAMES[pair["measure"]]] = gap_bar(pair, reach_of(found))
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
                (side_of(line[_GAP]), f"<b>{e(line['arm'])}</b> (correct {e(gap_as_text(line[_GAP]))})")
                for line in one.arms
                if line["dataset"] == dataset and _GAP in line
            ]
            sentences += [f"{e(one.name)}, {e(dataset)}, against none: {by_verdict(verdicts)}."] if verdicts else []
    return sentences
