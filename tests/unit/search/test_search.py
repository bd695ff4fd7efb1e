"""Engines find what they should; the client survives what servers do."""

import json
import pickle
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl.config import SearchConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.search import SearchFailed, best_rows, open_engine
from hiexp_verl.search.bm25 import BM25Search
from hiexp_verl.search.dense import DenseSearch
from hiexp_verl.search.http import HttpSearch, read_reply
from hiexp_verl.search.server import MAX_BODY_BYTES, listen
from hiexp_verl.types import Passage
from tests.support.search_server import search_server, server_that

PASSAGES = [
    Passage("1", "Noshaq", "Noshaq is the highest point of Afghanistan."),
    Passage("2", "Kabul", "Kabul is the capital of Afghanistan."),
    Passage("3", "Yamoussoukro", "Yamoussoukro is the capital of Côte d'Ivoire."),
    Passage("4", "Malcolm X", "An American revolutionary."),
]
GOOD = {"result": [[{"document": {"id": "7", "contents": '"Kabul"\nThe capital.'}, "score": 1.5}]]}


def ids(ranking):
    return [passage.id for passage, _ in ranking]


def test_bm25_finds_by_title_and_text_and_folds_accents():
    engine = BM25Search(PASSAGES)
    kabul, ivory, letter = engine.search(["capital of Afghanistan", "cote d'ivoire CAPITAL", "Malcolm X"], 2)
    assert ids(kabul)[0] == "2"
    assert ids(ivory)[0] == "3"
    assert ids(letter) == ["4"]  # nothing else shares a word
    assert kabul[0][1] > kabul[1][1] > 0


@pytest.mark.parametrize("query", ["", "the of is", "zzz", "?!", "x" * 10_000, "\ud800"])
def test_bm25_returns_nothing_for_queries_without_a_known_word(query):
    assert BM25Search(PASSAGES).search([query], 3) == [[]]


def test_bm25_handles_more_than_there_is_and_no_queries():
    engine = BM25Search(PASSAGES[:1])
    assert ids(engine.search(["noshaq"], 50)[0]) == ["1"]
    assert engine.search([], 3) == []


def test_a_corpus_without_words_is_refused():
    with pytest.raises(HiExpError, match="no words"):
        BM25Search([Passage("1", "", "...")])


@given(st.lists(st.integers(0, 4), max_size=30), st.integers(0, 10))
def test_best_rows_is_a_stable_sort(values, top_k):
    expected = sorted(range(len(values)), key=lambda row: -values[row])[:top_k]
    assert best_rows(np.array(values, dtype=np.float32), top_k) == expected


def test_dense_search_finds_near_text_and_keeps_its_vectors(tmp_path):
    class Counting(HashEncoder):
        passages = 0

        def encode_passages(self, texts):
            self.passages += len(texts)
            return super().encode_passages(texts)

    encoder = Counting()
    first = DenseSearch(PASSAGES, encoder, tmp_path)
    assert ids(first.search(["the capital of Afghanistan is Kabul"], 1)[0]) == ["2"]
    assert first.search([], 1) == []
    assert DenseSearch(PASSAGES, encoder, tmp_path).search(["Kabul"], 2) == first.search(["Kabul"], 2)
    assert encoder.passages == 4
    first.cache_file.write_bytes(b"garbage")
    assert ids(DenseSearch(PASSAGES, encoder, tmp_path).search(["Kabul"], 1)[0]) == ["2"]
    assert encoder.passages == 8
    DenseSearch(PASSAGES[:3], encoder, tmp_path)  # another corpus, other vectors
    assert encoder.passages == 11


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr("hiexp_verl.search.http.FIRST_BACKOFF_SECONDS", 0.01)


def client(url, **options):
    return HttpSearch(url, **{"timeout": 2.0, "retries": 2} | options)


def test_the_client_speaks_the_search_r1_format():
    with server_that(lambda n: (200, GOOD)) as (url, calls):
        assert client(url).search(["q"], 3) == [[(Passage("7", "Kabul", "The capital."), 1.5)]]
    assert calls == [{"queries": ["q"], "topk": 3, "return_scores": True}]


