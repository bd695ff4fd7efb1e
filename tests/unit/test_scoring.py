"""Scores are those of the SQuAD and HotpotQA scripts, checked by hand; formats cannot be gamed by tool text."""

from typing import Any, cast, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl import scoring
from hiexp_verl.config import RewardKind
from hiexp_verl.errors import HiExpError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Beatles!", "beatles"),
        ("an apple, a day", "apple day"),
        ("U.S.A.", "usa"),
        ("1,000", "1000"),
        ("Theatre", "theatre"),  # an article inside a word stays
        ("Nuku\u2018alofa\u2019s \u2014 «X»", "nukualofas x"),
        ("\uff28\uff45\uff4c\uff4c\uff4f", "hello"),  # full-width letters
        ("Æther São 東京。", "æther são 東京"),
        ("", ""),
    ],
)
def test_normalisation_is_squads(text, expected):
    assert scoring.normalise(text) == expected


def test_f1_counts_shared_tokens():
    # shared: barack, obama; prediction 3 tokens, gold 2: 2 * 2 / (3 + 2)
    assert scoring.f1("President Barack Obama", ["Barack Obama"]) == pytest.approx(0.8)
    assert scoring.f1("Obama Obama", ["Obama"]) == pytest.approx(2 / 3)  # a repeated token counts once
    assert scoring.f1("nothing", ["Obama"]) == 0.0
    assert scoring.f1("b, c and d", ["d, c and b"]) == 1.0  # a list in another order


def test_yes_and_no_have_no_partial_credit():
    assert scoring.f1("yes they are", ["yes"]) == 0.0
    assert scoring.f1("Yes.", ["yes"]) == 1.0
    assert scoring.cem("yes they are", ["yes"]) == 1.0
    assert scoring.cem("yes or no", ["yes"]) == scoring.cem("yes or no", ["no"]) == 0.0


def test_covered_match_keeps_token_boundaries():
    assert scoring.cem("It is Paris, France.", ["paris"]) == 1.0
    assert scoring.cem("Parisian", ["Paris"]) == 0.0
    assert scoring.cem("in 1984", ["198"]) == 0.0
    assert scoring.cem("York New", ["New York"]) == 0.0
    assert scoring.cem("", ["Paris"]) == 0.0


def test_scripts_without_spaces_are_compared_by_characters():
    assert scoring.cem("\u5df4\u9ece\u5e02", ["\u5df4\u9ece"]) == 1.0  # Paris, in "the city of Paris"
    assert scoring.f1("\u5df4\u9ece\u5e02", ["\u5df4\u9ece"]) == pytest.approx(0.8)  # 2 of 3, and 2 of 2
    assert scoring.em("\u6771\u4eac", ["\u6771 \u4eac"]) == 1.0 and scoring.em("\u6771\u4eac", ["\u4eac\u6771"]) == 0.0
    assert scoring.cem("\ud55c\uad6d\uc5b4", ["\ud55c\uad6d"]) == 0.0, "Korean has spaces between words"


def test_the_best_gold_answer_counts():
    assert scoring.em("NYC", ["New York City", "NYC"]) == 1.0
    assert scoring.score("the NYC", ["New York City", "NYC"]).reward == 1.0


def test_gold_answers_that_normalise_to_nothing_are_not_matched_by_nothing():
    assert scoring.em("A", ["A"]) == 1.0
    assert scoring.em("", ["A"]) == 0.0
    assert scoring.cem("blood type", ["A"]) == 0.0


@pytest.mark.parametrize(
    ("prediction", "reward", "acc"),
    [
        ("Paris", 1.0, 1.0),
        ("Paris, France", 1.0, 1.0),  # 2 tokens < 3 * 1: covered
        ("Paris London Rome", 0.5, 0.5),  # 3 tokens: F1 = 2 * 1 / (3 + 1)
        ("Rome", 0.1, 0.0),  # wrong, but well formed
        ("", 0.0, 0.0),
        (None, 0.0, 0.0),
    ],
)
def test_the_reward_of_pvpo(prediction, reward, acc):
    result = scoring.score(prediction, ["Paris"], "pvpo")
    assert (result.reward, result.acc) == pytest.approx((reward, acc))


QUESTION = "Which of the two is larger, Peru or Chile?"


