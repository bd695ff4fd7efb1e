"""From episodes to rows, and from rows to a table with intervals: pure functions."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hiexp_verl.run.statistics import mean_interval, paired_difference
from hiexp_verl.types import Trajectory

BASE = "base"
ALL = "all"  # the questions of every data set
MEASURES = ("em", "f1", "cem")
JUDGE = "judge"  # beside them where a model judged

Row = Mapping[str, Any]


def row_of(dataset: str, seed: int, arm: str, t: Trajectory) -> dict[str, Any]:
    """Return what is kept of one episode: nothing that depends on when or where it was played."""
    return {
        "dataset": dataset,
        "seed": seed,
        "arm": arm,
        "id": t.question_id,
        "prediction": t.prediction,
        **{name: t.extra[name] for name in (*MEASURES, "format")},
        "searches": t.extra["searches"],
        "failed_searches": t.extra["failed_searches"],
        "tokens": t.extra["completion_tokens"],  # that the policy wrote
        "experience_tokens": sum(row["tokens"] for row in t.extra["shown"]),
        "shown": [row["entry"] for row in t.extra["shown"]],
        "stop": t.extra["stop"],
    }


def table_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return a line for each data set and arm, and for all data sets where there are several.

    A question is worth its mean over seeds: what is resampled and swapped are questions, for samples of one are not independent.

    Raises:
        HiExpError: two arms did not play the same questions.
    """
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    parts = {name: [row for row in rows if row["dataset"] == name] for name in datasets}
    if len(datasets) > 1:
        parts[ALL] = list(rows)
    return [line for name, part in parts.items() for line in _lines(name, part)]


def _lines(dataset: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    by_arm: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_arm[row["arm"]].append(row)
    lines = []
    for arm, played in by_arm.items():
        line: dict[str, Any] = {"dataset": dataset, "arm": arm, "episodes": len(played)}
        for name in (*MEASURES, *([JUDGE] if all(JUDGE in row for row in rows) else [])):
            values = _by_question(played, name)
            line[name] = float(np.mean(list(values.values())))
            line[f"{name}_interval"] = list(mean_interval(values))
            if BASE in by_arm and arm != BASE:
                line[f"{name}_minus_base"] = vars(paired_difference(values, _by_question(by_arm[BASE], name)))
        for name in ("format", "searches", "failed_searches", "tokens", "experience_tokens"):
            line[name] = float(np.mean([row[name] for row in played]))
        line["with_experience"] = float(np.mean([bool(row["shown"]) for row in played]))
        lines.append(line)
    return lines


def _by_question(rows: Sequence[Row], measure: str) -> dict[str, float]:
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        values[f"{row['dataset']}/{row['id']}"].append(float(row[measure]))
    return {question: float(np.mean(each)) for question, each in values.items()}


def as_markdown(table: Mapping[str, Any]) -> str:
    """Return the table for people: the measures with intervals, then what an episode costs."""
    judged = any(JUDGE in line for line in table["arms"])
    several = len({line["dataset"] for line in table["arms"]}) > 1
    shown = ("em", "cem", *([JUDGE] if judged else []))
    last = shown[-1]
    heads = [*(["data set"] if several else []), "arm", "episodes", *(f"{n if n == JUDGE else n.upper()} [95%]" for n in shown), "F1"]
    heads += [
        f"{last if last == JUDGE else last.upper()} - base [95%], p",
        "format",
        "searches",
        "tokens",
        "with experience",
        "s / episode",
    ]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for line in table["arms"]:
        spans = [f"{line[n]:.3f} [{line[f'{n}_interval'][0]:.3f}, {line[f'{n}_interval'][1]:.3f}]" for n in shown]
        gap = line.get(f"{last}_minus_base")
        told = f"{gap['mean']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}], p {gap['p']:.3f}" if gap else ""
        cells = [*([line["dataset"]] if several else []), line["arm"], str(line["episodes"]), *spans, f"{line['f1']:.3f}", told]
        cells += [f"{line['format']:.2f}", f"{line['searches']:.2f}", f"{line['tokens']:.0f}", f"{line['with_experience']:.2f}"]
        lines.append(_line([*cells, f"{line['seconds']:.1f}"]))
    settings = table["settings"]
    seeds = ", ".join(map(str, table["seeds"]))
    lines += ["", f"{table['questions']} questions, {settings['model']}, temperature {settings['temperature']:g}, seeds {seeds}."]
    lines += [f"{table['batch_size']} episodes at a time, {table['seconds']:.0f} seconds in all."]
    if "start.top_k" in settings:
        places = [f"{p}: top {settings[f'{p}.top_k']}, {settings[f'{p}.max_tokens']} tokens" for p in ("start", "step")]
        lines += [f"Experience at most, {'; '.join(places)}."]
    if "replayed" in table:
        lines += [f"Played once more one at a time, {table['differ_alone']} of {table['replayed']} episodes differ."]
    return "\n".join([*lines, ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
