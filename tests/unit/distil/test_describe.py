"""What a model reads of a diagnosis."""

from dataclasses import replace
from typing import get_args

import pytest

from hiexp_verl.distil.prompts import describe, without_names
from hiexp_verl.distil.rules import _rules
from hiexp_verl.domains.diagnosis import Contrast
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.domains.search.diagnose import MEANINGS, Finding, diagnose
from hiexp_verl.masking import Masker
from tests.support.episodes import QUESTION, episode, two_hops


def test_a_name_of_unknown_kind_has_the_same_words_in_all_texts():
    masker = Masker("Are Sleepwave and Underoath from the same state?")
    assert without_names(masker, ["Are Sleepwave and Underoath from the same state?", "the Underoath band", "Sleepwave"]) == [
        "Are the first one and the second one from the same state?",
        "the second one band",
        "the first one",
    ]
    assert without_names(masker, ["Sleepwave state"]) == ["the named one state"]


def test_middle_searches_go_when_room_is_short_and_the_finding_stays():
    queries = tuple(f"mountain number query {word}" for word in ["one", "two", "three", "four", "five", "six", "seven", "eight"])
    (found,) = diagnose(
        Contrast("q1", QUESTION, ("Kabul",), (two_hops(number=9),), (episode(*((q, "") for q in queries), answer="Tehran"),))
    )
    long, short = describe(found, SEARCH, 400), describe(found, SEARCH, 180)
    assert "8 searches: 1) mountain number query one;" in long and "5) mountain number query five; ...; 8)" in long
    assert len(short) < len(long) and "2) " in short and "5) " not in short
    for text in (long, short, describe(replace(found, part_at=2), SEARCH, 1)):
        assert "What went wrong: " in text and "What to do instead: " in text and "Kabul" not in text


def test_an_answer_in_a_query_does_not_reach_the_model():
    told = episode(("kabul highest point", "peak"), answer="Tehran")
    (found,) = diagnose(Contrast("q1", QUESTION, ("Kabul",), (two_hops(number=9),), (told,)))
    assert "kabul" not in describe(found, SEARCH).lower()


@pytest.mark.parametrize("finding", get_args(Finding))
def test_each_finding_has_words_for_a_model_and_a_rule_without_conditions(finding):
    assert MEANINGS[finding]
    rules = [rule for rule in _rules(SEARCH.texts["rules_e1.jsonl"]) if rule["finding"] == finding]
    assert any(set(rule) - {"when"} == {"finding", "text", "kind"} for rule in rules)
    for name in ("rules_e2.jsonl", "rules_e3.jsonl"):
        assert any(rule.get("finding") == finding for rule in _rules(SEARCH.texts[name]))