@pytest.mark.parametrize(
    ("prediction", "gold"),
    [
        ("Paris", "Paris"),
        ("the city of Paris", "Paris"),
        ("b c d e", "b c d e f"),  # F1 = 8/9
        ("yes, they are", "yes"),
        ("No, they are not.", "no"),
        ("no, never", "no"),
        ("1 January 1990", "1990"),
        ("Simon & Garfunkel", "Simon and Garfunkel"),
        ("Paris.\n", "Paris"),
        ("May 12, 1971", "1971"),
        ("Paris, it is", "Paris"),
        ("12 May 1971", "May 1971"),
        ("yes, both of them are directors from the United States", "yes"),
        ("Tom and Jerry", "Tom and Jerry"),  # the words of the gold answer are no hedge
        ("the larger one is Peru", "Peru"),
        ("J. K. Rowling", "J.K. Rowling"),
        ("No, the results differ.", "no"),
        ("No information", "No information"),
        ("b c x d", "b c d"),  # F1 = 6/7, a word more
    ],
)
def test_an_answer_that_says_no_more_is_concise(prediction, gold):
    result = scoring.score(prediction, [gold], "concise", QUESTION)
    assert (result.concise, result.reward) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("prediction", "gold"),
    [
        ("Paris or London", "Paris"),
        ("Paris and London", "Paris"),
        ("not Paris", "Paris"),
        ("Peru Chile", "Peru"),  # both candidates of the question
        ("Chile, Peru", "Peru"),
        ("yes nope", "yes"),
        ("no, yes", "yes"),
        ("yes nah", "yes"),
        ("yes, false", "yes"),
        ("yes, they aren't", "yes"),
        ("no yep", "no"),
        ("It isn't Paris", "Paris"),
        ("wasn\u2019t Paris", "Paris"),
        ("cannot be Paris", "Paris"),
        ("Paris is wrong", "Paris"),
        ("anything but Paris", "Paris"),
        ("other than Paris", "Paris"),
        ("except Paris", "Paris"),
        ("1990, 1991", "1990"),
        ("3 14", "3"),
        ("12 May 1971, 13 May 1971", "12 May 1971"),
        ("Paris, London", "Paris"),
        ("London, Paris", "Paris"),
        ("Paris as well as London", "Paris"),
        ("Paris along with London", "Paris"),
        ("I doubt it is Paris", "Paris"),
        ("hardly Paris", "Paris"),
        ("might be Paris", "Paris"),
        ("the opposite of Paris", "Paris"),
        ("yes, maybe", "yes"),
        ("yes in part", "yes"),
        ("yes. Actually, the other one is older", "yes"),
        ("no - affirmative", "no"),
        ("yes " + "word " * 17, "yes"),
        ("Paris; Rome", "Paris"),
        ("Paris & London", "Paris"),
        ("Rome\nParis", "Paris"),
        ("not b c d e f", "b c d e f"),  # F1 = 10/11
        ("John Lyon, 4th Lord Glamis", "John Lyon, 3rd Lord Glamis"),  # F1 = 8/10, a word in place of another
        ("no idea", "no"),
        ("No relevant information found", "no"),
        ("Paris vs London", "Paris"),
        ("nicht Paris", "Paris"),
        ("Paris ou Lyon", "Paris"),
        ("\u4e0d\u662f\u5df4\u9ece", "\u5df4\u9ece"),  # not Paris
        ("\u5df4\u9ece\u3001\u4f26\u6566", "\u5df4\u9ece"),  # Paris, London
        ("Paris London Rome Berlin", "Paris"),
        ("Doc 1(Title: Paris) Paris is the capital of France. It lies on the Seine.", "Paris"),
        ("b c", "b c d e f"),
        ("Rome", "Paris"),
    ],
)
def test_an_answer_that_hedges_denies_or_pastes_earns_no_more_than_a_wrong_one(prediction, gold):
    result = scoring.score(prediction, [gold], "concise", QUESTION)
    assert (result.concise, result.reward) == (0.0, scoring.FORMAT_REWARD)


@pytest.mark.parametrize("question", ["Where was she born?", "In which city is it?", "What is the place of death of its director?", ""])
def test_after_a_comma_a_place_may_stand_that_holds_the_answer(question):
    assert scoring.concise("Paris, France", ["Paris"], question) == scoring.concise("It is Paris, France.", ["Paris"], question) == 1.0
    assert scoring.concise("Paris, Rome, Berlin, Vienna", ["Paris"], question) == 0.0


