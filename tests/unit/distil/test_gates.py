"""What is not admitted to a HEK, and why."""

from dataclasses import replace

import pytest

from hiexp_verl.distil.draft import Draft
from hiexp_verl.distil.validate import admit, admit_summary, is_advice, is_part_of, refusal, repeats, script_of
from hiexp_verl.domains.diagnosis import Contrast, Diagnosis
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.domains.search.diagnose import diagnose
from tests.support.episodes import QUESTION, episode, two_hops
from tests.support.factories import entry


def diagnosis(question=QUESTION, answers=("Kabul",), finding=None) -> Diagnosis:
    failed = episode(("Noshak highest point country", "peak"), answer="Tehran", question=question, answers=answers)
    (found,) = diagnose(Contrast("q1", question, answers, (two_hops(number=9, question=question, answers=answers),), (failed,)))
    return replace(found, finding=finding or found.finding)


@pytest.mark.parametrize(
    ("title", "description", "why"),
    [
        ("A described country", "Find the country by its mountain first, then ask for its capital.", ""),
        ("Country", "Find the country by its mountain first, then ask for its capital.", "too_short"),
        ("A described country", "Find it first.", "too_short"),
        ("Search under that", "Name in the passage, then search for the capital under that name.", "half_sentence"),
        ("A described country", "Read its name in the passage, then search for the capital under that name.", ""),
        ("A described country", "What is the capital of the country whose highest point is a mountain?", "copies_question"),
        ("A described country", "The answer to such a question is K\u00e1bul.", "tells_answer"),
        ("Questions like kabul", "Find the country by its mountain first, then ask for it.", "tells_answer"),
        ("A described country", "Search for Noshak first, then for the capital.", "one_case"),
        ("A described country", "Add the year 1997 to what you search for.", "one_case"),
        ("A described country", "In this case, look for the mountain before the country.", "one_case"),
        ("A described country", "\u9996\u5148\u627e\u5230 \u56fd\u5bb6 \u7136\u540e \u9996\u90fd", "other_script"),
    ],
)
def test_a_draft_is_admitted_or_refused_with_a_reason(title, description, why):
    assert refusal(Draft(title, description, "guide"), diagnosis(answers=("Kabul", "K\u00e1bul")), SEARCH) == why


def test_an_answer_that_the_question_gives_is_no_secret():
    draft = Draft("Which of two", "Compare both and take Kabul only when it is larger.", "guide")
    assert refusal(draft, diagnosis("Which is larger, kabul or herat?"), SEARCH) == ""
    assert refusal(replace(draft, description="Say yes only if both are."), diagnosis("Are they alike?", ("yes",)), SEARCH) == ""


def test_advice_for_the_mistake_is_refused():
    joined = diagnosis(finding="two_in_one_query")
    assert refusal(Draft("Two described things", "Combine the titles of both in one query.", "guide"), joined, SEARCH) == "advises_mistake"
    assert refusal(Draft("Two described things", "Do not combine the titles of both in one query.", "guide"), joined, SEARCH) == ""
    assert refusal(Draft("Two described things", "Combine the titles of both in one query.", "guide"), diagnosis(), SEARCH) == ""


def test_an_empty_draft_leaves_nothing():
    assert admit(Draft("!", "!", "guide"), diagnosis(), SEARCH) == "nothing_left"


def test_a_title_that_the_description_says_again_is_advice():
    advice = Draft("Search for each thing", "Search for each thing on its own.", "guide")
    assert is_advice(advice)
    assert not is_advice(replace(advice, title="Comparing two things"))


MEMBERS = (
    entry("e1-1", title="Who made the older film", description="Search for each film on its own.", findings=("two_in_one_query",)),
    entry("e1-2", title="Which film is longer", description="Note both lengths, then compare.", findings=("two_in_one_query",)),
)


@pytest.mark.parametrize(
    ("description", "why"),
    [
        ("Look up each film alone and compare at the end.", ""),
        ("Search for each film on its own!", "copies_member"),
        ("Search for each film, such as Titanic, before comparing.", "new_name"),
        ("Look up X and Y each on its own.", "one_case"),
        ("The failed attempt searched for both, so look up each.", "one_case"),
        ("Combine the titles of both films and search for them.", "advises_mistake"),
        ("Find who made the one on its own.", "one_member"),
        ("Compare both.", "too_short"),
        ("", "nothing_left"),
        ("\u9996\u5148\u627e\u5230 \u56fd\u5bb6 \u7136\u540e \u9996\u90fd \u627e\u5230", "other_script"),
    ],
)
def test_a_summary_is_admitted_or_refused_with_a_reason(description, why):
    result = admit_summary(Draft("Comparing two films", description, "guide"), MEMBERS, "e2", SEARCH)
    assert (result if why else "") == why


def test_words_are_compared_without_articles_and_case():
    assert repeats("the CAPITAL of France", "Capital of France?")
    assert not repeats("capital", "capital of France")


def test_a_text_is_part_of_one_that_has_its_words():
    assert is_part_of("the common profession", "What two share, as in: the common profession of both")
    assert not is_part_of("what two named things share", "the common profession of both")


def test_the_script_of_most_letters_counts():
    assert (script_of("abc \u4e2d"), script_of("\u4e2d\u56fd a"), script_of("12 !")) == ("LATIN", "CJK", "")


def test_advice_to_send_the_query_again_is_refused_where_that_was_the_mistake():
    again = "Ask again with the same query to get the passages. Read those sentence by sentence instead of repeating it."
    repeated = diagnosis(finding="repeated_query")
    assert refusal(Draft("A described country", again, "guide"), repeated, SEARCH) == "advises_mistake"
    assert refusal(Draft("A described country", "Never search again with the same words.", "guide"), repeated, SEARCH) == ""
    assert refusal(Draft("A described country", again, "guide"), replace(diagnosis(), also=()), SEARCH) == ""
