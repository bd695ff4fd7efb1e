"""Retrieval that fails in the middle of a run: a tool that hangs, an encoder that dies, a HEK that is swapped or gone."""

import asyncio
import shutil
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

pytestmark = pytest.mark.verl
pytest.importorskip("verl")

from hiexp_verl.config import HiExpConfig, SearchConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.lookup import ExperienceRequest
from hiexp_verl.hek.opening import open_hek, pinned
from hiexp_verl.hek.store import HEK, current_version
from hiexp_verl.plugin.agent_loop import HiExpAgentLoop
from hiexp_verl.plugin.retrieval import LocalRetrieval, retrieval_for
from hiexp_verl.plugin.reward import compute_score
from hiexp_verl.search import SearchFailed
from hiexp_verl.search.http import longest_answer
from tests.support.agent_episodes import TURNS, config_of, run
from tests.support.verl_fixtures import tiny_tokenizer, write_corpus, write_hek

STEP = ExperienceRequest("tool", "highest point of a country")


@pytest.fixture
def paths(tmp_path):
    retrieval_for.cache_clear()
    yield {"corpus": write_corpus(tmp_path / "corpus.jsonl"), "hek": write_hek(tmp_path / "hek"), "root": tmp_path}
    retrieval_for.cache_clear()


def settings_for(paths, **search):
    return HiExpConfig(hek=str(paths["hek"]), search=SearchConfig(**({"corpus": str(paths["corpus"])} | search)))


def hanging(monkeypatch, where, name):
    """Make a method never return while the test runs."""
    released = threading.Event()

    def hang(*_, **__):
        released.wait(30)
        return []

    monkeypatch.setattr(where, name, hang)
    return released


@pytest.mark.parametrize("engine", [{"engine": "bm25"}, {"engine": "dense", "encoder": "hash:64"}])
def test_a_search_that_hangs_fails_in_time_and_the_next_one_is_answered(paths, monkeypatch, engine):
    retrieval = LocalRetrieval(settings_for(paths, timeout=0.3, **engine))
    works = retrieval._engine.search
    released = hanging(monkeypatch, retrieval._engine, "search")

    async def ask():
        started = time.monotonic()
        with pytest.raises(SearchFailed, match="time-out"):
            await retrieval.search("capital of Afghanistan", 1)
        seconds = time.monotonic() - started
        monkeypatch.setattr(retrieval._engine, "search", works)
        found = await retrieval.search("capital of Afghanistan", 1)
        released.set()
        return seconds, found

    seconds, found = asyncio.run(ask())
    assert 0.3 <= seconds < 5 and len(found) == 1


def test_an_episode_goes_on_when_the_search_hangs(paths, monkeypatch):
    from hiexp_verl.search.bm25 import BM25Search

    released = hanging(monkeypatch, BM25Search, "search")
    config = config_of(paths, "search_tags", "hiexp.search.timeout=0.2")
    output, _ = run(HiExpAgentLoop, config, tiny_tokenizer(), TURNS["search_tags"])
    released.set()
    record = output.extra_fields["hiexp"]
    assert (record["searches"], record["failed_searches"], record["lookup_failures"]) == (2, 2, 0)
    assert {row["place"] for row in record["shown"]} == {"prompt"}  # what was looked up for a search that failed is not shown
    assert next(m["content"] for m in record["messages"] if m["role"] == "tool").count("time-out") == 1
    assert record["messages"][-1]["content"].startswith("<answer> Kabul")


def test_a_server_that_drips_its_reply_is_given_up_as_well(paths):
    class Dripping(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            with suppress(OSError):  # the client has gone
                for _ in range(100):  # each piece comes within the client's own time-out
                    self.wfile.write(b" ")
                    self.wfile.flush()
                    time.sleep(0.1)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Dripping)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/retrieve"
    retrieval = LocalRetrieval(HiExpConfig(enabled=False, search=SearchConfig(engine="http", url=url, timeout=0.5, retries=0)))

    async def ask():
        await retrieval.search("x", 1)

    started = time.monotonic()
    with pytest.raises(SearchFailed, match="time-out"):
        asyncio.run(ask())
    assert time.monotonic() - started < 4
    server.shutdown()


def test_a_search_over_http_is_given_the_time_of_its_retries():
    assert longest_answer(30.0, 0) == 30.0
    assert longest_answer(30.0, 3) == 4 * 30.0 + 1.5 * (0.5 + 1 + 2)
    assert longest_answer(1.0, 6) == 7 * 1.0 + 1.5 * (0.5 + 1 + 2 + 4 + 8 + 8)  # pauses grow to 8 s at most


def test_an_encoder_that_dies_is_counted_and_the_episode_goes_on(paths, monkeypatch):
    from hiexp_verl.models.encoder import HashEncoder

    def die(*_):
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(HashEncoder, "encode_queries", die)
    output, _ = run(HiExpAgentLoop, config_of(paths, "search_tags"), tiny_tokenizer(), TURNS["search_tags"])
    record = output.extra_fields["hiexp"]
    assert (record["lookups"], record["lookup_failures"], record["shown"]) == (3, 3, [])
    assert (record["searches"], record["failed_searches"]) == (2, 0)
    result = compute_score("", "", ["Kabul"], {"hiexp": record})
    assert (result["lookups"], result["lookup_failures"], result["score"]) == (3.0, 3.0, 1.0)


def swaps():
    """The ways in which a HEK can change under a running job."""

    def new_version(root):
        write_hek(root, "Name the country.")

    def rewrite(root):
        path = current_version(root) / "vectors.npy"
        np.save(path, -np.load(path))  # in place: not another file that takes its name

    def delete(root):
        shutil.rmtree(root)

    return [new_version, rewrite, delete]


@pytest.mark.parametrize("swap", swaps(), ids=lambda swap: swap.__name__)
def test_a_job_goes_on_with_the_hek_that_it_loaded(paths, swap):
    retrieval = LocalRetrieval(settings_for(paths))

    async def ask():
        return await retrieval.experience(STEP)

    before = asyncio.run(ask())
    swap(paths["hek"])
    again = ExperienceRequest("tool", "highest point of another country")  # not one whose answer could be remembered

    async def ask_again():
        return await asyncio.gather(retrieval.experience(STEP), retrieval.experience(again))

    same, other = asyncio.run(ask_again())
    assert same == before and [hit.entry.id for hit in before] == [hit.entry.id for hit in other] == ["e1-1"]


def test_pinned_settings_load_the_same_content_or_fail(paths):
    settings = pinned(settings_for(paths))
    first = HEK.load(paths["hek"])
    assert settings.hek_hash == first.header.content_hash and pinned(settings) == settings
    write_hek(paths["hek"], "Name the country.")
    assert HEK.load(paths["hek"]).header.content_hash != settings.hek_hash
    assert open_hek(settings).entries == first.entries  # CURRENT names another one by now
    shutil.rmtree(settings.hek)
    shutil.copytree(current_version(paths["hek"]), settings.hek)
    with pytest.raises(HiExpError, match=r"has the content hash .* the run wants"):
        open_hek(settings)
    shutil.rmtree(settings.hek)
    with pytest.raises(HiExpError, match="does not exist"):
        open_hek(settings)


def test_nothing_is_pinned_where_no_hek_is_used(paths):
    without = HiExpConfig(enabled=False, hek="nowhere")
    assert pinned(without) == without and open_hek(without) is None
