"""An encoder that dies, hangs or gives NaN: the look-up fails, is told once and counted, and everything else goes on."""

import asyncio
import logging
import threading
from dataclasses import replace

import numpy as np
import pytest

from hiexp_verl.config import Budgets, PromptConfig, ToolConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide import lookup as lookup_module
from hiexp_verl.guide.episode import Guidance
from hiexp_verl.guide.guide import MAX_FAILURES_IN_A_ROW, Guide
from hiexp_verl.guide.lookup import ExperienceRequest, Lookup, LookupFailed
from hiexp_verl.hek import Retriever
from hiexp_verl.models.encoder import HashEncoder, QueryVectors
from hiexp_verl.types import Source
from tests.support.factories import entry, hek_of

ENCODER = HashEncoder(32)
HEK = hek_of([entry("e1-a", title="capital"), entry("e2-a", "e2", title="capital")], ENCODER)


class Ailing:
    """A hash encoder that does as it is told by the text."""

    identity = ENCODER.identity

    def __init__(self):
        self.batches, self.released = [], threading.Event()
        self.says = {}  # text -> what it is taken for

    def encode_queries(self, texts):
        self.batches.append(list(texts))
        texts = [self.says.get(text, text) for text in texts]
        vectors = ENCODER.encode_queries(texts)
        for row, text in enumerate(texts):
            if text == "dies":
                raise RuntimeError("out of memory")
            if text == "hangs":
                self.released.wait(30)
            if text in ("nan", "inf"):
                vectors[row, 0] = float(text)
            if text == "nothing":
                vectors[row] = 0.0
        return vectors[:-1] if "short" in texts else vectors

    encode_passages = encode_queries


def ask(texts, timeout=60.0, encoder=None):
    """Look all texts up at once; return the hits, or the reason of the failure."""
    encoder = encoder or Ailing()

    async def ask_all():
        lookup = Lookup(Retriever(HEK, encoder), PromptConfig(), ToolConfig(min_score=-1.0), timeout=timeout)
        found = await asyncio.gather(*(lookup(ExperienceRequest("tool", text)) for text in texts), return_exceptions=True)
        encoder.released.set()
        return found

    found = asyncio.run(ask_all())
    assert all(isinstance(each, list | LookupFailed) for each in found), found
    return [each.reason if isinstance(each, LookupFailed) else [hit.entry.id for hit in each] for each in found]


@pytest.mark.parametrize("text", ["nan", "inf", "nothing"])
def test_a_vector_that_is_no_direction_fails_its_own_look_up_alone(text):
    assert ask(["good", text, "better"]) == [["e1-a"], "no direction in the vector", ["e1-a"]]


def test_a_text_that_the_encoder_cannot_digest_fails_its_own_look_up_alone():
    assert ask(["good", "dies", "better"]) == [["e1-a"], "encoder failed", ["e1-a"]]
    assert ask(["\ud800", "good"]) == ["encoder failed", ["e1-a"]]  # half a character, as a JSON escape can be


def test_too_few_vectors_are_a_failure():
    assert ask(["short"]) == ["encoder failed"]


def test_an_encoder_that_hangs_fails_its_batch_in_time():
    assert ask(["hangs", "beside"], timeout=0.2) == ["encoder hangs", "encoder hangs"]


def test_the_encoder_is_asked_once_for_each_text_and_never_keeps_a_nan():
    encoder = Ailing()
    vectors = QueryVectors(encoder, size=2)
    first = vectors.encode_queries(["a", "b", "a"])
    assert encoder.batches == [["a", "b"]]
    np.testing.assert_array_equal(first, ENCODER.encode_queries(["a", "b", "a"]))
    np.testing.assert_array_equal(vectors.encode_queries(["b", "c"]), ENCODER.encode_queries(["b", "c"]))
    assert encoder.batches[1:] == [["c"]]
    vectors.encode_queries(["a"])  # the least recently used of three, and there is room for two
    assert encoder.batches[2:] == [["a"]]
    vectors.encode_queries(["nan"])
    vectors.encode_queries(["nan"])
    assert encoder.batches[3:] == [["nan"], ["nan"]]


@pytest.mark.parametrize("ail", ["dies", "nan"])
def test_what_cannot_be_compared_with_the_questions_of_the_hek_is_shown_nothing_and_asked_again(ail):
    known, asked = "What is the capital of France?", "What is the capital city of France?"
    source = Source("q1#0", "q1", known, "m", "x", False, ())
    hek = replace(hek_of([entry("e1-own", questions=("q1",))], ENCODER), sources=(source,))
    encoder = Ailing()

    async def play():
        lookup = Lookup(Retriever(hek, encoder), PromptConfig(), ToolConfig(min_score=-1.0))
        request = ExperienceRequest("tool", "capital of France", "another-id", asked)
        encoder.says[asked] = ail
        first, beside = await asyncio.gather(lookup(request), lookup(ExperienceRequest("tool", "good")), return_exceptions=True)
        encoder.says[asked] = known
        return first, beside, await lookup(request)

    first, beside, second = asyncio.run(play())
    assert isinstance(first, LookupFailed) and first.reason == "encoder failed"
    assert [hit.entry.id for hit in beside] == ["e1-own"]
    assert second == [], "its own entry, under another id and in other words"


def test_a_rollout_goes_on_without_counts_warns_once_and_gives_up_after_a_row(caplog, monkeypatch):
    monkeypatch.setattr(lookup_module, "_warned", set())
    guide = Guide(Retriever(HEK, Ailing()), Guidance(Budgets(tool=ToolConfig(min_score=-1.0))))

    async def play():
        for _ in range(MAX_FAILURES_IN_A_ROW - 1):
            episode = await guide.abegin("?")
            assert await episode.tool("dies", "Documents.") == "Documents."
            assert (episode.shown, episode.lookup_failures) == ([], 1)
        assert "Search the country first." in await (await guide.abegin("?")).tool("good", "")
        for _ in range(MAX_FAILURES_IN_A_ROW - 1):
            episode = guide.begin("dies")
            assert episode.system([]) == []
            assert (episode.shown, episode.lookup_failures) == ([], 1)
        await (await guide.abegin("?")).tool("nan", "")

    with caplog.at_level(logging.WARNING), pytest.raises(HiExpError, match=r"20 look-ups .* in a row \(no direction .* NaN"):
        asyncio.run(play())
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1 and "RuntimeError: out of memory" in told[0]


def test_a_hek_with_nan_in_it_is_refused():
    vectors = HEK.vectors_E_D.copy()
    vectors[1, 0] = np.nan
    with pytest.raises(HiExpError, match="e2-a has the norm nan"):
        replace(HEK, vectors_E_D=vectors)
