"""What is not admitted to a HEK, and why."""

from dataclasses import replace

import pytest

from hiexp_verl.build.contrast import Contrast
from hiexp_verl.build.diagnose import Diagnosis, diagnose
from hiexp_verl.build.draft import Draft
from hiexp_verl.build.gates import admit, refusal, repeats, script_of
from tests.episodes import QUESTION, episode, two_hops


def diagnosis(question=QUESTION, answers=("Kabul",), finding=None) -> Diagnosis:
    failed = episode(("Noshak highest point country", "peak"), answer="Tehran", question=question, answers=answers)
    (found,) = diagnose(Contrast("q1", question, answers, (two_hops(number=9, question=question, answers=answers),), (failed,)))
    return replace(found, finding=finding or found.finding)


@pytest.mark.parametrize(
    ("title", "description", "why"),
    [
        ("A described country", "Find the country by its mountain first, then ask for its capital.", ""),
        ("Country", "Find the country by its mountain first, then ask for its capital.", "too short"),
        ("A described country", "Find it first.", "too short"),
        ("A described country", "What is the capital of the country whose highest point is a mountain?", "copies the question"),
        ("A described country", "The answer to such a question is K\u00e1bul.", "tells the answer"),
        ("Questions like kabul", "Find the country by its mountain first, then ask for it.", "tells the answer"),
        ("A described country", "Search for Noshak first, then for the capital.", "speaks of one case"),
        ("A described country", "Add the year 1997 to what you search for.", "speaks of one case"),
        ("A described country", "In this case, look for the mountain before the country.", "speaks of one case"),
        ("A described country", "\u9996\u5148\u627e\u5230 \u56fd\u5bb6 \u7136\u540e \u9996\u90fd", "another script than the question's"),
    ],
)
def test_a_draft_is_admitted_or_refused_with_a_reason(title, description, why):
    assert refusal(Draft(title, description, "guide"), diagnosis(answers=("Kabul", "K\u00e1bul"))) == why


def test_an_answer_that_the_question_gives_is_no_secret():
    draft = Draft("Which of two", "Compare X and Y and take Kabul only when it is larger.", "guide")
    assert refusal(draft, diagnosis("Which is larger, kabul or herat?")) == ""
    assert refusal(replace(draft, description="Say yes only if both are."), diagnosis("Are they alike?", ("yes",))) == ""


def test_advice_for_the_mistake_is_refused():
    joined = diagnosis(finding="two_in_one_query")
    assert refusal(Draft("Two described things", "Combine the titles of both in one query.", "guide"), joined) == "advises the mistake"
    assert refusal(Draft("Two described things", "Do not combine the titles of both in one query.", "guide"), joined) == ""
    assert refusal(Draft("Two described things", "Combine the titles of both in one query.", "guide"), diagnosis()) == ""


def test_a_title_that_names_no_situation_becomes_the_kind_of_question():
    told = Draft("Avoid stopping early", "Find the country by its mountain first, then ask for its capital.", "guide")
    admitted = admit(told, diagnosis())
    assert isinstance(admitted, Draft)
    assert admitted.title == "What is the capital of the country whose highest point is a mountain?"
    kept = admit(replace(told, title="A country described by its mountain"), diagnosis())
    assert isinstance(kept, Draft) and kept.title == "A country described by its mountain"
    assert admit(Draft("!", "!", "guide"), diagnosis()) == "nothing left after cleaning"


def test_words_are_compared_without_articles_and_case():
    assert repeats("the CAPITAL of France", "Capital of France?")
    assert not repeats("capital", "capital of France")


def test_the_script_of_most_letters_counts():
    assert (script_of("abc \u4e2d"), script_of("\u4e2d\u56fd a"), script_of("12 !")) == ("LATIN", "CJK", "")
