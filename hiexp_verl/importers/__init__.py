"""Import of trajectories: a converter per format, and one stream that all formats pass."""

from collections.abc import Callable
from typing import Any

from hiexp_verl.importers.openai import from_messages
from hiexp_verl.importers.r1_searcher import FromR1Searcher, Tags
from hiexp_verl.importers.verl_dump import from_verl_dump
from hiexp_verl.io.datasets import trajectory_of
from hiexp_verl.types import Trajectory

# Turns a row into a trajectory (id "" if the row has none); raises BadRow.
Converter = Callable[[dict[str, Any]], Trajectory]

FORMATS: dict[str, Callable[[], Converter]] = {
    "hiexp": lambda: trajectory_of,
    "verl-dump": lambda: from_verl_dump,
    "openai": lambda: from_messages,
    "r1-searcher": FromR1Searcher,  # one per import: it numbers the questions
}

__all__ = ["FORMATS", "Converter", "FromR1Searcher", "Tags"]
