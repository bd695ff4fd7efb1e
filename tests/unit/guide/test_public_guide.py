"""The public API: a guide opened from a directory, episodes of synchronous and asynchronous agents."""

import asyncio
import subprocess
import sys

import pytest

from hiexp_verl.config import Budgets, PromptConfig, ToolConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.episode import AsyncGuidedEpisode, Guidance, GuidedEpisode
from hiexp_verl.guide.guide import Guide
from hiexp_verl.guide.lookup import LookupFailed
from hiexp_verl.models.encoder import HashEncoder
from tests.support.derivations import BLOCKS, PARAGRAPHS, write_maths_hek
from tests.support.derivations import QUESTION as DERIVED
from tests.support.factories import entry, hek_of, hit

QUESTION = "What is the capital of France?"
MESSAGES = [{"role": "system", "content": "Answer."}, {"role": "user", "content": QUESTION}]


@pytest.fixture
def hek(tmp_path):
    entries = [
        entry("e1-own", title="capital of France", description="Own lesson.", questions=("q1",)),
        entry("e1-other", title="capital France", description="Other lesson.", questions=("q2",)),
        entry("e2-a", "e2", title="capital", description="Name the country first."),
        entry("e3-a", "e3", title="questions", description="Search before you answer."),
    ]
    hek_of(entries, HashEncoder(64)).save(tmp_path / "hek")
    return tmp_path / "hek"


def open_guide(hek, **options):
    return Guide.open(hek, encoder="hash:64", tool=ToolConfig(min_score=0.1), **options)


def test_a_synchronous_and_an_asynchronous_agent_are_shown_the_same(hek):
    guide = open_guide(hek)
    episode = guide.begin(QUESTION)
    messages = episode.system(MESSAGES)
    documents = [episode.tool("capital of France", "Documents."), episode.tool("capital of France", "Documents.")]

    async def play():
        other = await guide.abegin(QUESTION)
        return await other.system(MESSAGES), [await other.tool("capital of France", "Documents.") for _ in range(2)], other

    *same, other = asyncio.run(play())
    assert same == [messages, documents]
    assert other.shown == episode.shown and other.queries == episode.queries == ["capital of France"] * 2
    assert messages[0]["content"].endswith("questions:\n- Name the country first.\n</experience>")
    assert documents == [f"<experience>\n- {name} lesson.\n</experience>\nDocuments." for name in ("Own", "Other")]
    assert [(row["entry"], row.get("search")) for row in episode.shown[1:]] == [("e1-own", 1), ("e1-other", 2)]
    assert MESSAGES[0] == {"role": "system", "content": "Answer."}, "the caller's messages are not changed"


def test_a_synchronous_and_an_asynchronous_agent_are_shown_the_same_between_steps(tmp_path):
    tool = ToolConfig(min_score=-1.0, steps=2)
    guide = Guide.open(write_maths_hek(tmp_path / "hek"), encoder="hash:256", tool=tool)
    episode = guide.begin(DERIVED)

    async def play():
        other = await guide.abegin(DERIVED)
        return [await other.step(text) for text in PARAGRAPHS[:2]], other

    same, other = asyncio.run(play())
    assert same == [episode.step(text) for text in PARAGRAPHS[:2]] == BLOCKS
    assert other.shown == episode.shown and other.queries == episode.queries
    assert episode.queries[0] == "X has N clips and sells half of them. How many are left? Half of N is N."
    assert (episode.stops.left, episode.stops.stop, episode.record().searches) == (2, ["\n\n"], 2)


@pytest.mark.parametrize("arm", ["full", "none"])
def test_an_episode_is_begun_once(hek, arm):
    guide = open_guide(hek, arm=arm)
    episode = guide.begin(QUESTION)
    episode.system(MESSAGES)
    shown, lookups = list(episode.shown), episode.lookups

    async def play_twice():
        other = await guide.abegin(QUESTION)
        await other.system(MESSAGES)
        await other.system(MESSAGES)

    for again in (lambda: episode.system(MESSAGES), lambda: asyncio.run(play_twice())):
        with pytest.raises(HiExpError, match="was called before in this episode"):
            again()
    assert (episode.shown, episode.lookups) == (shown, lookups)


def test_one_guide_serves_episodes_side_by_side(hek):
    guide = open_guide(hek)

    async def play(query):
        episode = await guide.abegin(QUESTION)
        return await episode.tool(query, "")

    async def play_all():
        return await asyncio.gather(*(play("capital of France") for _ in range(50)))

    assert set(asyncio.run(play_all())) == {"<experience>\n- Own lesson.\n</experience>\n"}
    assert asyncio.run(play_all()), "a second event loop"


def test_a_question_of_the_hek_is_not_shown_its_own_entry(hek):
    assert "Other lesson." in open_guide(hek).begin(QUESTION, id="q1").tool("capital of France", "")


