"""The published evaluation file of R1-Searcher, read row by row."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hiexp_verl.importers import FromR1Searcher
from hiexp_verl.io.datasets import read_jsonl
from hiexp_verl.types import Trajectory


def read_r1_searcher(path: Path) -> Iterator[Trajectory]:
    """Yield the trajectories of the file; the n-th of a question has the id "<question id>#<n>"."""
    convert = FromR1Searcher()
    samples: Counter[str] = Counter()
    for _, row in read_jsonl(path, "trajectory file"):
        trajectory = convert(row)
        yield replace(trajectory, id=f"{trajectory.question_id}#{samples[trajectory.question_id]}")
        samples[trajectory.question_id] += 1
