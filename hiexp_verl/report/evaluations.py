"""An evaluation as its manifest describes it: its table, and the score of every question in every arm."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from hiexp_verl.evaluate.plan import TABLE_JSON
from hiexp_verl.evaluate.tables import ALL
from hiexp_verl.io.manifest import Manifest
from hiexp_verl.io.rows import Row
from hiexp_verl.report.find import files_of, flat, read_lines, read_object

Values = Mapping[str, float]  # by data set, id and text of the question: other questions may have the same id


@dataclass(frozen=True)
class Evaluation:
    """Arms side by side on the same questions."""

    name: str
    arms: Sequence[Mapping[str, Any]] = ()  # lines of the table; none while it is not finished
    pairs: Sequence[Mapping[str, Any]] = ()  # differences of two arms
    facts: Mapping[str, Any] = field(default_factory=dict)  # settings, seeds, batch size, outcome of the replay
    values: Mapping[tuple[str, str], Values] = field(default_factory=dict)  # (data set, arm) -> CEM of each question, mean over seeds
    training: str = ""  # name of the training whose policy it is, where it is in its folder

    @property
    def datasets(self) -> list[str]:
        """The data sets in the order of the table."""
        return list(dict.fromkeys(line["dataset"] for line in self.arms))


def read_evaluation(name: str, folder: Path, manifest: Manifest, faults: list[str], training: str = "") -> Evaluation:
    """Read the table and rows of a finished evaluation."""
    table = read_object(folder / TABLE_JSON, faults) if manifest.finished else {}
    if not table.get("arms"):
        return Evaluation(name, training=training)
    rows = [row for path in files_of(folder, manifest, "rows", faults) for row in read_lines(path, _value, faults)]
    scores: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for dataset, arm, question, value in rows:
        for of in (dataset, ALL):
            scores[of, arm][question].append(value)
    values = {of: {question: fmean(each) for question, each in found.items()} for of, found in scores.items()}
    rest = flat({key: value for key, value in table.items() if key not in ("arms", "pairs", "settings", "seeds")})
    facts = {**rest, **flat(table["settings"]), "seed": ", ".join(map(str, table["seeds"]))}
    return Evaluation(name, table["arms"], table["pairs"], facts, values, training)


def _value(line: int, row: Row) -> tuple[str, str, str, float]:
    """Return data set, arm, question and CEM of a row."""
    return row["dataset"], row["arm"], f"{row['dataset']}/{row['id']}: {row['question']}", float(row["cem"])
