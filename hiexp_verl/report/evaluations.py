"""An evaluation as `hiexp eval` left it: its parts, its table, and what each arm won and lost against the base."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from hiexp_verl.evaluate.evaluate import TABLE_JSON
from hiexp_verl.evaluate.tables import ALL, BASE, JUDGE, MEASURES, row_of
from hiexp_verl.io.datasets import trajectory_of
from hiexp_verl.io.rows import BadRow, finite, or_nan, read_rows
from hiexp_verl.report.episodes import unreadable
from hiexp_verl.report.find import Found, flat


@dataclass(frozen=True)
class Part:
    """One arm on one data set with one seed, begun or played to its end."""

    evaluation: Path
    dataset: str
    arm: str
    settings: Mapping[str, Any]
    episodes: Path | None  # None as long as the first one is played


def parts_below(root: Path, found: Found) -> list[Part]:
    """Return the parts of evaluations that lie below a directory: place and settings of each agree."""
    parts = []
    for file, settings in found.settings.items():
        folder, above = file.parent, file.parent.parent
        shown = settings.get("arm") or BASE
        evaluation = above.parent.parent
        if above.name == f"seed-{settings['seed']}" and folder.name == shown and evaluation.is_relative_to(root):
            episodes = next((path for path in found.episodes if path.parent == folder), None)
            parts.append(Part(evaluation, above.parent.name, folder.name, settings, episodes))
    return sorted(parts, key=lambda part: (part.dataset, part.arm != BASE))


def rows_of(part: Part, found: Found) -> list[dict[str, Any]]:
    """Return a row for each episode; what cannot be read is added to `found.faults`."""
    good, bad = [], []
    for line, row in read_rows(part.episodes, halves=True) if part.episodes else ():
        try:
            if isinstance(row, BadRow):
                raise row
            good.append(row_of(part.dataset, part.settings["seed"], part.arm, trajectory_of(row)))
        except (BadRow, ValueError, TypeError, KeyError) as error:
            bad.append(f"line {line}: {error}")
    if bad:
        found.faults.append(unreadable(part.episodes, bad, len(good)))
    return good


@dataclass(frozen=True)
class Evaluation:
    """Arms side by side on the same questions."""

    name: str
    arms: Sequence[Mapping[str, Any]]  # lines of the table
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]  # the rest of the table: questions, batch size, what a replay showed
    won_lost: Mapping[tuple[str, str], tuple[int, int]]  # (data set, arm) -> questions right in it alone, in the base alone
    pairs: Sequence[Mapping[str, Any]] = ()  # differences of arms of which none is the base
    table: Literal["whole", "missing", "damaged"] = "whole"
    values: Mapping[tuple[str, str], Mapping[str, float]] = field(default_factory=dict)  # (data set, arm) -> question -> CEM over seeds
    texts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # data set -> question's id -> its text
    training: str = ""  # name of the training whose policy it is, where it lies in its folder

    def datasets(self) -> list[str]:
        """Return the data sets in the order of the table."""
        return list(dict.fromkeys(str(line.get("dataset", "")) for line in self.arms))


def read_evaluation(name: str, folder: Path, rows: Sequence[Path], parts: Sequence[Part], found: Found) -> Evaluation:
    """Read an evaluation; without its table the means are taken from the rows, and without rows from the episodes."""
    table = {path.parent: table for path, table in found.tables.items()}.get(folder)
    played = [row for path in rows for row in _rows(path, found)]
    worded = played
    if not played or any("question" not in row for row in played):  # as rows of before 2026-11-22
        worded = [row for part in parts for row in rows_of(part, found)]
    if table is None and not rows:
        played = worded
    of_rows = {"values": _values(played), "texts": _texts(worded)}
    if table is not None:
        pairs = [one for one in table["pairs"] if _is_pair(one)] if isinstance(table.get("pairs"), list) else []
        settings = table["settings"] if isinstance(table.get("settings"), Mapping) else {}
        return Evaluation(name, table["arms"], *_told(table, settings, table.get("seeds")), _won_lost(played), pairs, **of_rows)
    damaged = folder / TABLE_JSON
    if damaged.exists() and not any(fault.startswith(str(damaged)) for fault in found.faults):
        found.faults.append(f"{damaged}: no table of an evaluation")
    lines = _means(played)
    begun = {(line["dataset"], line["arm"]) for line in lines}
    lines += [{"dataset": d, "arm": a, "episodes": 0} for d, a in dict.fromkeys((p.dataset, p.arm) for p in parts) if (d, a) not in begun]
    settings = {key: value for part in parts for key, value in part.settings.items() if value != "" and key != "arm"}
    told = _told({}, settings, list(dict.fromkeys(str(part.settings["seed"]) for part in parts)))
    return Evaluation(name, lines, *told, _won_lost(played), table="damaged" if damaged.exists() else "missing", **of_rows)


def _told(table: Mapping[str, Any], settings: Mapping[str, Any], seeds: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return settings and facts; the settings are of some episodes, so their seed is one of several."""
    rest = flat({key: value for key, value in table.items() if key not in ("arms", "settings")})
    facts = {key: value for key, value in rest.items() if isinstance(value, int | float | str)}
    told = flat(settings)
    if isinstance(seeds, list) and seeds:
        told["seed"] = ", ".join(map(str, seeds))
    return told, facts


