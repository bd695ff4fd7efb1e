"""Shared retrieval: concurrent queries are answered in batches, faults reach every caller."""

import asyncio
from dataclasses import replace

import pytest

pytestmark = pytest.mark.verl
pytest.importorskip("verl")

from hiexp_verl.config import EncoderConfig, HiExpConfig, PromptConfig, SearchConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.lookup import ExperienceRequest
from hiexp_verl.hek.opening import open_encoders, open_hek
from hiexp_verl.plugin import retrieval as retrieval_module
from hiexp_verl.plugin.retrieval import LocalRetrieval
from hiexp_verl.search import SearchFailed
from tests.support.verl_fixtures import write_corpus, write_hek


def test_search_and_experience_come_from_one_place(tmp_path):
    search = SearchConfig(corpus=str(write_corpus(tmp_path / "c.jsonl")))
    settings = HiExpConfig(hek=str(write_hek(tmp_path / "hek")), prompt=PromptConfig(top_k=2), search=search)

    async def ask():
        retrieval = LocalRetrieval(settings)
        passages = await retrieval.search("capital of Afghanistan", 1)
        step = await retrieval.experience(ExperienceRequest("tool", "highest point of a country"))
        hidden = await retrieval.experience(ExperienceRequest("tool", "highest point of a country", "train-1"))
        start = await retrieval.experience(ExperienceRequest("prompt", "questions in two steps"))
        return passages, step, hidden, start

    passages, step, hidden, start = asyncio.run(ask())
    assert [p.title for p in passages] == ["Kabul"]
    assert [h.entry.id for h in step] == ["e1-1"] and hidden == []
    assert {h.entry.level for h in start} == {"e2", "e3"}


def test_the_step_threshold_is_the_one_the_hek_was_calibrated_to(tmp_path):
    search = SearchConfig(corpus=str(write_corpus(tmp_path / "c.jsonl")))
    settings = HiExpConfig(hek=str(write_hek(tmp_path / "hek")), prompt=PromptConfig(top_k=2), search=search)
    assert LocalRetrieval(settings)._lookup.min_score["tool"] == 0.05


def test_dense_search_takes_the_same_encoder_with_and_without_experience(tmp_path):
    search = SearchConfig(engine="dense", encoder="hash:64", corpus=str(write_corpus(tmp_path / "c.jsonl")))
    with_hek = HiExpConfig(hek=str(write_hek(tmp_path / "hek")), search=search)
    without = HiExpConfig(enabled=False, search=search)
    identities = [open_encoders(settings, open_hek(settings))[1].identity for settings in (with_hek, without)]
    assert identities[0] == identities[1] and identities[0].dimensions == 64


def test_one_query_that_fails_does_not_fail_those_that_share_its_batch(tmp_path):
    class Picky:
        def search(self, queries, top_k):
            if "poison" in queries:
                raise SearchFailed("refused 400")
            return [[] for _ in queries]

    retrieval = LocalRetrieval(HiExpConfig(enabled=False, search=SearchConfig(corpus=str(write_corpus(tmp_path / "c.jsonl")))))
    retrieval._engine = Picky()

    async def ask():
        return await asyncio.gather(*(retrieval.search(q, 1) for q in ("a", "poison", "b")), return_exceptions=True)

    first, second, third = asyncio.run(ask())
    assert first == [] and third == [] and isinstance(second, SearchFailed)


def test_a_node_without_the_files_is_named_before_a_device_is_touched(tmp_path, monkeypatch):
    corpus = write_corpus(tmp_path / "c.jsonl")
    settings = HiExpConfig(enabled=False, search=SearchConfig(corpus=str(corpus)))
    ids = ["1" * 56, "2" * 56]
    nodes = [
        {"Alive": True, "NodeID": node, "NodeManagerAddress": f"10.0.0.{node[0]}", "NodeManagerHostname": f"n{node[0]}"} for node in ids
    ]
    here = dict.fromkeys(ids, True)

    class Remote:  # one call of `ray.remote(...).options(...).remote(...)`
        def __init__(self, function):
            self.function = function

        def options(self, num_cpus, scheduling_strategy):
            self.node = scheduling_strategy.node_id
            return self

        def remote(self, settings):
            if not here[self.node]:
                corpus.unlink()
            return self.function(settings)

    monkeypatch.setattr(retrieval_module.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(retrieval_module.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(retrieval_module.ray, "remote", Remote)
    monkeypatch.setattr(retrieval_module.ray, "get", list)
    retrieval_module.check_nodes(settings)
    named = replace(settings, enabled=True, encoder=EncoderConfig(path="no model"))  # a name that the hub refuses without a request
    with pytest.raises(HiExpError, match=r"the node 10.0.0.1 .n1. has no encoder no model \(.+\); put it there"):
        retrieval_module.check_nodes(named)
    retrieval_module.check_nodes(replace(named, encoder=EncoderConfig(path="hash:64")))
    local = replace(settings, search=SearchConfig(engine="http", url="http://127.1:9/retrieve"))
    with pytest.raises(HiExpError, match=r"is each node's own machine, and the cluster has 2 nodes"):
        retrieval_module.check_nodes(local)
    here[ids[1]] = False
    with pytest.raises(HiExpError, match=rf"the node 10.0.0.2 .n2. has no {corpus}; put it there"):
        retrieval_module.check_nodes(settings)
