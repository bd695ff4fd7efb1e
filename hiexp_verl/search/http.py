"""Client of a Search-R1 retrieval server (pooled connections, time-outs, retries, cache), and the wire format.

Request: ``{"queries": [...], "topk": k, "return_scores": true}``.
Reply: ``{"result": [[{"document": {"contents": "\"Title\"\ntext"}, "score": x}, ...], ...]}``, one list per query. A document may
instead have "title" and "text", or be a plain text; without scores the server sends the document itself. A document that cannot be
read is left out and counted.
"""

import json
import logging
import random
import time
from collections.abc import Sequence
from reprlib import repr as brief
from threading import Lock
from typing import Any

from cachetools import LRUCache
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.io.datasets import passage_of
from hiexp_verl.io.rows import BadRow, as_number
from hiexp_verl.models.http import may_pass
from hiexp_verl.search import Ranking, SearchFailed
from hiexp_verl.text import check_address, printable, without_credentials
from hiexp_verl.types import Passage

logger = logging.getLogger(__name__)

MAX_BACKOFF_SECONDS = 8.0
FIRST_BACKOFF_SECONDS = 0.5
MAX_REPLY_BYTES = 64 << 20
OPEN_AFTER, OPEN_SECONDS = 3, 30.0  # calls without an answer in a row, and for how long no further one is made


def longest_answer(timeout: float, retries: int) -> float:
    """Return the seconds that a search may take with all its retries."""
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

        self._url = _full_url(url)
        self.url = without_credentials(self._url)  # as it is shown
        # No proxy of the environment: it is for downloads and does not reach a server inside the cluster.
        self._client = httpx.Client(timeout=timeout, trust_env=False, limits=httpx.Limits(max_connections=64))
        self._retrying = Retrying(
            stop=stop_after_attempt(retries + 1), wait=_pause, retry=retry_if_exception(_may_pass), after=self._log, reraise=True
        )
        self._cache: LRUCache[tuple[str, int], Ranking] = LRUCache(cache_size)
        self._lock = Lock()
        self._timeout = timeout
        self._unanswered = 0  # calls in a row
        self._closed_until = 0.0  # of `time.monotonic`
        self.left_out = 0  # documents that could not be read

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
            self._ask(["test"], 3)  # one of them may be broken
        except SearchFailed as error:
            raise HiExpError(
                f"the search server {self.url} does not answer ({error.reason}: {error.detail}); start it or correct {setting}"
            ) from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, queries: list[str], top_k: int) -> list[Ranking]:
        """Ask with retries; a server that did not answer several calls in a row is left alone for a while (a circuit breaker)."""
        if time.monotonic() < self._closed_until:
            raise SearchFailed("unreachable", f"no answer to the last {self._unanswered} calls; asked again in a while")
        try:
            found = self._retrying.copy()(self._ask_once, queries, top_k)
        except SearchFailed as error:
            if not error.is_of_query:
                self._unanswered += 1
                if self._unanswered >= OPEN_AFTER:
                    self._closed_until = time.monotonic() + OPEN_SECONDS
                    logger.error("%s did not answer %d calls in a row; searches fail for %g s", self.url, self._unanswered, OPEN_SECONDS)
            raise
        self._unanswered = 0
        return found

    def _log(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, SearchFailed):
            logger.warning("search at %s: %s (%s), attempt %d", self.url, error.reason, error.detail, state.attempt_number)

    def _ask_once(self, queries: list[str], top_k: int) -> list[Ranking]:
        import httpx

        try:
            status, content = self._post({"queries": queries, "topk": top_k, "return_scores": True})
        except httpx.TimeoutException as error:
            raise SearchFailed("time-out", repr(error)) from error
        except httpx.DecodingError as error:
            raise SearchFailed("bad reply", first_line(error)) from error
        except httpx.RequestError as error:
            raise SearchFailed("unreachable", repr(error)) from error
        reply = content[:200].decode("utf-8", "replace")
        if may_pass(status):
            raise SearchFailed(f"server error {status}", reply)
        if status != 200:
            raise SearchFailed(f"refused {status}", reply)
        try:
            found, left_out = read_reply(json.loads(content), len(queries), top_k)
        except (ValueError, RecursionError) as error:
            raise SearchFailed("bad reply", str(error)[:200]) from error
        if left_out:
            self.left_out += left_out
            logger.warning("%s sent %d documents that cannot be read (%d so far); they are left out", self.url, left_out, self.left_out)
        return found

    def _post(self, body: dict[str, Any]) -> tuple[int, bytes]:
        """Return status and content; a reply takes no longer than the time-out as a whole, and no more than `MAX_REPLY_BYTES`."""
        import httpx

        content, end = bytearray(), time.monotonic() + self._timeout
        with self._client.stream("POST", self._url, json=body) as response:
            # An encoding of an encoding makes gigabytes of a kilobyte before the first piece arrives here.
            if (encodings := response.headers.get("content-encoding", "")).count(","):
                raise SearchFailed("bad reply", f"encoded more than once ({encodings[:80]})")
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > MAX_REPLY_BYTES:
                    raise SearchFailed("bad reply", f"more than {MAX_REPLY_BYTES >> 20} MiB")
                if time.monotonic() > end:
                    raise httpx.ReadTimeout(f"the reply was not whole after {self._timeout:g} s")
            return response.status_code, bytes(content)