@pytest.mark.parametrize(("arm", "prompt", "tool"), [("none", False, False), ("prompt", True, False), ("tool", False, True)])
def test_an_arm_shows_what_it_names(hek, arm, prompt, tool):
    episode = open_guide(hek, arm=arm).begin(QUESTION)
    assert (episode.system(MESSAGES) != MESSAGES, episode.tool("capital of France", "") != "") == (prompt, tool)
    assert episode.lookups == prompt + tool


def test_tokens_are_counted_by_the_callers_tokenizer(hek):
    guide = open_guide(hek, prompt=PromptConfig(max_tokens=3), count_tokens=len)
    episode = guide.begin(QUESTION)
    assert episode.system(MESSAGES) == MESSAGES
    assert (episode.shown, episode.dropped) == ([], 1)


def test_a_folder_without_a_hek_is_refused(tmp_path):
    with pytest.raises(HiExpError, match="nothing"):
        Guide.open(tmp_path / "nothing")


def test_guiding_imports_neither_verl_nor_ray_nor_torch(hek):
    code = (
        "import sys; from hiexp_verl.guide.guide import Guide; "
        f"episode = Guide.open({str(hek)!r}, encoder='hash:64').begin('Who?'); episode.system([]); episode.tool('who', ''); "
        "sys.exit(', '.join({'verl', 'ray', 'torch', 'transformers'} & set(sys.modules)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


HITS = [hit("e1-a", 0.9), hit("e1-b", 0.8), hit("e1-c", 0.7)]


def shown_in_turn(*searches, budgets=None, **options):
    """Return the texts beside the documents of these searches, each with the hits of its look-up, and the episode."""
    looked_up = iter(searches)
    episode = GuidedEpisode(Guidance(budgets or Budgets(), **options), lambda _: next(looked_up), "Who?")
    return [episode.tool("query", "") for _ in searches], episode


def test_what_the_episode_has_read_gives_way_to_the_next_best():
    texts, episode = shown_in_turn(HITS, HITS)
    assert texts == [f"<experience>\n- Do {id}.\n</experience>\n" for id in ("e1-a", "e1-b")]
    assert episode.repeats == 1
    texts, episode = shown_in_turn(HITS[:1], HITS[:1])
    assert texts[1] == "" and episode.repeats == 1, "of the top 1, one was read before"
    _, episode = shown_in_turn(HITS[1:2], HITS)
    assert episode.repeats == 0, "it would not have been shown"
    same = [hit("e1-a", 0.9, description="Look."), hit("e1-b", 0.8, description="Look.")]
    texts, episode = shown_in_turn(same[:1], same)
    assert texts[1] == "" and episode.repeats == 1, "another entry with the same text"


def test_what_was_not_read_is_forgotten_and_what_failed_is_counted():
    def look_up(request):
        if request.beyond:
            raise LookupFailed("encoder failed")
        return HITS

    episode = GuidedEpisode(Guidance(), look_up, "Who?")
    episode.tool("one", "")
    episode.search_failed("two")
    assert episode.tool("three", "Documents.") == "Documents."
    assert (episode.queries, episode.failed_searches) == (["one", "two", "three"], 1)
    assert (episode.lookups, episode.lookup_failures) == (2, 1)
    assert len(episode.shown) == len(episode.blocks) == 1
    episode.forget_after(0)
    assert episode.shown == episode.blocks == []


def test_a_search_of_an_asynchronous_agent_is_looked_up_while_it_runs():
    asked = []

    async def look_up(request):
        asked.append(request)
        return HITS

    async def play():
        episode = AsyncGuidedEpisode(Guidance(), look_up, "Who?")
        first, second, broken = (episode.begin_search(query, parallel=3) for query in ("one", "two", None))
        await asyncio.sleep(0)
        assert [(request.text, request.beyond) for request in asked] == [("one", 2), ("two", 2)]
        first.ran("One")
        second.failed()
        broken.failed()
        assert await first.documents_with_experience("Documents.", max_tokens=2) == "Documents.", "there is no room"
        return episode

    episode = asyncio.run(play())
    assert (episode.queries, episode.failed_searches, episode.dropped) == (["One", "two", ""], 2, 1)


def test_a_prompt_that_has_less_room_gets_less():
    async def look_up(_):
        return [hit("e2-a", 0.9, "e2", "Name the country first."), hit("e2-b", 0.8, "e2", "Search before you answer.")]

    async def play(room):
        def excess(messages):
            return length(messages) - room

        episode = AsyncGuidedEpisode(Guidance(count_tokens=len), look_up, QUESTION)
        return await episode.system(MESSAGES, excess), episode

    def length(messages):
        return sum(len(m["content"]) for m in messages)

    empty = length(MESSAGES)
    for room, entries in ((10_000, 2), (empty + 100, 1), (empty, 0)):
        messages, episode = asyncio.run(play(room))
        assert length(messages) <= room
        assert len(episode.shown) == entries
