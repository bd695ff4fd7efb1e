"""Tables of evaluations: scores of each arm with intervals on one scale, and differences to `none`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hiexp_verl.evaluate.tables import p_value, replayed_as_text, signed
from hiexp_verl.io.rows import as_number
from hiexp_verl.report.charts import interval_bar
from hiexp_verl.report.evaluations import Evaluation
from hiexp_verl.report.html import e, facts, folded, number, percent, table

_NAMES = {"em": "EM", "f1": "F1", "cem": "CEM", "judge": "judge"}
_RATES = {
    "format": "right format",
    "searches": "searches",
    "tokens": "policy tokens",
    "experience_tokens": "experience tokens",
    "with_experience": "with experience",
    "seconds": "seconds",
}
_SHARES = ("format", "with_experience")
SIGNIFICANT = 0.05  # of the paired test
_STATES = {"unfinished": "not finished", "damaged": "its table is damaged"}
_NO_TABLE = {
    "unfinished": "This evaluation is not finished. Below are means over the episodes so far; "
    "<code>hiexp eval --resume</code> continues it.",
    "damaged": "The table of this evaluation is damaged. Below are means over its episodes; <code>hiexp eval --resume</code> rewrites it.",
}


def evaluations(found: Sequence[Evaluation]) -> str:
    """Return the tables of all evaluations."""
    return "".join(_evaluation(one, alone=len(found) == 1) for one in found)


def _evaluation(one: Evaluation, alone: bool) -> str:
    heading = "" if alone else f"<h3>{e(one.name)}</h3>"
    fault = "" if one.table == "whole" else f'<p class="bad">{_NO_TABLE[one.table]}{_uneven(one)}</p>'
    parts = []
    for dataset in one.datasets():
        lines = [line for line in one.arms if str(line.get("dataset", "")) == dataset]
        title = f"<h4>{e(dataset)}</h4>" if dataset else ""
        parts.append(
            f"{title}{_scores(one, dataset, lines)}{_pairs(one, dataset)}"
            f"{folded('Format, searches, tokens, time per episode', _rates(lines))}"
        )
    settings = {key.replace("_", " "): found for key, found in {**one.facts, **one.settings}.items() if found not in (None, "")}
    notes = []
    if one.facts.get("replayed") is not None and one.facts.get("differ_alone") is not None:
        notes.append(e(replayed_as_text(one.facts)))
    if any(_interval(line, key) for line in one.arms for key in _NAMES):
        notes.append("Brackets and bars are 95% bootstrap intervals over questions; differences are paired by question, p by sign flips.")
    if one.won_lost:
        notes.append("Won: episodes right in this arm and wrong without experience; lost: the opposite.")
    return f'{heading}{fault}{"".join(parts)}<p class="soft">{" ".join(notes)}</p>{folded("Settings", facts(settings))}'


def _uneven(one: Evaluation) -> str:
    counts = [{line["episodes"] for line in one.arms if str(line["dataset"]) == dataset} - {0} for dataset in one.datasets()]
    note = " The arms have not played the same questions so far: only won and lost compare the same questions."
    return note if any(len(count) > 1 for count in counts) else ""


def _scores(one: Evaluation, dataset: str, lines: Sequence[Mapping[str, Any]]) -> str:
    measures = [key for key in _NAMES if any(as_number(line.get(key)) is not None for line in lines)]
    intervals = {key: [_interval(line, key) for line in lines] for key in measures}
    everything = [bound for spans in intervals.values() for span in spans if span for bound in span]
    scale = (min(everything, default=0.0), max(everything, default=1.0))
    gaps = [_difference(line, key) for line in lines for key in measures]
    reach = max((abs(bound) for gap in gaps if gap for bound in gap[1:3]), default=1.0)
    main = next((key for key in ("cem", "em") if key in measures), None)
    rows, more = [], []
    for i, line in enumerate(lines):
        row = {"arm": f"<b>{e(line['arm'])}</b>"}
        rest = dict(row)
        for key in sorted(measures, key=lambda key: key != main):
            row[_NAMES[key]] = score_bar(as_number(line.get(key)), intervals[key][i], scale)
            gap = _difference(line, key)
            if key == main and any(gaps):
                row[f"{_NAMES[key]} against none"] = gap_bar(*gap, reach) if gap else ""
            elif gap:
                rest[f"{_NAMES[key]} against none"] = gap_bar(*gap, reach)
            if key == main and one.won_lost:
                row["won, lost"] = ", ".join(map(str, one.won_lost.get((dataset, str(line["arm"])), ())))
        rows.append(row | {"episodes": number(line.get("episodes", ""))})
        more += [rest] if len(rest) > 1 else []
    return table(rows) + folded("Other measures against none", table(more))


def _pairs(one: Evaluation, dataset: str) -> str:
    """Return the differences of arms, a row for each pair."""
    found = [pair for pair in one.pairs if str(pair.get("dataset", "")) == dataset]
    reach = max((abs(pair[bound]) for pair in found for bound in ("low", "high")), default=1.0)
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for pair in sorted(found, key=lambda pair: pair["measure"] != "cem"):
        row = rows.setdefault((str(pair["arm"]), str(pair["against"])), {"arm": f"<b>{e(pair['arm'])}</b>", "against": e(pair["against"])})
        name = _NAMES.get(str(pair["measure"]), str(pair["measure"]))
        row[name] = gap_bar(pair["mean"], pair["low"], pair["high"], as_number(pair.get("p")), reach)
    note = '<p class="soft">The first arm minus the second, paired by question; p are not corrected for the number of comparisons.</p>'
    return folded(f"Arm against arm ({len(rows)})", table([*rows.values()]) + note) if rows else ""


def score_bar(mean: float | None, span: tuple[float, float] | None, scale: tuple[float, float]) -> str:
    """Return a mean with its interval, as numbers and as a drawing."""
    if mean is None:
        return ""
    if span is None:
        return f"{mean:.3f}"
    return f'{mean:.3f} <span class="soft">[{span[0]:.3f}, {span[1]:.3f}]</span>{interval_bar(mean, *span, scale)}'


def gap_bar(mean: float, low: float, high: float, p: float | None, reach: float) -> str:
    """Return a difference with its interval and p, as numbers and as a drawing."""
    text = f'{signed(mean)} <span class="soft">[{signed(low)}, {signed(high)}]{"" if p is None else ","}</span>'
    text += "" if p is None else f' <span class="soft">{e(p_value(p))}</span>'
    return text + interval_bar(mean, low, high, (-reach, reach), side_of(low, high, p))


_VERDICTS = {1: "better", -1: "worse", 0: "no significant difference"}  # by the side of zero


def side_of(low: float, high: float, p: float | None) -> int:
    """Return 1 or -1 for a significant difference, else 0. The test decides too: with few questions a percentile interval is too narrow."""
    sure = p is None or p < SIGNIFICANT
    return (low > 0 and sure) - (high < 0 and sure)


def by_verdict(found: Sequence[tuple[int, str]]) -> str:
    """Return texts (HTML), given with their side of zero, by verdict: `better: A, B; worse: C`."""
    names = {verdict: [text for side, text in found if side == of] for of, verdict in _VERDICTS.items()}
    return "; ".join(f"{verdict}: {', '.join(texts)}" for verdict, texts in names.items() if texts)


def _interval(line: Mapping[str, Any], key: str) -> tuple[float, float] | None:
    found = line.get(f"{key}_interval")
    if isinstance(found, list) and len(found) == 2 and None not in map(as_number, found):
        return float(found[0]), float(found[1])
    return None


def _difference(line: Mapping[str, Any], key: str) -> tuple[float, float, float, float | None] | None:
    found = line.get(f"{key}_minus_none")
    if not isinstance(found, Mapping):
        return None
    mean, low, high = (as_number(found.get(name)) for name in ("mean", "low", "high"))
    return None if mean is None or low is None or high is None else (mean, low, high, as_number(found.get("p")))


def _rates(lines: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for line in lines:
        row = {"arm": f"<b>{e(line['arm'])}</b>"}
        for key, name in _RATES.items():
            if (found := as_number(line.get(key))) is not None:
                row[name] = percent(found) if key in _SHARES else f"{found:.2f}" if found < 100 else f"{found:.0f}"
        rows.append(row)
    return table(rows)


def in_short(found: Sequence[Evaluation]) -> list[str]:
    """Return one sentence (HTML) for each evaluation and data set: which arms differ from `none`."""
    sentences = []
    for one in found:
        if one.table != "whole":
            played = Counter[str]()
            for line in one.arms:
                played[line["arm"]] += line["episodes"]
            counts = ", ".join(f"{e(arm)} {number(count)}" for arm, count in played.items())
            sentences.append(f"{e(one.name)}: {_STATES[one.table]} (episodes played: {counts}).")
        for dataset in one.datasets():
            verdicts: list[tuple[int, str]] = []
            for line in one.arms:
                measure = next((key for key in ("cem", "em") if _difference(line, key)), "")
                if str(line.get("dataset", "")) != dataset or not (gap := _difference(line, measure)):
                    continue
                mean, low, high, p = gap
                interval = f"[{signed(low)}, {signed(high)}]" + (f", {e(p_value(p))}" if p is not None else "")
                verdicts.append((side_of(low, high, p), f"<b>{e(line['arm'])}</b> ({_NAMES[measure]} {signed(mean)} {interval})"))
            where = ", ".join(filter(None, (e(one.name), e(dataset))))
            sentences += [f"{where}, against none: {by_verdict(verdicts)}."] if verdicts else []
    return sentences
