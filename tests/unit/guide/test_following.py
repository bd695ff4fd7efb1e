"""A plan that was shown is followed when its searches are made, in their order and in whatever words."""

import pytest

from hiexp_verl.guide.episode import Guidance, GuidedEpisode
from hiexp_verl.guide.following import followed
from hiexp_verl.types import Hit, Plan
from tests.support.factories import entry

PLAN = Plan("What is the capital of the country whose highest point is ...?", ("... highest point country", "capital of the name found"))
QUESTION = "What is the capital of the country whose highest point is Noshak?"


@pytest.mark.parametrize(
    ("queries", "is_followed"),
    [
        (("Noshak highest point country", "capital of Afghanistan"), True),
        (("which country has Noshak as its highest point", "mountains", "Afghanistan capital city"), True),
        (("capital of Afghanistan", "Noshak highest point country"), False),  # the other order
        (("Noshak highest point country",), False),
        (("Noshak", "capital of Afghanistan"), False),  # 1 of the 4 words of the first search
        ((), False),
    ],
)
def test_a_query_makes_a_search_that_it_has_half_the_words_of(queries, is_followed):
    assert followed(PLAN.made_for("Noshak"), queries) == is_followed


def played(hits, *queries):
    episode = GuidedEpisode(Guidance(), lambda request: list(hits) if request.place == "prompt" else [], QUESTION, "q")
    episode.system([{"role": "user", "content": QUESTION}])
    for query in queries:
        episode.tool(query, "documents")
    return episode.record()


def test_the_record_says_whether_the_plan_in_the_system_prompt_was_followed():
    planned = Hit(entry("e2-1", "e2", description=PLAN.sentence, plans=(PLAN,)), 0.9)
    assert played([planned], "Noshak highest point country", "capital of Afghanistan").followed is True
    assert played([planned], "Everest highest point country", "capital of Nepal").followed is True, "3 of 4 words"
    assert played([planned], "Noshak").followed is False
    without = played([Hit(entry("e2-2", "e2"), 0.9)], "Noshak")
    assert without.followed is None and "followed" not in without.to_json()
