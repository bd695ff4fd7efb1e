"""An evaluation as `hiexp eval` left it: its table, and what each arm won and lost against the base, from its rows."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from hiexp_verl.report.find import Found
from hiexp_verl.report.finite import finite, or_nan
from hiexp_verl.rows import BadRow, read_rows
from hiexp_verl.run.eval_table import BASE, JUDGE, MEASURES


@dataclass(frozen=True)
class Evaluation:
    """Arms side by side on the same questions."""

    name: str
    arms: Sequence[Mapping[str, Any]]  # lines of the table
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]  # the rest of the table: questions, batch size, what a replay showed
    won_lost: Mapping[tuple[str, str], tuple[int, int]]  # (data set, arm) -> questions right in it alone, in the base alone
    finished: bool = True

    def datasets(self) -> list[str]:
        """Return the data sets in the order of the table."""
        return list(dict.fromkeys(str(line.get("dataset", "")) for line in self.arms))


def read_evaluation(name: str, table: Mapping[str, Any] | None, rows: Sequence[Path], found: Found) -> Evaluation:
    """Read an evaluation; without its table, which comes last, the means are taken from the rows."""
    played = [row for path in rows for row in _rows(path, found)]
    won_lost = _won_lost(played)
    if table is None:
        return Evaluation(name, _means(played), {}, {}, won_lost, finished=False)
    facts = {key: value for key, value in table.items() if key not in ("arms", "settings") and isinstance(value, int | float | str)}
    settings = table.get("settings")
    return Evaluation(name, table["arms"], settings if isinstance(settings, Mapping) else {}, facts, won_lost)


def _rows(path: Path, found: Found) -> list[dict[str, Any]]:
    good, bad = [], []
    for number, row in read_rows(path, halves=True):
        if isinstance(row, BadRow) or finite(row.get("em")) is None or not {"arm", "id"} <= row.keys():
            bad.append(f"line {number}: {row if isinstance(row, BadRow) else 'no arm, id and em'}")
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
    return found


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
