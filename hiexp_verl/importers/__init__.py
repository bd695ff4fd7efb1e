"""Trajectories of other programs, turned into ours: one module per format, one stream through all of them."""

from collections.abc import Callable
from typing import Any

from hiexp_verl.importers.openai import from_messages
from hiexp_verl.importers.r1_searcher import FromR1Searcher, Tags, read_r1_searcher
from hiexp_verl.importers.verl_dump import from_verl_dump
from hiexp_verl.io.datasets import trajectory_of
from hiexp_verl.types import Trajectory

# A row in, a trajectory out; its id is "" when the row has none. Raises BadRow when the row holds no trajectory.
Converter = Callable[[dict[str, Any]], Trajectory]

FORMATS: dict[str, Callable[[], Converter]] = {
    "r1-searcher": FromR1Searcher,  # a fresh one for each import: it numbers the questions
    "verl-dump": lambda: from_verl_dump,
    "openai": lambda: from_messages,
    "hiexp": lambda: trajectory_of,
}

__all__ = ["FORMATS", "Converter", "FromR1Searcher", "Tags", "read_r1_searcher"]
