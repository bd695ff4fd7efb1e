"""The minimum score of the step for the encoder in use, from the searches that the HEK was built from.

The start has none, as in the paper: a question always gets the top k of E2 and E3 (`hiexp.start.min_score` sets one by hand).
"""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from hiexp_verl.build.fitting import evenly
from hiexp_verl.encoder import Encoder
from hiexp_verl.hek.calibrate import calibrate
from hiexp_verl.hek.retrieve import Retriever
from hiexp_verl.hek.store import HEK

_MOST_QUERIES = 20_000


class Asked(Protocol):
    """The queries that a trajectory made for a question (`types.Source` is one)."""

    @property
    def question_id(self) -> str: ...
    @property
    def queries(self) -> Sequence[str]: ...


def thresholds(
    hek: HEK, asked: Sequence[Asked], encoder: Encoder, percentile: float, min_fire_rate: float, max_fire_rate: float = 1.0
) -> tuple[dict[str, float], float]:
    """Return the thresholds, and the share of these searches that would get an E1 of another question under them.

    `step_min_score` is a percentile of the cosines with titles of E1 of other questions, absent where no such pair exists.
    That is of pairs, and a search gets the best of all E1: of many, one passes by chance. It is raised until no more than
    `max_fire_rate` of the searches get one. Where all questions are alike, "other" is not "unrelated", and the percentile
    would silence E1: it is then lowered until `min_fire_rate` of the searches get one.
    """
    queries = [(one.question_id, query) for one in asked for query in one.queries]
    queries = queries[evenly(len(queries), _MOST_QUERIES)]
    found = {"percentile": percentile}
    rows = [row for row, entry in enumerate(hek.entries) if entry.level == "e1"]
    sources = [hek.entries[row].questions for row in rows]
    if any(question not in own for question, _ in queries for own in sources):
        vectors_N_D = encoder.encode_queries([query for _, query in queries])
        found["step_min_score"] = calibrate(vectors_N_D, [q for q, _ in queries], hek.vectors_E_D[rows], sources, percentile)
    best_N = _best_scores(hek, encoder, queries)
    if "step_min_score" in found and len(best_N):
        at_most = float(np.quantile(best_N, 1 - max_fire_rate, method="higher"))
        found["step_min_score"] = max(found["step_min_score"], math.floor(at_most * 1e4) / 1e4)
        at_least = float(np.quantile(best_N, 1 - min_fire_rate, method="lower"))
        found["step_min_score"] = min(found["step_min_score"], math.floor(at_least * 1e4) / 1e4)
    return found, float((best_N >= found.get("step_min_score", -1.0)).mean()) if len(best_N) else 0.0


def _best_scores(hek: HEK, encoder: Encoder, queries: Sequence[tuple[str, str]]) -> np.ndarray:
    """Return for each query the cosine of the E1 it would get, own question left out; -2 where it would get none."""
    if not queries or not hek.levels["e1"]:
        return np.zeros(0)
    found = Retriever(hek, encoder).retrieve([query for _, query in queries], ["e1"], 1, None, [question for question, _ in queries])
    return np.array([hits[0].score if hits else -2.0 for hits in found])
