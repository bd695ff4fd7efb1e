"""What is not admitted to a HEK, and why."""

import pytest

from hiexp_verl.build.draft import Draft
from hiexp_verl.build.gates import refusal, repeats, script_of

QUESTION = "What is the capital of the country whose highest point is Noshak?"


@pytest.mark.parametrize(
    ("title", "description", "why"),
    [
        ("A described country", "Find the country by its mountain first, then ask for its capital.", ""),
        ("Country", "Find the country by its mountain first, then ask for its capital.", "too short"),
        ("A described country", "Find it first.", "too short"),
        ("A described country", "What is the capital of the country whose highest point is a mountain?", "copies the question"),
        ("A described country", "The answer to such a question is K\u00e1bul.", "tells the answer"),
        ("Questions like kabul", "Find the country by its mountain first, then ask for it.", "tells the answer"),
        ("A described country", "\u9996\u5148\u627e\u5230 \u56fd\u5bb6 \u7136\u540e \u9996\u90fd", "another script than the question's"),
    ],
)
def test_a_draft_is_admitted_or_refused_with_a_reason(title, description, why):
    assert refusal(Draft(title, description, "guide"), QUESTION, ("Kabul", "K\u00e1bul")) == why


def test_an_answer_that_the_question_gives_is_no_secret():
    draft = Draft("Which of two", "Compare X and Y and take Kabul only when it is larger.", "guide")
    assert refusal(draft, "Which is larger, Kabul or Herat?", ("Kabul",)) == ""
    assert refusal(draft, "Are they alike?", ("yes",)) == ""


def test_words_are_compared_without_articles_and_case():
    assert repeats("the CAPITAL of France", "Capital of France?")
    assert not repeats("capital", "capital of France")


def test_the_script_of_most_letters_counts():
    assert (script_of("abc \u4e2d"), script_of("\u4e2d\u56fd a"), script_of("12 !")) == ("LATIN", "CJK", "")
