"""Intervals and paired tests."""

import numpy as np
import pytest

from hiexp_verl.errors import HiExpError
from hiexp_verl.evaluate.statistics import mean_interval, paired_difference


def test_a_difference_is_paired_by_question():
    found = paired_difference({"a": 1.0, "b": 0.5, "c": 1.0}, {"c": 0.0, "a": 0.5, "b": 0.5})
    assert found.mean == pytest.approx(0.5)  # (0.5 + 0 + 1) / 3
    assert 0.0 <= found.low < 0.5 < found.high <= 1.0
    assert found.p == 0.5  # of 8 swaps of signs, +-1.5 come about 4 times: the middle one is 0 either way


def test_a_constant_difference_has_no_width():
    found = paired_difference({"a": 1.0, "b": 0.5, "c": 1.0}, {"a": 0.75, "b": 0.25, "c": 0.75})
    assert (found.mean, found.low, found.high, found.p) == (0.25, 0.25, 0.25, 0.25)  # 2 of 8 swaps are as far from 0
    same = {"a": 1.0, "b": 0.5}
    assert vars(paired_difference(same, same)) == {"mean": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}


def test_other_questions_or_one_alone_are_refused():
    with pytest.raises(HiExpError, match="2 questions were played in one arm only"):
        paired_difference({"a": 1.0, "b": 1.0}, {"a": 1.0, "c": 1.0})
    with pytest.raises(HiExpError, match="at least 2 questions, found 1"):
        paired_difference({"a": 1.0}, {"a": 1.0})


def test_a_real_difference_has_a_small_p():
    chance = np.random.default_rng(0)
    base = {str(i): float(chance.random() < 0.4) for i in range(200)}
    better = {q: max(value, float(chance.random() < 0.3)) for q, value in base.items()}
    shuffled = dict(zip(base, chance.permutation(list(base.values())), strict=True))
    assert paired_difference(better, base).p < 0.01 and paired_difference(better, base).low > 0
    assert paired_difference(shuffled, base).p > 0.05
    assert paired_difference(better, base) == paired_difference(dict(reversed(better.items())), base), "the same rows, the same table"


def test_the_interval_of_a_mean_holds_it():
    low, high = mean_interval({str(i): float(i % 2) for i in range(100)})
    assert 0.38 < low < 0.5 < high < 0.62  # 0.5 +- 1.96 * 0.05


def test_p_is_exact_where_it_can_be():
    def p(better, worse, same):
        values = [1.0] * better + [-1.0] * worse + [0.0] * same
        return paired_difference({str(i): v for i, v in enumerate(values)}, {str(i): 0.0 for i in range(len(values))}).p

    assert p(7, 1, 56) == pytest.approx(18 / 256)  # 9 of 256 swaps leave at most one on the other side, twice
    assert p(5, 4, 40) == pytest.approx(1.0) and p(2, 0, 14) == pytest.approx(0.5)
    halves = {"a": 1.0, "b": 0.5, "c": 0.5, **{str(i): 0.0 for i in range(61)}}
    assert paired_difference(halves, dict.fromkeys(halves, 0.0)).p == pytest.approx(0.25), "2 of the 8 swaps of what differs"


def test_an_interval_of_all_or_none_is_not_a_point():
    assert mean_interval({str(i): 0.0 for i in range(40)}) == pytest.approx((0.0, 1 - 0.025 ** (1 / 40)))
    assert mean_interval({str(i): 1.0 for i in range(40)}) == pytest.approx((0.025 ** (1 / 40), 1.0))
    assert mean_interval({"a": 0.5, "b": 0.5}) == (0.5, 0.5), "F1 has no such test"


def test_the_last_digit_is_no_difference():
    values = {str(i): (0.1 + 0.2 + 0.3) / 3 for i in range(40)}
    others = {str(i): (0.3 + 0.2 + 0.1) / 3 for i in range(40)}
    assert values != others
    assert vars(paired_difference(values, others)) == {"mean": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
