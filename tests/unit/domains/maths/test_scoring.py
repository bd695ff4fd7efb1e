"""Answers of mathematics are scored by math-verify in processes of their own, which may hang, die or be wrong."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest

from hiexp_verl.domains.maths import verifier as pool
from hiexp_verl.domains.maths import worker
from hiexp_verl.domains.maths.scoring import equal, score, score_text
from hiexp_verl.domains.maths.verifier import KNOWN, Verifier
from hiexp_verl.errors import HiExpError

TOWER = "10^{10^{10}}"


@pytest.fixture(scope="module")
def verifier():
    pytest.importorskip("math_verify")
    with Verifier(workers=2) as started:
        yield started


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("(x-1)(x+1)", "x^2-1"),
        (r"2\sqrt2", r"\sqrt{8}"),
        ("x=6", "6"),
        ("1+5=6", "6"),
        ("6", "x = 6"),
        ("x = 10{,}080", "10080"),
        (r"2\le x<5", "[2,5)"),
        (r"x\in[2,5)", "[2, 5)"),
        (r"\{2,1\}", r"\{1,2\}"),
        ("2, 1", "1,2"),
        (r"x=5 \text{ or } x=-5", "5,-5"),
        (r"\pm 5", "5,-5"),
        (r"\left(3,\frac{\pi}{2}\right)", r"(3, \frac\pi2)"),
        (r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
        ("3+4i", "4i+3"),
        (r"\text{evelyn}", "Evelyn"),
        ("C", r"\text{(C)}"),
        (r"48\text{ clips}", "48"),
        ("11/2", "5.5"),
        (r"\log_2 8", "3"),
        ("2\u221a2", r"\sqrt{8}"),
        ("pi/2", r"\frac{\pi}{2}"),
        ("x**2 - 1", "x^2-1"),
        ("-b+a", "a-b"),
        (r"\text{B, A}", "A,B"),
        ("1,234", "So she has 1234.\n#### 1,234"),
        (r"\varnothing", r"\emptyset"),
        ("\u0666", "6"),
        ("{6}", "6"),
        ("x \u2208 (-\u221e, 5]", r"(-\infty,5]"),
        ("0\u2264x\u22645", "[0,5]"),
        ("3 \u00d7 10^5", "300000"),
    ],
)
def test_equal_answers_score_one(verifier, answer, gold):
    assert score(answer, [gold], verifier).correct


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("5 or 6", "6"),
        ("5, 6", "6"),
        ("5 6", "11"),
        ("5 = 6", "6"),
        (r"\{5, 6\}", "6"),
        (r"\pm 6", "6"),
        (r"x \le 6", "6"),
        ("(2,5)", "[2,5)"),
        ("x^2+1", "x^2-1"),
        ("y=5", "x=5"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 3 \end{pmatrix}"),
        ("nylevE", "Evelyn"),
        ("(B)", r"\text{(C)}"),
        ("6 million", "6"),
        ("11/2", "3/2"),
        (r"6 \text{ versus 5}", "6"),
        (r"6 \text{ maybe}", "6"),
        # not known to math-verify: i * i, degrees, two inequalities as a union
        (r"\frac{1}{i}", "-i"),
        (r"\sin 30^\circ", "0.5"),
        (r"x<2 \text{ or } x>3", r"(-\infty,2)\cup(3,\infty)"),
        ("(b,a)", "(a,b)"),
        (r"6\text{ million}", "6"),
        ("52_7", "52_8"),
        ("six", "6"),  # a number in words is not read
        (r"\frac{6}{", "6"),  # LaTeX that cannot be parsed
        (r"\left(6", "6"),
        ("6" * 2000, "6"),
        (r"\boxed", "6"),
    ],
)
def test_other_answers_hedges_and_broken_latex_score_zero(verifier, answer, gold):
    found = score(answer, [gold], verifier)
    assert (found.reward, found.correct, found.format) == (0.0, False, 1.0)


def test_without_a_box_there_is_nothing_to_score():
    assert score_text("It is 6.", ["6"]).format == 0.0
    assert score(" ", ["6"]).reward == 0.0


def test_the_best_of_several_gold_answers_counts(verifier):
    assert score_text(r"Hence \boxed{0.5x}.", ["3", r"\frac{x}{2}"], verifier).reward == 1.0


def test_an_answer_of_a_megabyte_is_bounded(verifier):
    start = time.perf_counter()
    assert score_text("x+" * 500_000 + r"\boxed{" + "(" * 1_000_000 + "}", ["6"], verifier).reward == 0.0
    assert score_text("7 " * 500_000 + r"\boxed{6}", ["6"], verifier).reward == 1.0
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("answers", ["6", [], [" "], ["####"]])
def test_without_a_gold_answer_nothing_is_scored(answers):
    with pytest.raises(HiExpError, match="give a list with at least one text"):
        score("6", answers)


def test_a_verifier_that_hangs_is_counted_and_replaced(verifier, caplog):
    with Verifier(seconds=0.5) as hanging:
        assert not equal(TOWER, "5", hanging)
        hanging.seconds = 60
        assert equal("(x-1)(x+1)", "x^2-1", hanging)
    assert (hanging.counts["asked"], hanging.counts["timeouts"]) == (2, 1)
    assert "took too long" in caplog.text


def test_a_process_that_dies_is_counted_and_replaced(verifier):
    with Verifier(seconds=60) as mortal:
        process = mortal._workers[0]._process
        threading.Timer(0.5, os.kill, (process.pid, signal.SIGKILL)).start()
        assert not equal(TOWER, "5", mortal)
        assert mortal.counts["crashes"] == 1
        assert equal("(x-1)(x+1)", "x^2-1", mortal)


def test_threads_get_their_own_verdicts(verifier):
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda n: equal(f"x+{n % 7}", f"{n % 5}+x", verifier), range(70)))
    assert found == [n % 7 == n % 5 for n in range(70)]


def test_threads_share_one_verifier(verifier):
    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(lambda _: id(pool.shared()), range(4)))) == 1


def test_a_process_out_of_memory_is_given_up_and_an_error_is_counted(verifier, monkeypatch, caplog):
    import math_verify

    monkeypatch.setattr(math_verify, "verify", Mock(side_effect=MemoryError))
    with pytest.raises(MemoryError):  # it would fail every later question, too
        worker.verdict("x", "y")
    monkeypatch.setattr(math_verify, "verify", Mock(side_effect=TypeError))
    assert worker.verdict("x", "y") == {"equal": False, "failures": True}
    with Verifier() as failing:
        monkeypatch.setattr(failing, "_ask", lambda *_: {"equal": False, "failures": True})
        assert not failing.equal("x", "y")
    assert failing.counts["failures"] == 1
    assert "raised an error on 'x'" in caplog.text


def test_what_was_asked_before_is_not_asked_again(verifier):
    with Verifier() as asked:
        assert [equal("2x+x", "3x", asked) for _ in range(3)] == [True] * 3
    assert (asked.counts["asked"], asked.counts["repeated"]) == (1, 2)


def test_a_gold_answer_that_cannot_be_read_is_counted_and_logged(verifier, caplog):
    before = verifier.counts["unread_gold"]
    assert equal(r"\frac{6}{", r"\frac{6}{", verifier)  # the same text
    assert not equal("x+1", r"\frac{6}{", verifier)
    assert verifier.counts["unread_gold"] == before + 1
    assert "cannot read the gold answer" in caplog.text


def test_a_verifier_that_scores_everything_zero_fails_at_the_start(tmp_path, monkeypatch):
    broken = tmp_path / "math_verify" / "__init__.py"
    broken.parent.mkdir()
    broken.write_text("LatexExtractionConfig = dict\nparse = lambda *a, **k: []\nverify = lambda *a, **k: False\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(HiExpError, match=r"does not score as it must: .*expected equal=True; reinstall it"), Verifier():
        pass


def test_many_answers_in_a_row_without_a_verdict_are_odd_answers_or_a_broken_verifier():
    known = {(answer, gold): equal for answer, gold, equal in KNOWN}

    def asked(verifier, number, still_works):
        verifier._ask = lambda answer, gold, _: (
            {"equal": known[answer, gold]} if still_works and (answer, gold) in known else {"crashes": True}
        )
        return [verifier.equal(f"x+{n}", "y") for n in range(number)]

    assert asked(Verifier(), 45, still_works=True) == [False] * 45, "the answers are odd"
    assert asked(Verifier(), 19, still_works=False) == [False] * 19
    with pytest.raises(HiExpError, match="math-verify does not score as it must"):
        asked(Verifier(), 20, still_works=False)


def test_a_verifier_that_cannot_be_imported_says_why(tmp_path, monkeypatch):
    (tmp_path / "math_verify.py").write_text("raise ImportError('no antlr4 here')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(HiExpError, match=r"does not start \(ImportError\('no antlr4 here'\)\)"), Verifier():
        pass


def test_without_math_verify_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(pool, "find_spec", lambda name: None)
    with pytest.raises(HiExpError, match=r"not installed; pip install hiexp_verl\[maths\]"), Verifier():
        pass


def test_importing_the_scorer_imports_no_math_verify():
    code = "import sys, hiexp_verl.domains.maths.scoring; sys.exit(', '.join(sorted({'math_verify', 'sympy', 'torch'} & set(sys.modules))) or 0)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
