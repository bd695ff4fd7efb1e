"""What experience tells of the searches of a success."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl.distil.draft import fit_with
from hiexp_verl.distil.entries import case, merge_near_duplicates, number
from hiexp_verl.distil.plan import with_plans
from hiexp_verl.distil.rules import advice_for
from hiexp_verl.domains.diagnosis import Contrast, Diagnosis
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.domains.search.diagnose import diagnose
from hiexp_verl.domains.search.plan import plan_of
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.types import MAX_DESCRIPTION_CHARS
from tests.support.episodes import QUESTION, episode
from tests.support.factories import entry


def diagnosis(*queries: str, question: str = QUESTION, answer: str = "Kabul") -> Diagnosis:
    success = episode(*((query, "") for query in queries), answer=answer, question=question)
    failure = episode(("peak", ""), answer="Tehran", question=question, number=9)
    (found,) = diagnose(Contrast("q1", question, (answer,), (success,), (failure,)))
    return found


def said(found: Diagnosis) -> str:
    plan = plan_of(found)
    return plan.sentence if plan else ""


def test_a_name_of_the_question_and_one_that_was_found_are_told_apart():
    plan = plan_of(diagnosis("Noshak highest point country", "capital of Afghanistan"))
    assert plan is not None and plan.sentence == (
        'For "What is the capital of the country whose highest point is ...?" these searches worked: '
        '"... highest point country", then "capital of the name found".'
    )


@pytest.mark.parametrize(
    "queries",
    [
        ("Noshak highest point country",),  # nothing is built on what was found
        ("Noshak highest point", "Noshak capital"),
        ("Noshak highest point country", "is Kabul the capital of Afghanistan"),  # tells the answer
        ("Noshak highest point country", "capital of Afghanistan in 1997"),  # of one case
        ("Noshak highest point country", "Afghanistan"),  # says no more than a name
        (QUESTION, "capital of Afghanistan"),
        ("Noshak highest point country", "capital of Afghanistan", "Afghanistan city", "largest city of Afghanistan"),
        ("Noshak highest point country", "capital of Afghanistan " + "and its surroundings " * 5),
    ],
)
def test_what_is_no_plan_for_other_questions_is_left_out(queries):
    assert plan_of(diagnosis(*queries)) is None


def test_the_first_search_may_look_up_the_name_that_is_given():
    assert '"...", then "capital of the name found"' in said(diagnosis("Noshak", "capital of Afghanistan"))


def test_what_is_asked_twice_counts_once():
    twice = diagnosis("Noshak highest point country", "capital of Afghanistan", "the capital of Afghanistan", "capital Afghanistan")
    assert plan_of(twice) == plan_of(diagnosis("Noshak highest point country", "capital of Afghanistan"))


def test_of_several_successes_the_plan_is_of_the_one_that_saw_the_answer_in_the_fewest_searches():
    seen = "Doc 1(Title: Kabul) Kabul is the capital of Afghanistan."
    detour = episode(("Noshak highest point country", ""), ("Afghanistan region", ""), ("capital of Afghanistan", seen), number=1)
    guess = episode(("Noshak peak", ""), ("Afghanistan city", ""), number=2)
    straight = episode(("Noshak highest point country", ""), ("capital of Afghanistan", seen), number=3)
    one_search = episode(("Noshak capital of its country", seen), number=4)
    failure = episode(("peak", ""), answer="Tehran", number=9)
    (found,) = diagnose(Contrast("q1", QUESTION, ("Kabul",), (detour, guess, straight, one_search), (failure,)))
    assert [len(way) for way in found.ways] == [1, 2, 3, 2]
    assert said(found).endswith('"... highest point country", then "capital of the name found".')


def test_a_failure_without_a_success_has_no_plan():
    assert plan_of(replace(diagnosis("Noshak highest point country", "capital of Afghanistan"), succeeded=None, ways=())) is None


def test_a_name_of_the_question_is_found_in_lower_case():
    assert '"... highest point country"' in said(diagnosis("noshak highest point country", "capital of Afghanistan"))


@given(st.text(max_size=120), st.text(max_size=120))
def test_no_query_puts_a_name_an_answer_or_a_control_token_into_a_plan(one, other):
    plan = said(diagnosis(f"Noshak {one} <|im_end|>", f"Afghanistan {other} </search>"))
    assert "Noshak" not in plan and "Afghanistan" not in plan and "kabul" not in plan.lower()
    assert "<|im_end|>" not in plan and "</search>" not in plan and "\n" not in plan


def test_a_pattern_ends_with_the_plan_that_most_of_its_cases_share():
    found = diagnosis("Noshak highest point country", "capital of Afghanistan")
    rarer = diagnosis("which country has Noshak", "city Afghanistan is ruled from")
    cases = number([case(advice_for(each, SEARCH), each, SEARCH) for each in (rarer, found, found)], "e1")
    pattern = entry("e2-0001", "e2", "A kind of question", "Find out the name first.", children=tuple(each.id for each in cases))
    (planned,) = with_plans([pattern], cases)
    assert planned.description == f"Find out the name first. {said(found)}"
    assert replace(planned, description=pattern.description, plans=()) == pattern and planned.plans == (plan_of(found),)


def test_of_equally_frequent_plans_the_pattern_ends_with_that_of_the_case_in_its_title():
    one = diagnosis("which country has Noshak", "capital of Afghanistan")
    other = diagnosis(
        "Noshak highest point country", "capital of Afghanistan", question="Which city rules the country whose peak is Noshak?"
    )
    cases = number([case(advice_for(each, SEARCH), each, SEARCH) for each in (one, other)], "e1")
    pattern = entry("e2-0001", "e2", f"As in: {cases[1].title}", "Find out the name first.", children=tuple(each.id for each in cases))
    assert with_plans([pattern], cases)[0].description.endswith(said(other))
    assert with_plans([replace(pattern, title="A kind of question")], cases)[0].description.endswith(said(one))


def test_the_kind_of_question_in_the_title_decides_before_what_most_share():
    other = "What is the capital of the only country that borders the country whose highest point is Noshak?"
    two = diagnosis("Noshak highest point country", "capital of Afghanistan")
    three = diagnosis("Noshak highest point country", "Afghanistan shares a border with", "capital of Pakistan", question=other)
    cases = number([case(advice_for(each, SEARCH), each, SEARCH) for each in (three, three, two)], "e1")
    pattern = entry("e2-0001", "e2", f"As in: {two.kind_of_question}", "Find it.", children=tuple(each.id for each in cases))
    assert with_plans([pattern], cases)[0].description.endswith(said(two))


def test_cases_of_other_hops_are_not_merged_and_say_how_many_they_have():
    two = diagnosis("Noshak highest point country", "capital of Afghanistan")
    three = diagnosis("Noshak highest point country", "Afghanistan shares a border with", "capital of Pakistan")
    none = diagnosis("Noshak highest point country")
    cases = [case(advice_for(two, SEARCH), each, SEARCH) for each in (two, three, none, two)]
    merged = merge_near_duplicates(cases, HashEncoder())
    assert [each.hops for each in merged] == [(2,), (3,), ()]
    assert [each.counters.get("merged", 0) for each in merged] == [1, 0, 0]


def test_a_plan_that_leaves_room_for_half_a_sentence_stands_alone():
    long = "Find out the name of what is described before you search for anything else about it at all"
    plan = "x" * (MAX_DESCRIPTION_CHARS - 60) + "."
    assert fit_with(long, plan) == plan
    assert fit_with(f"First. {long}", plan) == f"First. {plan}"
    assert fit_with("First.", plan) == f"First. {plan}"
    assert fit_with(long, plan + "x" * 60) == long


def test_long_advice_makes_room_for_a_plan_at_the_end_of_a_sentence():
    found = diagnosis("Noshak highest point country", "capital of Afghanistan")
    (only,) = number([case(advice_for(found, SEARCH), found, SEARCH)], "e1")
    long = "Find out the name first, and write it down. " * 7
    (planned,) = with_plans([entry("e2-0001", "e2", description=long.strip(), children=(only.id,))], [only])
    assert len(planned.description) <= MAX_DESCRIPTION_CHARS
    assert planned.description.endswith(f"and write it down. {said(found)}")


def test_a_pattern_whose_cases_have_no_plan_keeps_its_words():
    found = diagnosis("Noshak highest point country")
    (only,) = number([case(advice_for(found, SEARCH), found, SEARCH)], "e1")
    pattern = entry("e2-0001", "e2", description="Find out the name first.", children=(only.id,))
    assert with_plans([pattern], [only]) == [pattern]
