"""Shared retrieval: concurrent queries are answered in batches, faults reach every caller."""

import asyncio

import pytest

pytestmark = pytest.mark.verl
pytest.importorskip("verl")

from hiexp_verl.config import HiExpConfig, SearchConfig  # noqa: E402
from hiexp_verl.plugin.retrieval import MAX_BATCH, ExperienceRequest, LocalRetrieval, MicroBatcher  # noqa: E402
from tests.verl_fixtures import write_corpus, write_hek  # noqa: E402


def test_concurrent_calls_share_batches_and_get_their_own_answers():
    sizes = []

    def double(items):
        sizes.append(len(items))
        return [2 * item for item in items]

    async def ask():
        batcher = MicroBatcher(double)
        return await asyncio.gather(*(batcher(i) for i in range(200)))

    assert asyncio.run(ask()) == [2 * i for i in range(200)]
    assert max(sizes) == MAX_BATCH and len(sizes) == 4  # 64 + 64 + 64 + 8


def test_a_fault_reaches_every_caller_and_the_next_batch_works():
    def fail_once(items):
        if "bad" in items:
            raise ValueError("no")
        return items

    async def ask():
        batcher = MicroBatcher(fail_once)
        first = await asyncio.gather(batcher("bad"), batcher("beside"), return_exceptions=True)
        return first, await batcher("good")

    first, second = asyncio.run(ask())
    assert [type(e) for e in first] == [ValueError, ValueError] and second == "good"


def test_search_and_experience_come_from_one_place(tmp_path):
    settings = HiExpConfig(hek=str(write_hek(tmp_path / "hek")), search=SearchConfig(corpus=str(write_corpus(tmp_path / "c.jsonl"))))

    async def ask():
        retrieval = LocalRetrieval(settings)
        passages = await retrieval.search("capital of Afghanistan", 1)
        step = await retrieval.experience(ExperienceRequest("step", "highest point of a country"))
        hidden = await retrieval.experience(ExperienceRequest("step", "highest point of a country", "train-1"))
        start = await retrieval.experience(ExperienceRequest("start", "questions in two steps"))
        return passages, step, hidden, start

    passages, step, hidden, start = asyncio.run(ask())
    assert [p.title for p in passages] == ["Kabul"]
    assert [h.entry.id for h in step] == ["e1-1"] and hidden == []
    assert {h.entry.level for h in start} == {"e2", "e3"}


def test_the_step_threshold_is_the_one_the_hek_was_calibrated_to(tmp_path):
    settings = HiExpConfig(hek=str(write_hek(tmp_path / "hek")), search=SearchConfig(corpus=str(write_corpus(tmp_path / "c.jsonl"))))
    assert LocalRetrieval(settings)._min_score["step"] == 0.05