def _pause(state: RetryCallState) -> float:
    return min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** (state.attempt_number - 1)) * (0.5 + random.random())


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, SearchFailed) and not error.reason.startswith("refused")


def _full_url(url: str) -> str:
    import httpx

    check_address(url, "http://127.0.0.1:8000/retrieve")
    parsed = httpx.URL(url)
    return str(parsed.copy_with(path="/retrieve") if parsed.path in ("", "/") else parsed)


def write_reply(rankings: Sequence[Ranking]) -> dict[str, Any]:
    """Return the body of a reply; documents have both formats, for every client."""
    return {"result": [[{"document": _document(passage), "score": score} for passage, score in ranking] for ranking in rankings]}


def read_reply(body: object, queries: int, top_k: int) -> tuple[list[Ranking], int]:
    """Return the rankings of a reply, and the number of documents in it that cannot be read.

    Raises:
        ValueError: it is malformed, does not have one list per query, or no document in it can be read.
    """
    result = body.get("result") if isinstance(body, dict) else None
    if not isinstance(result, list) or len(result) != queries or not all(isinstance(items, list) for items in result):
        raise ValueError(f"expected 'result' with {queries} lists; the server says: {_words(body)}")
    rankings, faults = [], list[str]()
    for items in result:
        rankings.append(ranking := list[tuple[Passage, float]]())
        for item in items:
            if len(ranking) == top_k:
                break
            try:
                ranking.append(_read_item(item))
            except (ValueError, BadRow) as error:
                faults.append(str(error))
    if faults and not any(rankings):
        raise ValueError(faults[0])
    return rankings, len(faults)


def _words(body: object) -> str:
    """Return what a server says instead of results, bounded: its words for a fault, else the reply as it is."""
    held = next((body[key] for key in ("error", "detail", "message") if body.get(key)), body) if isinstance(body, dict) else body
    held = held.get("message", held) if isinstance(held, dict) else held
    return printable(held if isinstance(held, str) else json.dumps(held, ensure_ascii=False))[:120]


def _document(passage: Passage) -> dict[str, str]:
    contents = f'"{passage.title}"\n{passage.text}'
    return {"id": passage.id, "contents": contents, "title": passage.title, "text": passage.text}


def _number_in(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _read_item(item: object) -> tuple[Passage, float]:
    document, score = (item.get("document", item), item.get("score")) if isinstance(item, dict) else (item, None)
    if isinstance(document, str):
        document = {"contents": document}
    if not isinstance(document, dict):
        raise ValueError(f"expected a document, found {type(document).__name__}")
    number = 0.0 if score is None else as_number(_number_in(score) if isinstance(score, str) else score)
    if number is None:
        raise ValueError(f"the score of a document must be a finite number, found {brief(score)}")
    return passage_of(document), number
