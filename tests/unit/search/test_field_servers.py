"""The client takes what retrieval servers of the field send, and leaves a server alone that does not answer."""

import gzip
import json
import logging
import time

import httpx
import pytest

from hiexp_verl.search import SearchFailed, search_each
from hiexp_verl.search import http as http_search
from hiexp_verl.search.bm25 import BM25Search
from hiexp_verl.search.http import HttpSearch, read_reply
from hiexp_verl.types import Passage
from tests.support.search_server import search_server, server_that

KABUL = {"document": {"id": "7", "contents": '"Kabul"\nThe capital.'}, "score": 1.5}
PASSAGE = Passage("7", "Kabul", "The capital.")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(http_search, "FIRST_BACKOFF_SECONDS", 0.01)


def client(url, **options):
    return HttpSearch(url, **{"timeout": 2.0, "retries": 0} | options)


@pytest.mark.parametrize(
    ("item", "title", "score"),
    [
        (KABUL, "Kabul", 1.5),
        (KABUL["document"], "Kabul", 0.0),
        ({**KABUL, "score": None}, "Kabul", 0.0),
        ({**KABUL, "score": "0.5"}, "Kabul", 0.5),
        ({"document": '"Kabul"\nThe capital.', "score": 2}, "Kabul", 2.0),
        ('"Kabul"\nThe capital.', "Kabul", 0.0),
        ({"document": {"content": '"Kabul"\nThe capital.'}, "score": 2}, "Kabul", 2.0),
        ({"document": {"title": "Kabul", "text": "The capital."}}, "Kabul", 0.0),
    ],
)
def test_documents_of_every_server_are_read(item, title, score):
    [[(passage, found)]], left_out = read_reply({"result": [[item]]}, 1, 3)
    assert (passage.title, passage.text, found, left_out) == (title, "The capital.", score, 0)


@pytest.mark.parametrize(
    "broken", [None, 7, {"document": {}}, {**KABUL, "score": "high"}, {**KABUL, "score": float("nan")}, {**KABUL, "score": 10**400}]
)
def test_a_broken_document_is_left_out_and_counted(broken, caplog):
    assert read_reply({"result": [[broken, KABUL]]}, 1, 3) == ([[(PASSAGE, 1.5)]], 1)
    with pytest.raises(ValueError, match=r"document|field|number"):
        read_reply({"result": [[broken]]}, 1, 3)
    with server_that(lambda n: (200, {"result": [[broken, KABUL]]})) as (url, _):
        search = client(url)
        assert search.search(["q"], 3) == [[(PASSAGE, 1.5)]] and search.left_out == 1
        search.check("hiexp.search.url")
    assert "sent 1 documents that cannot be read (1 so far)" in caplog.text
    assert read_reply({"result": [[broken, KABUL, KABUL]]}, 1, 1) == ([[(PASSAGE, 1.5)]], 1)


def test_a_score_beyond_every_float_is_the_failed_search_of_its_query():
    with server_that(lambda n: (200, {"result": [[{**KABUL, "score": 10**400}]]})) as (url, _):
        [found] = search_each(client(url), ["a"], 3)
    assert isinstance(found, SearchFailed) and found.reason == "bad reply" and "must be a finite number, found 1000" in found.detail


@pytest.mark.parametrize(
    "reply",
    [
        {"error": {"message": "no index"}},
        {"errors": ["no index"]},
        {"result": "no index"},
        {"ok": False, "reason": "no index"},
        ["no index"],
    ],
)
def test_the_words_of_a_server_are_shown_wherever_they_stand(reply):
    with pytest.raises(ValueError, match=r"expected 'result' with 1 lists; the server says: .*no index"):
        read_reply(reply, 1, 3)


def test_the_words_of_a_server_that_is_not_ready_are_shown():
    with server_that(lambda n: (200, {"error": "index not loaded"})) as (url, _), pytest.raises(SearchFailed) as error:
        client(url).search(["q"], 3)
    assert error.value.reason == "bad reply" and "the server says: index not loaded" in error.value.detail


