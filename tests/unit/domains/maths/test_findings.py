"""What went wrong in a derivation is computed; numbers by hand."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl.domains.maths.findings import Parting, findings, form_of, parting_of, unused_numbers
from hiexp_verl.domains.maths.reading import steps

PROBLEM = "Ann has 12 boxes with 3 pens each. She gives away 6 pens. How many pens has she left?"
RIGHT = "There are 12*3=36 pens.\nThen 36-6=30 are left.\n\\boxed{30}"


def test_a_text_without_a_box_has_no_answer():
    found = findings(PROBLEM, "There are 12*3=36 pens. Then 36-6=30 are left.", ["30"])
    assert (found.finding, found.answer) == ("no_boxed_answer", "")
    assert findings(PROBLEM, "There are 12*3=36 pens. Then 36", ["30"], is_cut=True).finding == "length_limit"
    assert findings(PROBLEM, "6 \\boxed{36} and so on", ["30"], is_cut=True).finding != "length_limit"


def test_a_wrong_calculation_is_the_slip_of_its_step():
    found = findings(PROBLEM, "There are 12*3=46 pens.\nThen 46-6=40 are left.\n\\boxed{40}", ["30"], RIGHT)
    assert found.finding == "arithmetic_slip"
    assert found.slip is not None
    assert (found.slip.step, found.slip.calculation.text, found.slip.calculation.computed) == (0, "12*3=46", 36)
    assert found.parting == Parting(0, 0)  # 46 here, 36 there


def test_a_number_of_the_problem_that_only_the_success_uses_is_a_condition_unused():
    found = findings(PROBLEM, "There are 12*3=36 pens.\n\\boxed{36}", ["30"], RIGHT)
    assert (found.finding, found.unused) == ("unused_condition", (6,))
    assert found.parting == Parting(1, 1)  # nothing new here: its end; 30 there


def test_numbers_that_the_success_lacks_are_not_conditions():
    found = findings(PROBLEM + " She is 9 years old.", "12*3=36, 36-6=29\n\\boxed{29}", ["30"], RIGHT)
    assert (found.finding, found.unused) == ("arithmetic_slip", ())
    assert findings(PROBLEM + " She is 9 years old.", "12*3=36, 36-6=31\n\\boxed{31}", ["30"]).unused == (9,)
    assert findings(PROBLEM, "12*3=36\n\\boxed{36}", ["30"]).finding == "unexplained"  # without a success it may not matter


def test_a_percentage_may_be_used_as_a_share():
    assert findings("Of 200 pens 25% are red.", "200 * 0.75 = 150\n\\boxed{150}", ["50"]).unused == ()


def test_a_right_value_that_is_not_boxed_was_lost():
    found = findings(PROBLEM, "12*3=36.\n36-6=30.\nOf these she gives 6, so 24 are left.\n\\boxed{24}", ["30"])
    assert (found.finding, found.lost_at) == ("right_value_lost", 1)
    assert findings(PROBLEM, "First \\boxed{30}.\nNo: \\boxed{24}", ["#### 30"]).lost_at == 0
    # 12 is a number of the problem: "= 12" may be only that
    assert findings(PROBLEM, "boxes = 12\n\\boxed{24}", ["12"]).lost_at is None


def test_a_right_formula_that_is_not_boxed_was_lost():
    assert findings("Simplify.", "So $y = x^2 + 1$.\nThus \\boxed{x^2}", ["x^2+1"]).finding == "right_value_lost"


@pytest.mark.parametrize(
    ("answer", "gold", "form"),
    [
        ("0.33", r"\frac13", "rounded"),
        ("0.4", r"\frac13", ""),
        ("50", "0.5", "unit"),
        ("90", "1.5", "unit"),  # minutes for hours
        ("-50", "0.5", ""),
        ("5 or 6", "6", "two_answers"),
        (r"5 \text{ or } 6", "6", "two_answers"),
        ("5 or 7", "6", ""),
        ("(2,5)", "[2,5)", "interval"),
        (r"x \in [2, 5]", "[2,5)", "interval"),
        ("[2,6)", "[2,5)", ""),
        ("six", "6", "words"),
        ("seven", "6", ""),
        (r"y=\sqrt{x+1", r"\sqrt{x+1", "unreadable"),
        ("7", "6", ""),
        ("", "6", ""),
    ],
)
def test_the_right_answer_in_another_form_is_known(answer, gold, form):
    assert form_of(answer, gold) == form


def test_a_form_is_a_finding():
    found = findings(PROBLEM, "12*3=36, 36-6=30. \\boxed{thirty}", ["30"])
    assert (found.finding, found.form) == ("answer_form", "words")


def test_restarts_and_loops_are_found():
    assert findings(PROBLEM, "We add.\nLet me start over.\n\\boxed{5}", ["30"]).restart_at == 1
    assert findings(PROBLEM, "We add 12.\nWait, no.\nHmm.\nWait.\n\\boxed{5}", ["30"]).restart_at == 3
    assert findings(PROBLEM, "We add 12 and 3.\nThat is 15.\n" * 3 + "\\boxed{15}", ["30"]).restart_at == 4  # said for the third time
    assert findings(PROBLEM, "So " + "the pens and " * 60, ["30"], is_cut=True).restart_at == 0
    assert findings(PROBLEM, RIGHT, ["31"]).restart_at is None


def test_what_is_not_computed_is_unexplained():
    assert findings("How many?", "There are many ways.\n\\boxed{5}", ["9"]).finding == "unexplained"


def test_derivations_without_numbers_part_where_their_words_do():
    wrong = steps("The triangle is equilateral.\nHence all sides agree.\nThe answer is no.")
    right = steps("The triangle is equilateral.\nOne angle differs from another.\nThe answer is yes.")
    assert parting_of(wrong, right) == Parting(1, 1)
    assert parting_of([], right) is None


@given(st.text(), st.text(alphabet=st.sampled_from("0123456789=+-*/() .\n\\boxed{}$,%orfrac[]")), st.text(max_size=30))
def test_no_text_crashes_the_diagnosis(problem, text, gold):
    start = time.process_time()
    findings(problem, text, [gold], text[::-1])
    findings(text, problem, [gold])
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize(
    "text",
    [
        "1+1=1" * 8_000,
        "".join(f"= {n} " for n in range(6_000)),
        "\n".join(f"{n}+{n}={n}" for n in range(3_000)),
        "\\boxed{" * 6_000,
        "= " * 20_000,
        "=" + " " * 40_000,
        "wait " * 8_000,
        "x" * 1_000_000 + "\\boxed{5}",
        "3 + 4 = 8. " * 100_000,
    ],
)
def test_a_diagnosis_of_a_long_text_is_in_time(text):
    start = time.process_time()
    findings(PROBLEM, text, ["30", r"\frac{1}{2}"], RIGHT)
    assert time.process_time() - start < 1.0


def test_the_numbers_of_list_items_and_steps_are_not_values():
    problem = "Ann has 5 more than half of 40. How many?"
    wrong, right = "1. Half of 40 is 20.\n5. So she has 20.\n\n**Step 7:** \\boxed{20}", "Half of 40 is 20.\n20 + 5 = 25\n\\boxed{25}"
    assert unused_numbers(problem, wrong, right) == (5,)
    assert parting_of(steps(wrong), steps(right), problem) == Parting(2, 1), "no number of the failure is new: its last step"