def _is_pair(one: Any) -> bool:
    return (
        isinstance(one, Mapping)
        and {"arm", "against", "measure"} <= one.keys()
        and BASE not in (one["arm"], one["against"])  # that stands beside each arm
        and None not in (finite(one.get(key)) for key in ("mean", "low", "high"))
    )


def _rows(path: Path, found: Found) -> list[dict[str, Any]]:
    good, bad = [], []
    for line, row in read_rows(path, halves=True):
        if isinstance(row, BadRow) or finite(row.get("em")) is None or not {"arm", "id"} <= row.keys():
            bad.append(f"line {line}: {row if isinstance(row, BadRow) else 'no arm, id and em'}")
        else:
            good.append(row)
    if bad:
        found.faults.append(f"{path}: {len(bad)} of {len(bad) + len(good)} rows cannot be read ({bad[0]})")
    return good


def _won_lost(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], tuple[int, int]]:
    by_arm: dict[tuple[str, str], dict[tuple[str, str], float]] = defaultdict(dict)
    for row in rows:
        by_arm[str(row.get("dataset", "")), str(row["arm"])][str(row["id"]), str(row.get("seed", ""))] = or_nan(row.get("cem", row["em"]))
    found = {}
    for (dataset, arm), values in by_arm.items():
        base = by_arm.get((dataset, BASE), {})
        both = values.keys() & base.keys()
        if arm != BASE and both:
            found[dataset, arm] = (sum(values[key] > base[key] for key in both), sum(values[key] < base[key] for key in both))
    if len({dataset for dataset, _ in by_arm}) > 1:  # as the table then has a line for all of them
        for arm in {arm: None for _, arm in found}:
            counts = [count for (_, of), count in found.items() if of == arm]
            found[ALL, arm] = (sum(won for won, _ in counts), sum(lost for _, lost in counts))
    return found


def _texts(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    texts: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        texts[str(row.get("dataset", ""))][str(row["id"])] = str(row["question"])
    return dict(texts)


def _values(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, float]]:
    by_question: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if (value := finite(row.get("cem", row.get("em")))) is not None:
            by_question[str(row.get("dataset", "")), str(row["arm"])][str(row["id"])].append(value)
    return {key: {question: fmean(values) for question, values in of.items()} for key, of in by_question.items()}


def _means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    by_arm: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_arm[str(row.get("dataset", "")), str(row["arm"])].append(row)
    lines = []
    for (dataset, arm), played in by_arm.items():
        line: dict[str, Any] = {"dataset": dataset, "arm": arm, "episodes": len(played)}
        for key in (*MEASURES, JUDGE, "format", "searches", "tokens", "experience_tokens", "seconds"):
            values = [number for row in played if (number := finite(row.get(key))) is not None]
            if values:
                line[key] = fmean(values)
        lines.append(line)
    return lines