def test_the_client_retries_server_errors_and_garbage():
    answers = {1: (500, b"oops"), 2: (200, b"<html>"), 3: (200, GOOD)}
    with server_that(lambda n: answers[n]) as (url, calls):
        assert ids(client(url).search(["q"], 3)[0]) == ["7"]
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("answer", "reason", "requests"),
    [
        ((503, b"busy"), "server error 503", 3),
        ((429, b"slow down"), "server error 429", 3),
        ((404, b"no"), "refused 404", 1),  # asking again does not help
        ((200, b"not json"), "bad reply", 3),
        ((200, b"[" * 50_000), "bad reply", 3),
        ((200, {"result": []}), "bad reply", 3),
        ((200, {"result": [[{"document": {}}]]}), "bad reply", 3),
        ((200, {"result": [[{"document": {"text": "t"}, "score": "high"}]]}), "bad reply", 3),
    ],
)
def test_the_client_says_why_it_gave_up(answer, reason, requests):
    with server_that(lambda n: answer) as (url, calls), pytest.raises(SearchFailed) as error:
        client(url).search(["q"], 3)
    assert error.value.reason == str(error.value) == reason
    assert len(calls) == requests


def test_a_slow_server_is_a_time_out():
    def slow(n):
        time.sleep(0.4)
        return 200, GOOD

    with server_that(slow) as (url, _), pytest.raises(SearchFailed, match="time-out"):
        client(url, timeout=0.1, retries=0).search(["q"], 3)


def test_a_dead_port_is_unreachable_and_check_tells_the_user():
    with server_that(lambda n: (200, GOOD)) as (url, _):
        client(url).check("--corpus")
    with pytest.raises(SearchFailed, match="unreachable"):
        client(url).search(["q"], 3)
    with pytest.raises(HiExpError, match=r"does not answer \(unreachable.*correct --corpus"):
        client(url).check("--corpus")


def test_the_cache_answers_repeats_and_forgets_the_oldest():
    def answer(n):
        return 200, {"result": [GOOD["result"][0]] * len(calls[-1]["queries"])}

    with server_that(answer) as (url, calls):
        search = client(url, cache_size=2)
        search.search(["a", "b", "a"], 3)
        assert calls[-1]["queries"] == ["a", "b"]
        search.search(["a"], 3)
        assert len(calls) == 1
        search.search(["c"], 3)  # pushes out b, which was used less recently than a
        search.search(["a"], 3)
        assert len(calls) == 2
        search.search(["b"], 3)
        assert len(calls) == 3
        search.search(["b"], 5)  # another depth is another question
        assert len(calls) == 4


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/y", "http://", "", "http://127.0.0.1:port"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(HiExpError, match="address"):
        HttpSearch(url)


def test_a_failure_survives_pickling():
    error = pickle.loads(pickle.dumps(SearchFailed("time-out", "detail")))
    assert (error.reason, error.detail) == ("time-out", "detail")


def test_the_server_serves_an_engine_to_the_client():
    with search_server(BM25Search(PASSAGES)) as url:
        search = client(url)
        queries = ["capital of Afghanistan", "noshaq"]
        found, expected = search.search(queries, 2), BM25Search(PASSAGES).search(queries, 2)
        assert [ids(ranking) for ranking in found] == [ids(ranking) for ranking in expected]
        assert found[0][0][0] == PASSAGES[1]
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
        assert len(httpx.post(f"{url}/retrieve", content=b'{"queries": ["capital"], "topk": 0}').json()["result"][0]) == 2  # at most 3
        with pytest.raises(HiExpError, match="cannot listen"):
            listen("127.0.0.1", httpx.URL(url).port)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")


@pytest.fixture(scope="module")
def server_url():
    with search_server(BM25Search(PASSAGES)) as url:
        yield url


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"{}",
        b'{"queries": "q"}',
        b'{"queries": [1]}',
        b'{"queries": ["q"], "topk": -1}',
        b'{"queries": ["q"], "topk": 1001}',
        b'{"queries": ["q"], "topk": "3"}',
        b"[" * 50_000,
    ],
)
def test_the_server_refuses_malformed_requests(server_url, body):
    response = httpx.post(f"{server_url}/retrieve", content=body)
    assert response.status_code == 400
    assert "error" in response.json()


