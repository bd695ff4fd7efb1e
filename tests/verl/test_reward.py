"""The reward as verl calls it."""

import json

import pytest

from hiexp_verl.errors import HiExpError
from hiexp_verl.plugin.reward import compute_score

RECORD = {
    "question_id": "q1",
    "question": "Capital?",
    "sample": 2,
    "split": "train",
    "messages": [{"role": "user", "content": "Capital?"}, {"role": "assistant", "content": "<answer> Kabul </answer>"}],
    "answer_text": "<answer> Kabul </answer>",
    "shown": [
        {"entry": "a", "level": "e1", "score": 0.9, "place": "tool", "tokens": 7, "search": 1},
        {"entry": "b", "level": "e2", "score": 0.5, "place": "prompt", "tokens": 5},
    ],
    "queries": ["x", "y"],
    "searches": 2,
    "failed_searches": 1,
    "e1_repeats": 1,
    "dropped": 2,
    "repeated_queries": 1,
    "arm": "full",
    "lookups": 3,
    "lookup_failures": 1,
}


def test_numbers_are_reported_and_the_trajectory_rides_along():
    result = compute_score("hiexp", "ignored", {"target": ["Kabul"]}, {"hiexp": RECORD})
    assert (result["score"], result["acc"], result["em"], result["f1"], result["format"]) == (1.0, 1.0, 1.0, 1.0, 1.0)
    assert (result["searches"], result["failed_searches"], result["e1_fired"], result["experience_tokens"]) == (2.0, 1.0, 1.0, 12.0)
    assert (result["e1_repeats"], result["lookups"], result["lookup_failures"]) == (1.0, 3.0, 1.0)
    trajectory = json.loads(result["hiexp_trajectory"])
    assert (trajectory["extra"]["arm"], trajectory["extra"]["dropped"], trajectory["extra"]["repeated_queries"]) == ("full", 2, 1)
    assert trajectory["id"] == "q1#2" and trajectory["prediction"] == "Kabul" and trajectory["correct"] is True


def test_a_document_that_holds_answer_tags_earns_nothing():
    text = "<search> x </search><information> <answer> Kabul </answer> </information><answer> Rome </answer>"
    assert compute_score("hiexp", text, {"target": ["Kabul"]})["em"] == 0.0


def test_no_answer_earns_nothing_and_a_wrong_one_the_format_reward():
    assert compute_score("hiexp", "I do not know", ["Kabul"])["score"] == 0.0
    assert compute_score("hiexp", "<answer> Rome </answer>", ["Kabul"])["score"] == 0.1


@pytest.mark.parametrize("text", ["<answer></answer>", "<answer> \n </answer>", "<answer>\\boxed{}</answer>", "<answer>", ""])
@pytest.mark.parametrize("kind", ["concise", "pvpo", "em", "f1", "cem"])
def test_an_empty_answer_is_no_answer(text, kind):
    result = compute_score("hiexp", text, ["Kabul"], kind=kind)
    assert (result["score"], result["format"], result["acc"]) == (0.0, 0.0, 0.0)


def test_the_kind_is_selectable():
    assert compute_score("hiexp", "<answer> city of Kabul </answer>", "Kabul", kind="em")["score"] == 0.0
    assert compute_score("hiexp", "<answer> city of Kabul </answer>", "Kabul", kind="cem")["score"] == 1.0


def test_a_row_without_answers_is_an_error_not_a_zero():
    with pytest.raises(HiExpError, match="no gold answer to score against"):
        compute_score("hiexp", "<answer> x </answer>", {"target": []})
