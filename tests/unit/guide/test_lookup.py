"""What is looked up at each place."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl.config import Budgets, PromptConfig, ToolConfig
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.guide.episode import Guidance, GuidedEpisode
from hiexp_verl.guide.lookup import ExperienceRequest, Lookup, text_at
from hiexp_verl.hek import Retriever
from hiexp_verl.models.encoder import HashEncoder
from tests.support.factories import entry, hek_of

ENCODER = HashEncoder(256)
NEIGHBOUR = "What is the capital of the only country that borders the country whose highest point is X?"
PEAK = "What is the currency of the country whose highest point is X?"
QUESTION = "What is the currency of the only country that borders the country whose highest point is Noshak?"
HEK = hek_of([entry("e2-1", "e2", title=NEIGHBOUR), entry("e2-2", "e2", title=PEAK)], ENCODER)


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        (QUESTION, "What is the currency of the only country that borders the country whose highest point is ...?"),
        ("In what city is the company that made Noshak based?", "In what city is the company that made ... based?"),
        (
            'When did the country whose anthem is "Ertra" become independent?',
            "When did the country whose anthem is ... become independent?",
        ),
        ("Answer in tags. Question: What is the capital of Chad?", "What is the capital of ...?"),
        ("¿?", "¿?"),
        ("", ""),
    ],
)
def test_the_prompt_is_matched_by_the_bare_question_without_its_names_and_a_query_as_it_stands(question, kind):
    assert text_at("prompt", question, SEARCH) == kind
    assert text_at("prompt", question, SEARCH, "question") == text_at("tool", question, SEARCH) == question


@given(st.text(max_size=200))
def test_every_question_has_a_kind(text):
    assert isinstance(text_at("prompt", text, SEARCH), str) and bool(text_at("prompt", text, SEARCH)) == bool(text)


def found(match: str, place: str) -> list[str]:
    lookup = Lookup(Retriever(HEK, ENCODER), PromptConfig(top_k=1, match=match), ToolConfig())
    return [hit.score for hit in asyncio.run(lookup(ExperienceRequest(place, QUESTION)))]


def test_the_prompt_is_matched_by_the_kind_unless_it_is_to_be_by_the_whole_question():
    (by_kind,), (by_question,) = found("kind", "prompt"), found("question", "prompt")
    retriever = Retriever(HEK, ENCODER)
    (kind,), (question,) = retriever.retrieve([text_at("prompt", QUESTION, SEARCH), QUESTION], ["e2", "e3"], 1)
    assert (by_kind, by_question) == pytest.approx((kind.score, question.score), abs=1e-5)
    assert by_kind > by_question + 0.01


@pytest.mark.parametrize(("match", "looked_up"), [("query", "Noshak country"), ("kind", text_at("prompt", QUESTION, SEARCH))])
def test_e1_are_matched_to_the_search_or_to_the_kind_of_question(match, looked_up):
    asked: list[ExperienceRequest] = []
    guidance = Guidance(Budgets(tool=ToolConfig(match=match)))
    episode = GuidedEpisode(guidance, lambda request: asked.append(request) or [], QUESTION, "q1")
    assert episode.tool("Noshak country", "Documents.") == "Documents."
    assert [(request.place, request.text) for request in asked] == [("tool", looked_up)]
    assert episode.record().queries == ("Noshak country",)


def test_the_score_and_the_count_of_a_place_are_applied():
    hek = hek_of([entry("e1-a", title="capital of France"), entry("e1-b", title="capital of Chad"), entry("e1-c", title="zzz")], ENCODER)

    def ids(query: str = "capital of France", beyond: int = 0, **tool) -> list[str]:
        lookup = Lookup(Retriever(hek, ENCODER), PromptConfig(), ToolConfig(**tool))
        found = lookup.now(ExperienceRequest("tool", query, beyond=beyond))
        assert found == asyncio.run(lookup(ExperienceRequest("tool", query, beyond=beyond)))
        return [hit.entry.id for hit in found]

    assert ids(top_k=5, min_score=0.3) == ["e1-a", "e1-b"]
    assert ids(min_score=0.3) == ["e1-a"]  # top 1, as in the paper
    assert ids(min_score=0.3, beyond=1) == ["e1-a", "e1-b"]
    assert ids(top_k=5, min_score=0.99) == ["e1-a"]
