"""The same question in other words is found; another question of the same template is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl.hek.same_question import SameQuestions, calculation, near_duplicates
from hiexp_verl.models.encoder import HashEncoder, unit_rows

TEMPLATE = "What is the internet country code of the country whose highest point is {}?"
SAME = [
    ("Where was Dvo\u0159\u00e1k born?", "Where was Dvorak born?"),
    ("Which country has Noshak as its highest point?", "Name the country that has Noshak as its highest point"),
    ("What is the capital of France?", "What's the capital of France?"),
    ("What is the capital of France?", "Which is France's capital"),
    ("Who built the Eiffel Tower?", "Who was it that built the Eiffel tower?"),
    ("Who built the Eiffel Tower?", "who built the eiffel tower"),
]
OTHER = [
    ("What is the capital of France?", "What is the capital of Spain?"),
    (TEMPLATE.format("Noshak"), TEMPLATE.format("Mont Blanc")),
    ("Which team won the cup in the summer of 1998?", "Which team won the cup in the summer of 2002?"),
    ("Who directed Suicide Kings?", "Who directed Suicide Kings 2?"),
    ("red green blue white black brown grey cyan pink?", "red green blue white black brown grey cyan gold?"),  # 8 of 10, a word for a word
    ("Alpha beta gamma delta?", "Alpha beta gamma epsilon?"),
    ("What is it?", "Who is that?"),
]


class OneDirection(HashEncoder):
    """To which all questions are the same; it remembers what it was asked."""

    def __init__(self):
        super().__init__(8)
        self.asked = []

    def encode_queries(self, texts):
        self.asked += texts
        return unit_rows(np.ones((len(texts), 8), dtype=np.float32))


class Ailing(OneDirection):
    def __init__(self, ail):
        super().__init__()
        self.ail = ail

    def encode_queries(self, texts):
        if self.ail is RuntimeError:
            raise RuntimeError("out of memory")
        return super().encode_queries(texts) * self.ail


def same(known: str, asked: str, encoder=None) -> list[str]:
    (found,) = SameQuestions({"k": known}, encoder).find([asked])
    return [each.how for each in found]


@pytest.mark.parametrize("encoder", [None, HashEncoder(256)])
@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_in_other_words_is_found_from_both_sides(one, other, encoder):
    assert same(one, other, encoder) and same(other, one, encoder)


@pytest.mark.parametrize("encoder", [None, HashEncoder(256)])
@pytest.mark.parametrize(("one", "other"), OTHER)
def test_another_question_is_not_found_however_many_words_it_shares(one, other, encoder):
    assert not same(one, other, encoder) and not same(other, one, encoder)


def test_where_the_words_leave_it_open_the_cosine_decides():
    assert same("What is the capital of France?", "What is the capital city of France?") == []  # 2 of 3 words
    assert same("What is the capital of France?", "What is the capital city of France?", OneDirection()) == ["cosine 1.00"]


def test_whatever_the_cosine_other_names_and_numbers_are_another_question():
    for one, other in OTHER[:4]:
        assert same(one, other, OneDirection()) == []


def test_only_questions_that_the_words_leave_open_are_encoded_and_known_ones_once():
    known = {"a": "What is the capital of France?", "b": "What is the capital of Spain?", "c": "Who wrote Emma?"}
    encoder = OneDirection()
    questions = SameQuestions(known, encoder)
    assert [[each.question_id for each in found] for found in questions.find(["capital city of France?", "who wrote Emma"])] == [
        ["a"],
        ["c"],
    ]
    assert encoder.asked == ["capital city of France?", known["a"]]
    questions.find(["The capital town of France?"])
    assert encoder.asked[2:] == ["The capital town of France?"]


@pytest.mark.parametrize("ail", [RuntimeError, np.nan, np.inf, 0.0])
def test_an_ailing_encoder_is_a_fault_where_the_words_leave_it_open_and_only_there(ail):
    questions = SameQuestions({"a": "What is the capital of France?"}, Ailing(ail))
    (found,) = questions.find(["What's the capital of France?"])
    assert [tuple(each) for each in found] == [("a", "same content words")]
    with pytest.raises(RuntimeError if ail is RuntimeError else ValueError):
        questions.find(["What is the capital city of France?"])


def test_a_word_too_many_may_be_another_hop_where_an_encoder_can_tell():
    asked = "Which country has Noshak as its highest point?"
    hop = "What is the capital of the country whose highest point is Noshak?"  # 4 of 5 words
    assert SameQuestions({"a": asked}).find([hop]) != [[]], "words alone are on the safe side"
    assert SameQuestions({"a": asked}, HashEncoder(256)).find([hop]) == [[]]


def test_the_likeliest_comes_first():
    known = {"a": "Alpha beta gamma delta epsilon?", "b": "Is alpha beta gamma delta?", "c": "Omega?"}
    (found,) = SameQuestions(known).find(["alpha, beta, gamma and delta"])
    assert [tuple(each) for each in found] == [("b", "same content words"), ("a", "words 0.80")]


def test_near_duplicates_are_named_from_both_sides():
    questions = {
        "a": "What is the capital of France?",
        "b": "Which is France's capital",
        "c": "the France capital?",
        "d": "capital of Spain",
    }
    assert near_duplicates(questions) == {"a": ("b", "c"), "b": ("a", "c"), "c": ("a", "b")}


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_two_texts_are_compared_alike_from_both_sides(one, other):
    assert same(one, other, HashEncoder(8)) == same(other, one, HashEncoder(8))


def test_where_one_calculates_signs_and_their_order_count():
    assert calculation("What is 25 \u2212 60+1.5?") == ("25", "-", "60", "+", "1.5")
    assert calculation("Who is the well-known 2nd wife in AC/DC?") == ()
    assert same("What is 25 - 60 + 14?", "What's 25-60+14?") == []  # glued by a hyphen, its words are others
    for other in ("What is 25 - 60 - 14?", "What is 14 - 60 + 25?", "What is 25 + 60 - 14?"):
        assert same("What is 25 - 60 + 14?", other, OneDirection()) == []
    assert same("Solve $x^2 - 1 = 0$.", "solve x^2 - 1 = 0") == ["same content words"]
    assert same("Solve $x^2 - 1 = 0$.", "solve x^2 + 1 = 0") == []