@pytest.mark.parametrize(
    ("question", "gold", "other"),
    [
        ("Which is larger, a lion or a tiger?", "lion", "tiger"),
        ("Of lions and tigers, which are larger?", "tigers", "lions"),
        ("Was it founded in 1984 or 990?", "1984", "990"),
        ("Which is older, the A36 or the M25?", "M25", "A36"),
    ],
)
def test_candidates_of_the_question_need_no_capital(question, gold, other):
    assert scoring.concise(f"{gold}, {other}", [gold], question) == scoring.concise(f"{other} {gold}", [gold], question) == 0.0
    assert scoring.concise(f"the larger {gold}", [gold], question) == 1.0


@given(st.text(max_size=30), st.text(alphabet="ab ", min_size=1, max_size=8), st.text(max_size=30))
def test_a_concise_answer_is_covered_or_close(before, gold, after):
    prediction = f"{before} {gold} {after}"
    if scoring.concise(prediction, [gold]):
        assert scoring.cem(prediction, [gold]) or scoring.f1(prediction, [gold]) >= scoring.CLOSE_F1


def test_success_is_covered_or_nearly_equal():
    assert scoring.score("Paris, France", ["Paris"]).correct
    assert scoring.score("b c d e", ["b c d e f"]).correct  # F1 = 8/9
    assert not scoring.score("b c", ["b c d e f"]).correct


def test_other_kinds_are_the_measure_itself():
    for kind, reward in [("em", 0.0), ("f1", 2 / 3), ("cem", 1.0)]:
        assert scoring.score("Paris France", ["Paris"], kind).reward == pytest.approx(reward)
    assert scoring.score("Rome", ["Paris"], "em").reward == 0.0
    assert scoring.score("Rome", ["Paris"], "em").format == 1.0


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer> Paris </answer>", "Paris"),
        ("<answer>a</answer> no: <answer>b</answer>", "b"),
        ("<answer>a <answer>b</answer>", "b"),
        ("<answer>a</answer></answer>", "a"),
        ("<answer>a</answer> <answer>cut", "a"),
        ("</answer> nothing", None),
        ("<answer></answer>", None),
        ("<answer>open", None),
        (r"so \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{1} then \boxed{2", "1"),
        (r"\boxed {\frac{1}{2}}", r"\frac{1}{2}"),
        (r"<answer>\boxed{5}</answer>", "5"),
        (r"<answer>a</answer> \boxed{b}", "b"),
        (r"\boxed{b} <answer>a</answer>", "a"),
        ("", None),
    ],
)
def test_the_last_complete_answer_is_extracted(text, answer):
    assert scoring.extract_answer(text) == answer


def test_an_answer_inside_tool_text_does_not_count():
    assert scoring.score_text("<information><answer>Paris</answer></information>", ["Paris"]).reward == 0.0
    assert scoring.score_text("<tool_response>\n<answer>Paris</answer>", ["Paris"]).reward == 0.0  # cut off by the length limit
    assert scoring.score_text("<experience><answer>Paris</answer></experience>", ["Paris"]).format == 0.0
    text = "<search>x</search>\n<information>Doc 1</information>\n<experience>\n- look\n</experience> <answer>Paris</answer>"
    assert scoring.score_text(text, ["Paris"]).reward == 1.0


def test_scoring_without_gold_or_with_an_unknown_kind_is_an_error():
    with pytest.raises(HiExpError, match="at least one text"):
        scoring.score("x", [])
    with pytest.raises(HiExpError, match="at least one text"):
        scoring.score("x", "Paris")
    with pytest.raises(HiExpError, match="unknown reward 'rouge'"):
        scoring.score("x", ["x"], cast(Any, "rouge"))


PIECES = ["<answer>", "</answer>", "\\boxed{", "}", "{", "<information>", "</information>", "a", " yes", "No.", "\n", "é"]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text(), st.sampled_from(get_args(RewardKind)))
def test_scoring_never_raises_and_stays_in_range(text, kind):
    result = scoring.score_text(text, ["a", "yes"], kind)
    assert all(
        0.0 <= value <= 1.0 for value in (result.reward, result.acc, result.em, result.f1, result.cem, result.concise, result.format)
    )
    assert (result.format == 1.0) == (scoring.extract_answer(scoring.strip_tool_text(text)) is not None)
    assert result.em <= result.f1 + 1e-9


