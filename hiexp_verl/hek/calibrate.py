"""Thresholds for the encoder in use: how similar is a query to experience that has nothing to do with it?

The paper's 0.8 belongs to its encoder. Here the minimum score is a percentile of the cosines between each query and
the titles that were distilled from *other* questions: what lies above it is closer than chance.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hiexp_verl.encoder import Vectors
from hiexp_verl.errors import HiExpError

# Rows of queries compared at a time: bounds memory at 16,000 queries x 16,000 titles.
_CHUNK = 1024
_BINS = 20_000  # of width 1e-4: a percentile is exact to that


def calibrate(
    queries_N_D: Vectors,
    query_questions: Sequence[str],
    titles_E_D: Vectors,
    title_questions: Sequence[Sequence[str]],
    percentile: float = 95.0,
) -> float:
    """Return the percentile of the cosines between queries and the titles of other questions (a cosine, 4 digits).

    Args:
        queries_N_D: unit vectors of search queries.
        query_questions: the id of the question that each query belongs to.
        titles_E_D: unit vectors of entry titles.
        title_questions: per entry, the ids of the questions it was distilled from.
        percentile: 0 to 100.

    Raises:
        HiExpError: the percentile is out of range, or there is no pair of different questions.
    """
    if not 0 <= percentile <= 100:
        raise HiExpError(f"percentile {percentile} is out of range; give a number from 0 to 100")
    histogram_B = np.zeros(_BINS, dtype=np.int64)
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, questions in enumerate(title_questions):
        for question in questions:
            rows_of[question].append(row)
    for start in range(0, len(queries_N_D), _CHUNK):
        cosines_C_E = queries_N_D[start : start + _CHUNK] @ titles_E_D.T
        other_C_E = np.ones(cosines_C_E.shape, dtype=bool)
        for row, question in enumerate(query_questions[start : start + _CHUNK]):
            other_C_E[row, rows_of.get(question, [])] = False
        histogram_B += _histogram(cosines_C_E[other_C_E])
    total = int(histogram_B.sum())
    if total == 0:
        raise HiExpError("no query and title of different questions to calibrate with; give trajectories of at least two questions")
    reached = int(np.searchsorted(np.cumsum(histogram_B), max(1, np.ceil(total * percentile / 100))))
    return round(-1.0 + (reached + 1) * 2.0 / _BINS, 4)


def _histogram(cosines: NDArray[np.float32]) -> NDArray[np.int64]:
    bins = np.clip(((cosines + 1.0) * (_BINS / 2)).astype(np.int64), 0, _BINS - 1)
    return np.bincount(bins, minlength=_BINS)
