"""Answers as they are written: numbers, words, hedges, gold answers of data sets."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl.domains.maths.answers import boxed_answer, clean, gold_of, hedges, number_of, other_base, words_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"So \boxed{5}.", "5"),
        (r"\boxed{5} and then \boxed{6}", "6"),  # the earlier one was taken back
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{\boxed{\boxed{\boxed{5}}}}", "5"),
        (r"\boxed{5} or \boxed{6", "5"),  # cut off: the last complete one
        (r"<answer>7</answer> \boxed{5}", "5"),
        (r"\boxed{5} <answer>7</answer>", "5"),  # only a box is an answer
        ("<answer>7</answer>", None),
        (r"\boxed {5}", "5"),
        (r"\boxed{ }", None),
        ("the answer is 5", None),
        ("", None),
    ],
)
def test_the_answer_is_the_last_complete_box(text, expected):
    assert boxed_answer(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("She makes 9 * 2 = $<<9*2=18>>18.\n#### 18", "18"),
        ("#### 1,234", "1,234"),
        ("1 #### 2 #### 3", "3"),
        (r"We get $x = \boxed{\frac43}$.", r"\frac43"),
        (" 42 ", "42"),
        ("The final answer is: $\\frac{1}{2}$.", "$\\frac{1}{2}$."),
        ("Answer: 7", "7"),
        ("answer is", "answer is"),
        ("####", ""),
    ],
)
def test_gold_answers_are_read_as_data_sets_write_them(text, expected):
    assert gold_of(text) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234", 1234),
        ("1 234", 1234),
        (r"1\,234", 1234),
        ("1{,}234", 1234),
        (r"11,\! 111,\! 111,\! 100", 11111111100),
        (r"\$32,\!348", 32348),
        (r"\frac59", Fraction(5, 9)),
        (r"\frac 59", Fraction(5, 9)),
        (r"\frac9{19}", Fraction(9, 19)),
        (r"\frac{270}7\text{ degrees}", Fraction(270, 7)),
        (r"-\dfrac{35}{9}", Fraction(-35, 9)),
        (r"137 \frac{1}{2}", Fraction(275, 2)),
        ("-1 4/5", Fraction(-9, 5)),
        ("11/2", Fraction(11, 2)),
        ("137 / 2", Fraction(137, 2)),
        (r"11\frac12", Fraction(23, 2)),
        ("1\u00bd", Fraction(3, 2)),
        (r"-0.1\overline{6}", Fraction(-1, 6)),
        (r"12.\overline{3}", Fraction(37, 3)),
        (".0000672", Fraction(672, 10**7)),
        ("1.5e3", 1500),
        ("\uff16", 6),  # full-width
        ("\u0666", 6),  # Arabic
        ("\u0661\u066c\u0660\u0660\u0660\u066b\u0665", Fraction(2001, 2)),
        ("\u200b6\u200f", 6),  # invisible
        ("\u20b96", 6),  # rupees
        ("`6`", 6),
        ("\u22122", -2),
        ("$6$.", 6),
        ("**6**", 6),
        (r"90^\circ", 90),
        ("75\u00b0", 75),
        (r"864 \mbox{ inches}^2", 864),
        ("48 clips per day", 48),
        ("about 6 km", 6),
        ("6km/h", 6),
        ("6 m/s", 6),
        ("6cm^2", 6),
        ("6 million", 6_000_000),
        (r"2\text{ dozen}", 24),
        (r"10\%", 10),
    ],
)
def test_a_number_is_read_with_its_separators_signs_and_units(text, value):
    found = number_of(clean(text))
    assert found is not None
    assert found.value == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "5 6",
        "5 or 6",
        "6 maybe",
        "6 or more",
        "6 halves",
        "6 m - h",
        "6 factorial",
        r"6\text{ or 5}",
        "6m",
        "2k",
        "7 pi",
        "6!",
        "1,23",
        "3.5.2",
        r"\frac{6}{0}",
        "6^{2}",
        "(6",
        "9" * 300,
    ],
)
def test_only_a_plain_number_is_read_as_one(text):
    assert number_of(clean(text)) is None


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (r"\frac13", "0.333333", True),
        (r"\frac13", "0.33", False),
        ("0.0000001", "0", False),
        ("1234567", "1234567.5", False),
        ("10%", "10", True),
        ("10%", "0.1", True),
        ("0.1", r"10\%", True),
        ("10%", "1", False),
        ("10%", "1000", False),
        ("0.5%", "0.5", True),
    ],
)
def test_numbers_are_equal_exactly_or_as_rounded_decimals(one, other, equal):
    left, right = number_of(clean(one)), number_of(clean(other))
    assert left is not None and right is not None
    assert left.equals(right) is equal


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\text{Evelyn}", "evelyn"),
        (r"\text{(C)}", "c"),
        ("(C)", "c"),
        (r"\mbox{June 20}", "june 20"),
        (r"\text{(C), (A)}", "a c"),
        ("C, A", "a c"),
        (r"\{A, C\}", "a c"),
        ("C and A", "a c"),
        ("(a,b)", None),  # a point
        ("a-b", None),
        ("a, b+c", None),
        ("Navin", "navin"),
        ("no", "no"),
        ("xy", None),
        ("sin x", None),
        (r"\pi", None),
        ("p - q", None),
    ],
)
def test_words_are_not_taken_for_formulas(text, expected):
    assert words_of(clean(text)) == expected


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("5 or 6", "6", True),
        (r"5 \text{ or } 6", "6", True),
        ("5 6", "11", True),
        ("not 6", "6", True),
        ("6, perhaps", "6", True),
        ("x=5 or x=-5", "5, -5", False),
        ("5 or -5", r"\pm 5", False),
        ("1 4/5", "9/5", False),
        (r"\log_2 8", "3", False),
        (r"2^3 5", "40", False),
        (r"6 \text{ versus 5}", "6", True),
        (r"\text{June 20}", "June 20", False),
        ("x + 1", "1 + x", False),
    ],
)
def test_a_second_value_or_a_doubt_is_a_hedge(answer, gold, expected):
    assert hedges(answer, gold) is expected


def test_another_base_is_another_numeral():
    assert other_base("52_7", "52_{8}")
    assert not other_base("52_8", "52_{8}")
    assert not other_base("52", "52_8")


@given(
    st.text(alphabet=st.sampled_from("0123456789,. {}()\\$%^_/-+=*fractext pior\u0666\u00b2\u00bd\n"), max_size=1000)
    | st.text(max_size=1000)
)
def test_no_text_is_too_odd_or_too_slow_to_read(text):
    start = time.process_time()
    cleaned = clean(text)
    number_of(cleaned), words_of(cleaned), hedges(cleaned, cleaned), other_base(cleaned, cleaned), boxed_answer(text), gold_of(text)
    assert time.process_time() - start < 1.0