@given(st.text(min_size=1).filter(str.strip))
def test_the_gold_answer_scores_full(gold):
    result = scoring.score(gold, [gold])
    assert result.em == result.reward == 1.0


@pytest.mark.parametrize(
    ("prediction", "gold", "squad", "ours"),
    [
        ("35", "3.5", 1.0, 0.0),
        ("3.5", "3.5", 1.0, 1.0),
        ("3.50", "3.5", 0.0, 0.0),  # other tokens, though the same number
        ("5", "-5", 1.0, 0.0),
        ("\u22125", "-5", 1.0, 1.0),
        ("1000", "1,000", 1.0, 1.0),
        ("$1,000", "1000", 1.0, 1.0),
        ("8 October 1920", "October 8, 1920", 0.0, 1.0),
        ("1920", "1920.", 1.0, 1.0),
        ("C", "C++", 1.0, 0.0),
        ("C++", "C", 1.0, 0.0),
        ("C++", "c++", 1.0, 1.0),
        ("C#", "C++", 1.0, 0.0),
        ("Who", "The Who", 1.0, 1.0),  # SQuAD's convention: articles do not count, also where they are a name
        ("A", "The A", 0.0, 0.0),
        ("5-4", "5-4", 1.0, 1.0),
        ("5%", "5", 1.0, 0.0),
        ("5", "5%", 1.0, 0.0),
        ("5 %", "5%", 1.0, 1.0),
        ("5 percent", "5%", 0.0, 1.0),
        ("5%", "5 per cent", 0.0, 0.0),  # other tokens
        ("O-", "O", 1.0, 0.0),
        ("O\u2212", "O-", 1.0, 1.0),
        ("AB", "AB+", 1.0, 0.0),
        ("O negative", "O-", 0.0, 1.0),
        ("O positive", "O-", 0.0, 0.0),
        ("a positive result", "positive result", 1.0, 1.0),
        ("102", "10\u00b2", 1.0, 0.0),
        ("10\u00b2", "102", 1.0, 0.0),
        ("10^2", "10\u00b2", 1.0, 1.0),
        ("10\u207b\u2075", "10\u2075", 0.0, 0.0),
        ("5 m2", "5 m\u00b2", 1.0, 1.0),
        ("Sava- a river", "Sava", 0.0, 1.0),
    ],
)
def test_em_keeps_squads_convention_and_concise_keeps_points_signs_and_marks(prediction, gold, squad, ours):
    found = scoring.score(prediction, [gold])
    assert (found.em, found.concise) == (squad, ours)


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("Sava\n\nSources: Doc 1", "Sava"),
        ("Sava. References: [1]", "Sava."),
        ("Sava\n**Sources**\n1. Doc", "Sava"),
        ("Sources: Doc 1", "Sources: Doc 1"),
        ("Renewable sources: wind", "Renewable sources: wind"),
        ("Sources of the Self", "Sources of the Self"),
    ],
)
def test_sources_after_an_answer_are_not_part_of_it(written, answer):
    assert scoring.extract_answer(f"<answer>{written}</answer>") == answer


def test_a_question_for_a_percentage_is_answered_by_its_number():
    assert scoring.concise("5%", ["5"], "What percentage of it is water?") == 1.0
    assert scoring.concise("5", ["5%"], "How many per cent are water?") == 1.0


@pytest.mark.parametrize(
    "written",
    [
        *(rf"\{command}{{Sava}}" for command in ("text", "textbf", "textsf", "texttt", "mathrm", "mathsf", "emph", "underline", "mbox")),
        *(f"<{tag}>Sava</{tag}>" for tag in ("b", "code", "mark", "font color=red", "a href='x'", "h2")),
        *(
            "Sava</answer>",
            "<answer>Sava",
            "Sava[/INST]",
            "Sava<\uff5cend\u2581of\u2581sentence\uff5c>",
            "Sava<|eot_id|>",
            "&quot;Sava&quot;",
        ),
    ],
)
def test_what_formats_an_answer_is_not_part_of_it(written):
    found = scoring.score(written, ["Sava"])
    assert (found.em, found.concise) == (1.0, 1.0)


def test_signs_of_latex_are_those_of_the_text():
    assert scoring.concise(r"50\%", ["50%"]) == scoring.concise("1{,}000", ["1000"]) == scoring.concise(r"\$5", ["$5"]) == 1.0
    assert scoring.em(r"New\ York", ["New York"]) == 1.0
