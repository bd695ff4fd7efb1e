"""An evaluation as its manifest describes it: parts, table, and the questions that each arm won and lost against `none`."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from hiexp_verl.evaluate.plan import TABLE_JSON, part_folder
from hiexp_verl.evaluate.tables import ALL, BASE, JUDGE, MEASURES, row_of
from hiexp_verl.io.datasets import trajectory_of
from hiexp_verl.io.manifest import Manifest
from hiexp_verl.io.rows import BadRow, as_number, number_or_nan, read_rows
from hiexp_verl.report.episodes import unreadable
from hiexp_verl.report.find import Found, files_of, flat, read_object


@dataclass(frozen=True)
class Part:
    """One arm on one data set with one seed, begun or played to its end."""

    dataset: str
    seed: int
    arm: str
    folder: Path
    manifest: Manifest


def parts_of(folder: Path, manifest: Manifest, found: Found) -> list[Part]:
    """Return the parts of an evaluation's plan that were begun."""
    datasets, seeds, arms = (one if isinstance(one := manifest.spec.get(name), list) else [] for name in ("datasets", "seeds", "arms"))
    plan = [(str(d), s, str(a), part_folder(folder, str(d), s, str(a))) for d in datasets for a in arms for s in seeds]
    return [Part(*part, found.manifests[part[-1]]) for part in plan if part[-1] in found.manifests]


def _rows_of(part: Part, found: Found) -> list[dict[str, Any]]:
    """Return a row for each episode; what cannot be read is added to `found.faults`."""
    good, bad = [], []
    for path in files_of(part.folder, part.manifest, "episodes", found):
        for line, row in read_rows(path, surrogates=True):
            try:
                if isinstance(row, BadRow):
                    raise row
                good.append(row_of(part.dataset, part.seed, part.arm, trajectory_of(row)))
            except (BadRow, ValueError, TypeError, KeyError) as error:
                bad.append(f"line {line}: {error}")
        if bad:
            found.faults.append(unreadable(path, bad, len(good)))
    return good


@dataclass(frozen=True)
class Evaluation:
    """Arms side by side on the same questions."""

    name: str
    arms: Sequence[Mapping[str, Any]]  # lines of the table
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]  # the rest of the table: questions, batch size, outcome of the replay
    won_lost: Mapping[tuple[str, str], tuple[int, int]]  # (data set, arm) -> questions right in it alone, in `none` alone
    pairs: Sequence[Mapping[str, Any]] = ()  # differences of arms other than `none`
    table: Literal["whole", "unfinished", "damaged"] = "whole"
    values: Mapping[tuple[str, str], Mapping[str, float]] = field(default_factory=dict)  # (data set, arm) -> question -> CEM over seeds
    texts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # data set -> question's id -> its text
    training: str = ""  # name of the training whose policy it is, where it lies in its folder

    def datasets(self) -> list[str]:
        """Return the data sets in the order of the table."""
        return list(dict.fromkeys(str(line.get("dataset", "")) for line in self.arms))


def read_evaluation(name: str, folder: Path, manifest: Manifest, parts: Sequence[Part], found: Found) -> Evaluation:
    """Read an evaluation; without its table the means are taken from the rows, and without rows from the episodes."""
    rows, table = [], {}
    if manifest.finished:  # else rows and table are of an earlier plan
        rows = [row for path in files_of(folder, manifest, "rows", found) for row in _rows(path, found)]
        table = read_object(folder / TABLE_JSON, found.faults)
    arms = table.get("arms")
    if isinstance(arms, list) and arms and all(isinstance(line, dict) and "arm" in line for line in arms):
        pairs = [one for one in table["pairs"] if _is_pair(one)] if isinstance(table.get("pairs"), list) else []
        settings = table["settings"] if isinstance(table.get("settings"), Mapping) else {}
        both = _settings_and_facts(table, settings, table.get("seeds"))
        return Evaluation(name, arms, *both, _won_lost(rows), pairs, values=_values(rows), texts=_texts(rows))
    if table:
        found.faults.append(f"{folder / TABLE_JSON} is damaged (no arms)")
    rows = rows or [row for part in parts for row in _rows_of(part, found)]
    lines = _means(rows)
    begun = {(line["dataset"], line["arm"]) for line in lines}
    lines += [{"dataset": d, "arm": a, "episodes": 0} for d, a in dict.fromkeys((p.dataset, p.arm) for p in parts) if (d, a) not in begun]
    settings = {key: value for part in parts for key, value in part.manifest.spec.items() if value != "" and key != "arm"}
    both = _settings_and_facts({}, settings, list(dict.fromkeys(str(part.seed) for part in parts)))
    state = "damaged" if manifest.finished else "unfinished"
    return Evaluation(name, lines, *both, _won_lost(rows), table=state, values=_values(rows), texts=_texts(rows))


def _settings_and_facts(table: Mapping[str, Any], settings: Mapping[str, Any], seeds: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return settings, with all seeds, and facts: the other values of the table."""
    rest = flat({key: value for key, value in table.items() if key not in ("arms", "settings")})
    facts = {key: value for key, value in rest.items() if isinstance(value, int | float | str)}
    played = flat(settings)
    if isinstance(seeds, list) and seeds:
        played["seed"] = ", ".join(map(str, seeds))
    return played, facts


def _is_pair(one: Any) -> bool:
    return (
        isinstance(one, Mapping)
        and {"arm", "against", "measure"} <= one.keys()
        and BASE not in (one["arm"], one["against"])  # that stands beside each arm
        and None not in (as_number(one.get(key)) for key in ("mean", "low", "high"))
    )


def _rows(path: Path, found: Found) -> list[dict[str, Any]]:
    good, bad = [], []
    for line, row in read_rows(path, surrogates=True):
        if isinstance(row, BadRow) or as_number(row.get("em")) is None or not {"arm", "id"} <= row.keys():
            bad.append(f"line {line}: {row if isinstance(row, BadRow) else 'no arm, id and em'}")
        else:
            good.append(row)
    if bad:
        found.faults.append(f"{path}: {len(bad)} of {len(bad) + len(good)} rows cannot be read ({bad[0]})")
    return good


def _won_lost(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], tuple[int, int]]:
    by_arm: dict[tuple[str, str], dict[tuple[str, str], float]] = defaultdict(dict)
    for row in rows:
        by_arm[str(row.get("dataset", "")), str(row["arm"])][str(row["id"]), str(row.get("seed", ""))] = number_or_nan(
            row.get("cem", row["em"])
        )
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
        if "question" in row:
            texts[str(row.get("dataset", ""))][str(row["id"])] = str(row["question"])
    return dict(texts)


def _values(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, float]]:
    by_question: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if (value := as_number(row.get("cem", row.get("em")))) is not None:
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
            values = [number for row in played if (number := as_number(row.get(key))) is not None]
            if values:
                line[key] = fmean(values)
        lines.append(line)
    return lines
