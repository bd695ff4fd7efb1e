"""Interface of search engines, and their failure."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hiexp_verl.types import Passage

Ranking = list[tuple[Passage, float]]  # best first


class SearchEngine(Protocol):
    """Finds passages for queries. Safe to call from several threads."""

    def search(self, queries: Sequence[str], top_k: int) -> list[Ranking]:
        """Return at most `top_k` passages for each query, best first.

        Raises:
            SearchFailed: the search failed; the episode continues and the failure is counted.
        """
        ...


class SearchFailed(Exception):
    """A search that failed after all retries; `reason` is short and shown to the model.

    Not a `HiExpError`: one failed search must not end a run.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)  # both in args, for pickling
        self.reason = reason  # "time-out", "unreachable", "server error 503", "refused 404", "bad reply"
        self.detail = detail

    def __str__(self) -> str:
        return self.reason


def best_rows(scores_P: NDArray[np.float32], top_k: int) -> list[int]:
    """Return the rows of the `top_k` highest scores, best first; equal scores in the order of the corpus."""
    if top_k <= 0 or not len(scores_P):
        return []
    lowest = np.partition(scores_P, -top_k)[-top_k] if top_k < len(scores_P) else -np.inf
    candidates = np.flatnonzero(scores_P >= lowest)  # all ties with the last one, so that the corpus order decides
    return candidates[np.argsort(-scores_P[candidates], kind="stable")][:top_k].tolist()
