"""From episodes to rows, and from rows to means with intervals: pure functions."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
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
        "question": t.question,
        "prediction": t.prediction,
        **{name: t.extra[name] for name in (*MEASURES, "format")},
        "searches": t.extra["searches"],
        "failed_searches": t.extra["failed_searches"],
        "lookup_failures": t.extra.get("lookup_failures", 0),  # episodes of verl's own agent have none
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
    return [line for dataset, by_arm in _parts(rows) for line in _lines(dataset, by_arm)]


def pairs_of(rows: Sequence[Row], lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return every arm against every one before it, in every measure; `lines` are the table's, which know the base's.

    Raises:
        HiExpError: two arms did not play the same questions.
    """
    against_base = {(line["dataset"], line["arm"], name): line.get(f"{name}_minus_base") for line in lines for name in (*MEASURES, JUDGE)}
    pairs = []
    for dataset, by_arm in _parts(rows):
        for against, arm in combinations(by_arm, 2):
            for name in _measures(by_arm):
                values, others = _by_question(by_arm[arm], name), _by_question(by_arm[against], name)
                if len(values) > 1:
                    known = against_base[dataset, arm, name] if against == BASE else None
                    found = known or vars(paired_difference(values, others))
                    pairs.append({"dataset": dataset, "arm": arm, "against": against, "measure": name, **found})
    return pairs


def _parts(rows: Sequence[Row]) -> Iterator[tuple[str, dict[str, list[Row]]]]:
    """Yield each data set, and all of several, with its rows by arm."""
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    for dataset in [*datasets, *([ALL] if len(datasets) > 1 else [])]:
        by_arm: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            if dataset in (row["dataset"], ALL):
                by_arm[row["arm"]].append(row)
        yield dataset, by_arm


def _measures(by_arm: Mapping[str, Sequence[Row]]) -> tuple[str, ...]:
    judged = all(JUDGE in row for played in by_arm.values() for row in played)
    return (*MEASURES, JUDGE) if judged else MEASURES


def _lines(dataset: str, by_arm: Mapping[str, Sequence[Row]]) -> list[dict[str, Any]]:
    lines = []
    for arm, played in by_arm.items():
        line: dict[str, Any] = {"dataset": dataset, "arm": arm, "episodes": len(played)}
        for name in _measures(by_arm):
            values = _by_question(played, name)
            line[name] = float(np.mean(list(values.values())))
            if len(values) > 1:  # one question has no spread
                line[f"{name}_interval"] = list(mean_interval(values))
                if BASE in by_arm and arm != BASE:
                    line[f"{name}_minus_base"] = vars(paired_difference(values, _by_question(by_arm[BASE], name)))
        for name in ("format", "searches", "failed_searches", "lookup_failures", "tokens", "experience_tokens"):
            line[name] = float(np.mean([row.get(name, 0) for row in played]))
        line["stops"] = {stop: count / len(played) for stop, count in Counter(row.get("stop", "") for row in played).most_common()}
        line["with_experience"] = float(np.mean([bool(row["shown"]) for row in played]))
        lines.append(line)
    return lines


def _by_question(rows: Sequence[Row], measure: str) -> dict[str, float]:
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        values[f"{row['dataset']}/{row['id']}"].append(float(row[measure]))
    return {question: float(np.mean(each)) for question, each in values.items()}
