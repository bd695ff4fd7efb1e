"""The minimum score at which a search gets an E1, from the searches that the HEK was built from.

The paper's 0.8 belongs to its encoder. Here the minimum score is a percentile of the cosines between each query and the
titles that were distilled from *other* questions: what lies above it is closer than chance. The prompt has none, as in the
paper: a question always gets the top k of E2 and E3 (`hiexp.prompt.min_score` sets one by hand).
"""

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from hiexp_verl.distil.validate import evenly_spaced
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.retrieve import Retriever
from hiexp_verl.hek.store import HEK
from hiexp_verl.models.encoder import Encoder, Vectors
from hiexp_verl.types import Source

_CHUNK = 1024  # queries compared at a time: bounds memory at 16,000 queries x 16,000 titles
_BINS = 20_000  # of width 1e-4: a percentile is exact to that
_MOST_QUERIES = 20_000


def calibrate(
    queries_N_D: Vectors,
    query_questions: Sequence[str],
    titles_E_D: Vectors,
    title_questions: Sequence[Sequence[str]],
    percentile: float = 95.0,
) -> float:
    """Return the percentile (0 to 100) of the cosines between queries and the titles of other questions (a cosine, 4 digits).

    Args:
        queries_N_D: unit vectors of queries; `query_questions` has the id of the question of each.
        titles_E_D: unit vectors of titles; `title_questions` has the ids of the questions that each was distilled from.

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
        bins = np.clip(((cosines_C_E[other_C_E] + 1.0) * (_BINS / 2)).astype(np.int64), 0, _BINS - 1)
        histogram_B += np.bincount(bins, minlength=_BINS)
    total = int(histogram_B.sum())
    if total == 0:
        raise HiExpError("no query and title of different questions to calibrate with; give trajectories of at least two questions")
    reached = int(np.searchsorted(np.cumsum(histogram_B), max(1, np.ceil(total * percentile / 100))))
    return round(-1.0 + (reached + 1) * 2.0 / _BINS, 4)


def thresholds(
    hek: HEK, sources: Sequence[Source], encoder: Encoder, percentile: float = 95.0, fire_rates: tuple[float, float] = (0.3, 0.5)
) -> tuple[dict[str, float], float]:
    """Return the thresholds, and the share of the sources' searches that would get an E1 of another question under them.

    `tool_min_score` is a percentile of the cosines with titles of E1 of other questions, absent where no such pair exists.
    That is of pairs, and a search gets the best of all E1: of many, one passes by chance. It is raised until no more than the
    higher of `fire_rates` of the searches get one. Where all questions are alike, "other" is not "unrelated", and the
    percentile would silence E1: it is then lowered until the lower of `fire_rates` get one.
    """
    queries = [(source.question_id, query) for source in sources for query in source.queries]
    queries = queries[evenly_spaced(len(queries), _MOST_QUERIES)]
    found = {"percentile": percentile}
    rows = [row for row, entry in enumerate(hek.entries) if entry.level == "e1"]
    questions = [hek.entries[row].questions for row in rows]
    if any(question not in own for question, _ in queries for own in questions):
        vectors_N_D = encoder.encode_queries([query for _, query in queries])
        found["tool_min_score"] = calibrate(vectors_N_D, [q for q, _ in queries], hek.vectors_E_D[rows], questions, percentile)
    best_N = _best_scores(hek, encoder, queries)
    if "tool_min_score" in found and len(best_N):
        lowest, highest = fire_rates
        at_most = float(np.quantile(best_N, 1 - highest, method="higher"))
        found["tool_min_score"] = max(found["tool_min_score"], math.floor(at_most * 1e4) / 1e4)
        at_least = float(np.quantile(best_N, 1 - lowest, method="lower"))
        found["tool_min_score"] = min(found["tool_min_score"], math.floor(at_least * 1e4) / 1e4)
    return found, float((best_N >= found.get("tool_min_score", -1.0)).mean()) if len(best_N) else 0.0


def _best_scores(hek: HEK, encoder: Encoder, queries: Sequence[tuple[str, str]]) -> np.ndarray:
    """Return for each query the cosine of the E1 it would get, own question left out; -2 where it would get none."""
    if not queries or not hek.levels["e1"]:
        return np.zeros(0)
    found = Retriever(hek, encoder).retrieve([query for _, query in queries], ["e1"], 1, None, [question for question, _ in queries])
    return np.array([hits[0].score if hits else -2.0 for hits in found])
