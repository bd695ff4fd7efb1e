"""Minimum scores for the encoder in use, from the searches and questions that the HEK was built from."""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from hiexp_verl.encoder import Encoder
from hiexp_verl.hek.calibrate import calibrate
from hiexp_verl.hek.retrieve import Retriever
from hiexp_verl.hek.store import HEK

_MOST_QUERIES = 20_000  # evenly spaced over all


class Asked(Protocol):
    """A question and the queries that a trajectory made for it (`types.Source` is one)."""

    @property
    def question_id(self) -> str: ...
    @property
    def question(self) -> str: ...
    @property
    def queries(self) -> Sequence[str]: ...


def thresholds(
    hek: HEK, asked: Sequence[Asked], encoder: Encoder, percentile: float, min_fire_rate: float
) -> tuple[dict[str, float], float]:
    """Return the thresholds, and the share of these searches that would get an E1 of another question under them.

    `step_min_score` and `start_min_score` are percentiles of the cosines with titles of other questions, absent where no
    such pair exists. Where all questions are alike, "other" is not "unrelated", and the percentile would silence E1:
    `step_min_score` is then lowered until `min_fire_rate` of the searches get one.
    """
    queries = [(one.question_id, query) for one in asked for query in one.queries]
    queries = queries[:: max(1, -(-len(queries) // _MOST_QUERIES))]
    questions = list({one.question_id: one.question for one in asked}.items())
    found = {"percentile": percentile}
    for name, texts, levels in (("step_min_score", queries, ("e1",)), ("start_min_score", questions, ("e2", "e3"))):
        rows = [row for row, entry in enumerate(hek.entries) if entry.level in levels]
        sources = [hek.entries[row].questions for row in rows]
        if any(question not in own for question, _ in texts for own in sources):
            vectors_N_D = encoder.encode_queries([text for _, text in texts])
            found[name] = calibrate(vectors_N_D, [q for q, _ in texts], hek.vectors_E_D[rows], sources, percentile)
    best_N = _best_scores(hek, encoder, queries)
    if "step_min_score" in found and len(best_N):
        at_least = float(np.quantile(best_N, 1 - min_fire_rate, method="lower"))
        found["step_min_score"] = min(found["step_min_score"], math.floor(at_least * 1e4) / 1e4)
    return found, float((best_N >= found.get("step_min_score", -1.0)).mean()) if len(best_N) else 0.0


def _best_scores(hek: HEK, encoder: Encoder, queries: Sequence[tuple[str, str]]) -> np.ndarray:
    """Return for each query the cosine of the E1 it would get, own question left out; -2 where it would get none."""
    if not queries or not hek.levels["e1"]:
        return np.zeros(0)
    found = Retriever(hek, encoder).retrieve([query for _, query in queries], ["e1"], 1, None, [question for question, _ in queries])
    return np.array([hits[0].score if hits else -2.0 for hits in found])