def test_a_reply_that_is_no_gzip_or_too_large_is_a_failed_search(monkeypatch):
    with server_that(lambda n: (200, b"plain"), **{"Content-Encoding": "gzip"}) as (url, _), pytest.raises(SearchFailed, match="bad reply"):
        client(url).search(["q"], 3)
    packed = gzip.compress(json.dumps({"result": [[KABUL]]}).encode() + b" " * 100_000)
    with server_that(lambda n: (200, packed), **{"Content-Encoding": "gzip"}) as (url, _):
        assert client(url).search(["q"], 3) == [[(PASSAGE, 1.5)]]
        monkeypatch.setattr(http_search, "MAX_REPLY_BYTES", 50_000)
        with pytest.raises(SearchFailed, match="bad reply"):
            client(url).search(["q"], 3)


def test_a_reply_that_is_encoded_twice_is_not_unpacked():
    content = gzip.compress(gzip.compress(b"0" * (1 << 24)))
    with server_that(lambda _: (200, content), **{"Content-Encoding": "gzip, gzip"}) as (url, _), pytest.raises(SearchFailed) as error:
        client(url).search(["a"], 1)
    assert (error.value.reason, error.value.detail) == ("bad reply", "encoded more than once (gzip, gzip)")


def test_a_reply_in_drops_ends_with_the_time_out():
    def drops(n):
        return 200, b"x" * 10

    class Drops(httpx.SyncByteStream):
        def __iter__(self):
            for _ in range(50):
                time.sleep(0.02)
                yield b" "

    search = client("http://127.0.0.1:1", timeout=0.1)
    search._client = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(drops(1)[0], stream=Drops())))
    begun = time.monotonic()
    with pytest.raises(SearchFailed, match="time-out"):
        search.search(["q"], 3)
    assert time.monotonic() - begun < 0.5


def test_a_server_that_does_not_answer_is_left_alone_for_a_while(monkeypatch, caplog):
    monkeypatch.setattr(http_search, "OPEN_SECONDS", 0.3)
    answers = {"now": (503, b"busy")}
    with server_that(lambda n: answers["now"]) as (url, calls):
        search = client(url, cache_size=0)
        for _ in range(10):
            with pytest.raises(SearchFailed):
                search.search(["q"], 3)
        assert len(calls) == http_search.OPEN_AFTER
        assert [r.levelno for r in caplog.records if "in a row" in r.message] == [logging.ERROR]
        answers["now"] = (200, {"result": [[KABUL]]})
        with pytest.raises(SearchFailed, match="unreachable"):
            search.search(["q"], 3)
        time.sleep(0.35)
        assert search.search(["q"], 3) == [[(PASSAGE, 1.5)]] == search.search(["q"], 3)


@pytest.mark.parametrize(("status", "requests"), [(503, 1), (404, 1 + 2 + 2)])
def test_only_a_refused_batch_is_asked_again_query_by_query(status, requests):
    with server_that(lambda n: (status, b"no")) as (url, calls):
        found = search_each(client(url), ["a", "b", "c", "d"], 3)
    assert len(found) == 4 and all(isinstance(each, SearchFailed) for each in found)
    assert len(calls) == (1 if status == 503 else 1 + 4)


def test_what_an_engine_raises_is_the_failed_search_of_that_query():
    class Engine(BM25Search):
        def search(self, queries, top_k):
            if "bad" in queries:
                raise UnicodeEncodeError("utf-8", "\ud83d", 0, 1, "surrogates not allowed")
            return super().search(queries, top_k)

    good, bad, other = search_each(Engine([PASSAGE]), ["kabul", "bad", "capital"], 1)
    assert isinstance(bad, SearchFailed) and bad.reason == "search engine error"
    assert [[p for p, _ in each] for each in (good, other) if not isinstance(each, SearchFailed)] == [[PASSAGE], [PASSAGE]]


def test_the_server_bounds_what_a_request_asks_for():
    with search_server(BM25Search([PASSAGE])) as url:
        response = httpx.post(f"{url}/retrieve", json={"queries": ["kabul"] * 6, "topk": 1000})
        assert response.status_code == 413 and "6 queries x topk 1000 are more than 5000 passages" in response.json()["error"]
        assert httpx.post(f"{url}/retrieve", json={"queries": ["kabul"] * 5, "topk": 1000}).status_code == 200
