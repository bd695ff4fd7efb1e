"""Client of a Search-R1 retrieval server (pooled connections, time-outs, retries, cache), and the wire format.

Request: ``{"queries": [...], "topk": k, "return_scores": true}``.
Reply: ``{"result": [[{"document": {"contents": "\"Title\"\ntext"}, "score": x}, ...], ...]}``, one list per query. A document may
instead have "title" and "text"; without scores the server sends the document itself.
"""

import logging
import random
from collections.abc import Sequence
from threading import Lock
from typing import Any

from cachetools import LRUCache
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.datasets import passage_of
from hiexp_verl.io.rows import BadRow
from hiexp_verl.search import Ranking, SearchFailed
from hiexp_verl.types import Passage

logger = logging.getLogger(__name__)

MAX_BACKOFF_SECONDS = 8.0
FIRST_BACKOFF_SECONDS = 0.5


def longest_answer(timeout: float, retries: int) -> float:
    """Return the seconds that a search may take with all its retries.

    The client's time-out is for each piece of a reply, so a server that sends one byte at a time never exceeds it.
    """
    pauses = sum(min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2**attempt) * 1.5 for attempt in range(retries))
    return timeout * (retries + 1) + pauses


class HttpSearch:
    """Search by a retrieval server; one request for all queries that are not in the cache.

    Args:
        url: for example http://127.0.0.1:8000/retrieve (the path is added when there is none).
        timeout: seconds for one request.
        retries: further attempts after a time-out, a connection error, a 429, a 5xx or a reply that is not the wire format.
        cache_size: queries kept (least recently used go first); 0 turns the cache off.

    Raises:
        HiExpError: the address is malformed.
    """

    def __init__(self, url: str, timeout: float = 30.0, retries: int = 3, cache_size: int = 10_000) -> None:
        import httpx

        self.url = _full_url(url)
        # No proxy of the environment: it is for downloads and does not reach a server inside the cluster.
        self._client = httpx.Client(timeout=timeout, trust_env=False, limits=httpx.Limits(max_connections=64))
        self._retrying = Retrying(
            stop=stop_after_attempt(retries + 1), wait=_pause, retry=retry_if_exception(_may_pass), after=self._log, reraise=True
        )
        self._cache: LRUCache[tuple[str, int], Ranking] = LRUCache(cache_size)
        self._lock = Lock()

    def search(self, queries: Sequence[str], top_k: int) -> list[Ranking]:
        """Return the server's rankings, from the cache where possible.

        Raises:
            SearchFailed: no valid reply after all retries.
        """
        with self._lock:
            known = {query: self._cache.get((query, top_k)) for query in queries}
        missing = [query for query, ranking in known.items() if ranking is None]
        if missing:
            found = dict(zip(missing, self._ask(missing, top_k), strict=True))
            known |= found
            with self._lock:
                if self._cache.maxsize:
                    self._cache.update({(query, top_k): ranking for query, ranking in found.items()})
        return [list(known[query] or ()) for query in queries]

    def check(self, setting: str) -> None:
        """Send one test query; `setting` is the option that holds the address.

        Raises:
            HiExpError: the server cannot be reached or its reply is not in the wire format.
        """
        try:
            self._ask(["test"], 1)
        except SearchFailed as error:
            raise HiExpError(
                f"the search server {self.url} does not answer ({error.reason}: {error.detail}); start it or correct {setting}"
            ) from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, queries: list[str], top_k: int) -> list[Ranking]:
        return self._retrying.copy()(self._ask_once, queries, top_k)

    def _log(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, SearchFailed):
            logger.warning("search at %s: %s (%s), attempt %d", self.url, error.reason, error.detail, state.attempt_number)

    def _ask_once(self, queries: list[str], top_k: int) -> list[Ranking]:
        import httpx

        try:
            response = self._client.post(self.url, json={"queries": queries, "topk": top_k, "return_scores": True})
        except httpx.TimeoutException as error:
            raise SearchFailed("time-out", repr(error)) from error
        except httpx.TransportError as error:
            raise SearchFailed("unreachable", repr(error)) from error
        if response.status_code == 429 or response.status_code >= 500:
            raise SearchFailed(f"server error {response.status_code}", response.text[:200])
        if response.status_code != 200:
            raise SearchFailed(f"refused {response.status_code}", response.text[:200])
        try:
            return read_reply(response.json(), len(queries), top_k)
        except (ValueError, RecursionError, BadRow) as error:
            raise SearchFailed("bad reply", str(error)[:200]) from error


def _pause(state: RetryCallState) -> float:
    return min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** (state.attempt_number - 1)) * (0.5 + random.random())


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, SearchFailed) and not error.reason.startswith("refused")


def _full_url(url: str) -> str:
    import httpx

    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise HiExpError(f"{url!r} is not an address ({error}); write for example http://127.0.0.1:8000/retrieve") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise HiExpError(f"{url!r} is not an http address; write for example http://127.0.0.1:8000/retrieve")
    return str(parsed.copy_with(path="/retrieve") if parsed.path in ("", "/") else parsed)


def write_reply(rankings: Sequence[Ranking]) -> dict[str, Any]:
    """Return the body of a reply; documents have both formats, for every client."""
    return {"result": [[{"document": _document(passage), "score": score} for passage, score in ranking] for ranking in rankings]}


def read_reply(body: object, queries: int, top_k: int) -> list[Ranking]:
    """Return the rankings of a reply.

    Raises:
        ValueError: it is malformed or does not have one list per query.
        BadRow: a document has no text.
    """
    result = body.get("result") if isinstance(body, dict) else None
    if not isinstance(result, list) or len(result) != queries or not all(isinstance(items, list) for items in result):
        raise ValueError(f"expected 'result' with {queries} lists")
    return [[_read_item(item) for item in items[:top_k]] for items in result]


def _document(passage: Passage) -> dict[str, str]:
    contents = f'"{passage.title}"\n{passage.text}'
    return {"id": passage.id, "contents": contents, "title": passage.title, "text": passage.text}


def _read_item(item: object) -> tuple[Passage, float]:
    if not isinstance(item, dict):
        raise ValueError(f"expected a document, found {type(item).__name__}")
    document, score = item.get("document", item), item.get("score", 0.0)
    if not isinstance(document, dict) or isinstance(score, bool) or not isinstance(score, int | float):
        raise ValueError("expected {'document': {...}, 'score': number}")
    return passage_of(document), float(score)
