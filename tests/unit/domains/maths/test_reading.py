"""Steps of a derivation, its prompt, and problems without names and numbers."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl.domains.maths.reading import MAX_CHARS, has_formula, kind_of, mask, numbers_in, steps


def test_lines_and_sentences_are_steps_with_their_places():
    text = "First, 3.5 * 2 = 7.  Then add 1.\n\nSo 7 + 1 = 8.\n1. Dr. Lee has 8 eggs, e.g. brown ones."
    found = steps(text)
    assert [step.text for step in found] == [
        "First, 3.5 * 2 = 7.",
        "Then add 1.",
        "So 7 + 1 = 8.",
        "1. Dr. Lee has 8 eggs, e.g. brown ones.",
    ]
    assert all(text[step.start : step.end] == step.text for step in found)


def test_a_displayed_formula_is_one_step():
    text = "We have\n\\[\nx = 2.\n\\]\nThus\n\\begin{align*}\ny &= 3 \\\\\n z &= 4.\n\\end{align*}\nDone."
    assert [step.text for step in steps(text)] == [
        "We have",
        "\\[\nx = 2.\n\\]",
        "Thus",
        "\\begin{align*}\ny &= 3 \\\\\n z &= 4.\n\\end{align*}",
        "Done.",
    ]


def test_of_a_long_derivation_the_first_and_the_last_half_are_read():
    text = "One step.\n" * 10_000
    found = steps(text)
    assert len(found) == MAX_CHARS // len("One step.\n")
    assert text[found[-1].start : found[-1].end] == "One step."
    assert found[-1].end == len(text) - 1


def test_numbers_are_read_with_separators_and_in_words():
    assert numbers_in("She sold 1,234 clips, 48.5 kg and .5 more to three friends; 30mph, H2O") == [1234, 48.5, 0.5, 3, 30]
    assert numbers_in("Thirty-two and forty of ninety-nine, twenty-first") == [32, 40, 99, 20]
    assert numbers_in("9" * 5000) == []


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        ("Natalia sold 48 clips.", "X sold N clips."),
        (
            "Weng earns $12 an hour. Yesterday, she gave Betty 50%. How much has Weng left?",
            "X earns $N an hour. Yesterday, she gave Y N%. How much has X left?",
        ),
        ("Every day, Wendi feeds 20 chickens three cups at 1:30 PM.", "Every day, X feeds N chickens N cups at N:N PM."),
        ("If $f(x) = \\frac{3x-2}{x-2}$, find $f(-2)$.", "If $f(x) = \\frac{Nx-N}{x-N}$, find $f(-N)$."),
        ("Find $x^2 + 7$ [asy] draw(0,1); [/asy] in 12 cm.", "Find $x^2 + N$ [figure] in N cm."),
        ("", ""),
    ],
)
def test_a_problem_is_masked_to_its_kind(problem, expected):
    assert mask(problem) == expected


def test_problems_of_one_kind_are_masked_alike():
    assert mask("Ann has 3 apples and buys 12. How many has Ann?") == mask("Ben has 40 apples and buys 7. How many has Ben?")


@given(st.text())
def test_no_text_crashes_the_reader(text):
    assert all(text[step.start : step.end] == step.text for step in steps(text))
    numbers_in(text)
    mask(text)


@pytest.mark.parametrize(
    "text", ["\\[" * 20_000, "$$ " * 13_000, "\\begin{a}" * 4_000, "a\n" * 20_000, " " * 40_000, "1. " * 13_000, "A. B " * 8_000]
)
def test_odd_long_texts_are_read_in_time(text):
    start = time.process_time()
    steps(text)
    numbers_in(text)
    mask(text[:10_000])
    assert time.process_time() - start < 1.0


def test_the_kind_of_a_problem_is_its_masked_end_within_a_title():
    problem = (
        "Toulouse has twice as many sheep as Charleston. Charleston has 4 times as many sheep as Seattle. How many sheep do they have?"
    )
    assert kind_of(problem) == "X has twice as many sheep as Y. Y has N times as many sheep as Z. How many sheep do they have?"
    assert kind_of(f"They counted no goats in all the years before that. {problem}") == kind_of(problem), "there is no room for more"
    assert kind_of("What is $x$? Express your answer as a fraction.") == "What is $x$?"
    assert kind_of("What is $2+2$?") == mask("What is $2+2$?")


@pytest.mark.parametrize(
    ("problem", "has"),
    [
        ("Jill gets $20 per hour to teach and $30 to coach.", False),
        ("Pens cost $3, books cost $5, and Jill pays $50.", False),
        ("She has $5.", False),
        ("What is $x$?", True),
        ("If $2x = 6$, what is $x$?", True),
        ("Solve \\(x = 2\\).", True),
    ],
)
def test_a_price_is_not_a_formula(problem, has):
    assert has_formula(problem) is has
    assert "Jill" not in mask(problem)
