"""The parts of an evaluation as they are played: data set / seed-N / arm, each with its settings and episodes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiexp_verl.jsonl import trajectory_of
from hiexp_verl.report.episodes import unreadable
from hiexp_verl.report.find import Found
from hiexp_verl.rows import BadRow, read_rows
from hiexp_verl.run.eval_table import BASE, row_of
from hiexp_verl.run.evaluate import ARMS


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
        control = settings.get("control") or ARMS[BASE]
        evaluation = above.parent.parent
        if above.name == f"seed-{settings['seed']}" and ARMS.get(folder.name) == control and evaluation.is_relative_to(root):
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