def test_the_server_bounds_the_body_and_names_unknown_paths(server_url):
    with httpx.Client(base_url=server_url) as connection:
        for sent, status in [(("/retrieve", b" " * (MAX_BODY_BYTES + 1)), 413), (("/elsewhere", b"{}"), 404), (("/health", b""), 405)]:
            response = connection.post(sent[0], content=sent[1])
            assert response.status_code == status
            assert list(response.json()) == ["error"]
        assert connection.post("/retrieve", content=b'{"queries": []}').json() == {"result": []}  # the connection is still good


def test_a_search_that_fails_is_a_503_and_other_clients_are_served():
    class Failing:
        def search(self, queries, top_k):
            if queries == ["slow"]:
                slow.set()
                released.wait(5)
            raise SearchFailed("time-out", "detail")

    slow, released = threading.Event(), threading.Event()
    with search_server(Failing()) as url, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(httpx.post, f"{url}/retrieve", json={"queries": ["slow"]})
        assert slow.wait(5)
        response = httpx.post(f"{url}/retrieve", json={"queries": ["q"]})
        released.set()
        assert (response.status_code, response.json()) == (503, {"error": "time-out"})
        assert waiting.result().status_code == 503


def test_a_client_that_leaves_is_not_an_error_of_the_server(server_url, caplog):
    with socket.create_connection(("127.0.0.1", httpx.URL(server_url).port)) as connection:
        connection.sendall(b"POST /retrieve HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert httpx.get(f"{server_url}/health").status_code == 200
    assert not caplog.records


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["result", "document", "text", "contents", "score"]), inner)
    ),
    max_leaves=12,
)


@given(json_values)
def test_reading_a_reply_raises_nothing_but_what_is_wrong_with_it(body):
    try:
        rankings, left_out = read_reply(body, 1, 3)
    except ValueError:
        return
    assert left_out >= 0
    assert all(isinstance(passage, Passage) and isinstance(score, float) for ranking in rankings for passage, score in ranking)


def test_open_engine_says_what_is_missing(tmp_path):
    for settings, message in [
        (SearchConfig(), "hiexp.search.corpus"),
        (SearchConfig(engine="http"), "hiexp.search.url"),
        (SearchConfig(engine="dense", corpus="c"), "hiexp.search.encoder"),
        (SearchConfig(corpus=str(tmp_path / "none.jsonl")), "does not exist"),
    ]:
        with pytest.raises(HiExpError, match=message):
            open_engine(settings)
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"id": p.id, "title": p.title, "text": p.text}) + "\n" for p in PASSAGES))
    for engine in ("bm25", "dense"):
        opened = open_engine(SearchConfig(engine=engine, corpus=str(corpus)), HashEncoder(), tmp_path)
        assert ids(opened.search(["Kabul capital Afghanistan"], 1)[0]) == ["2"]


def test_the_index_of_a_large_corpus_is_kept_shared_and_made_again_when_it_is_damaged(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("hiexp_verl.search.bm25.KEPT_FROM", 4)
    first = BM25Search(PASSAGES, tmp_path)
    (kept,) = tmp_path.iterdir()
    monkeypatch.setattr(BM25Search, "_build", lambda self, kept: pytest.fail("indexed again"))
    found = BM25Search(PASSAGES, tmp_path).search(["capital of Afghanistan", "Malcolm X", "zzz"], 2)
    assert found == first.search(["capital of Afghanistan", "Malcolm X", "zzz"], 2)
    monkeypatch.undo()
    monkeypatch.setattr("hiexp_verl.search.bm25.KEPT_FROM", 4)
    (kept / "vocab.index.json").write_text("{")
    assert ids(BM25Search(PASSAGES, tmp_path).search(["Malcolm X"], 2)[0]) == ["4"] and "is damaged" in caplog.text
    BM25Search([*PASSAGES, Passage("5", "New", "one")], tmp_path)
    assert len(list(tmp_path.iterdir())) == 2  # another corpus, another index; nothing unfinished
