"""Search engines: queries in, passages out. BM25 and dense search in this process, or a Search-R1 retrieval server."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hiexp_verl.config import SearchConfig
from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.io.datasets import read_corpus
from hiexp_verl.models.encoder import Encoder
from hiexp_verl.types import Passage

logger = logging.getLogger(__name__)

ENGINE_ERROR = "search engine error"
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
        self.reason = reason  # "time-out", "unreachable", "server error 503", "refused 404", "bad reply", "search engine error"
        self.detail = detail

    @property
    def is_of_query(self) -> bool:
        """Return whether another query of the same request may still be answered."""
        return self.reason.startswith(("refused", ENGINE_ERROR))

    def __str__(self) -> str:
        return self.reason


def search_each(engine: SearchEngine, queries: Sequence[str], top_k: int) -> list["Ranking | SearchFailed"]:
    """Return for each query its ranking, or why it failed: whatever an engine raises is the failed search of the query at fault."""
    try:
        return list(engine.search(queries, top_k))
    except SearchFailed as error:
        failure = error
    except HiExpError:  # a setting that is wrong for every query
        raise
    except Exception as error:  # an engine of whatever kind must not end the episodes of others
        logger.exception("the search engine raised")
        failure = SearchFailed(ENGINE_ERROR, first_line(error))
    if len(queries) == 1 or not failure.is_of_query:
        return [failure] * len(queries)
    return [each for query in queries for each in search_each(engine, [query], top_k)]


def digest_of_passages(passages: Sequence[Passage], *kind: str) -> str:
    """Return a hash of titles and texts, and of the kind of index that is kept under it."""
    digest = hashlib.sha256("\0".join((*kind, "")).encode())
    for passage in passages:
        digest.update(f"{passage.title}\n{passage.text}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def best_rows(scores_P: NDArray[np.float32], top_k: int) -> list[int]:
    """Return the rows of the `top_k` highest scores, best first; equal scores in the order of the corpus."""
    if top_k <= 0 or not len(scores_P):
        return []
    lowest = np.partition(scores_P, -top_k)[-top_k] if top_k < len(scores_P) else -np.inf
    candidates = np.flatnonzero(scores_P >= lowest)  # all ties with the last one, so that the corpus order decides
    return candidates[np.argsort(-scores_P[candidates], kind="stable")][:top_k].tolist()


def open_engine(settings: SearchConfig, encoder: Encoder | None = None, cache: Path | None = None) -> SearchEngine:
    """Return the search engine of the settings; `encoder` and `cache` (of its vectors) are for `dense` only.

    Raises:
        HiExpError: a corpus, an address or an encoder is missing or malformed. An HTTP server is not contacted; see
            `HttpSearch.check`.
    """
    if settings.engine == "http":
        from hiexp_verl.search.http import HttpSearch

        if not settings.url:
            raise HiExpError("search over http has no address; set hiexp.search.url, for example http://127.0.0.1:8000/retrieve")
        return HttpSearch(settings.url, settings.timeout, settings.retries, settings.cache_size)
    if not settings.corpus:
        raise HiExpError(f"{settings.engine} search has no corpus; set hiexp.search.corpus to a JSONL file with id, title, text")
    if settings.engine == "dense":
        from hiexp_verl.search.dense import DenseSearch

        if encoder is None:
            raise HiExpError("dense search needs an encoder; set hiexp.search.encoder to a directory or a name")
        return DenseSearch(read_corpus(Path(settings.corpus)), encoder, cache)
    from hiexp_verl.search.bm25 import BM25Search

    return BM25Search(read_corpus(Path(settings.corpus)), cache)
