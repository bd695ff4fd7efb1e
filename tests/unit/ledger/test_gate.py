"""The gate, by hand-computed numbers, and what it does over many seeds."""

import random

import pytest

from hiexp_verl.config import GateConfig
from hiexp_verl.ledger.gate import compare, judge, mixed_groups
from hiexp_verl.ledger.rows import LedgerRow

OLD, NEW = "old", "new"


def group(number, old, new, step=1):
    versions = [(OLD, reward) for reward in old] + [(NEW, reward) for reward in new]
    return [LedgerRow(step, f"q{number}", session, version, "full", reward) for session, (version, reward) in enumerate(versions)]


def rows_of(count, gain, seed=0, n=2):
    drawn = random.Random(seed)
    rows = []
    for number in range(count):
        p = drawn.random() * 0.8 + 0.1
        rewards = [[float(drawn.random() < p + more) for _ in range(n)] for more in (0, gain)]
        rows += group(number, *rewards)
    return rows


def decided(rows, rule="strict", **more):
    return judge(rows, OLD, NEW, GateConfig(rule=rule, min_groups=50), **more)


def test_the_difference_and_its_error():
    groups = [group(1, [0, 1], [1, 1]), group(2, [0, 1], [0, 0]), group(3, [0, 1], [1, 1])]
    found = compare(groups, OLD, NEW)
    assert found.difference == pytest.approx(1 / 6)  # of 0.5, -0.5, 0.5
    assert found.error == pytest.approx(((1 / 9 + 4 / 9 + 1 / 9 + 1 / 36) / 9) ** 0.5)  # the last for one group more, with 0
    assert found.detectable(300, z=2.13) == pytest.approx((2.13 + 0.84) * found.error / 10)  # a hundred times as many groups


def test_groups_weigh_by_their_rollouts():
    found = compare([group(1, [0], [1]), group(2, [0, 0, 0], [0, 0, 0])], OLD, NEW)
    assert found.difference == pytest.approx(0.5 * 1 / (0.5 + 1.5))  # weights 1/2 and 9/6


def test_only_groups_with_both_versions_and_found_experience_are_compared():
    rows = [*group(1, [0], [1]), *group(2, [0, 1], []), *group(3, [], [1])]
    assert len(mixed_groups(rows, OLD, NEW)) == 1
    unguided = [LedgerRow(1, "q4", 0, OLD, "none", 1.0), LedgerRow(1, "q4", 1, NEW, "full", 1.0, lookup_failed=True)]
    assert len(mixed_groups(rows + unguided, OLD, NEW)) == 1


def test_it_waits_until_the_first_look_and_between_looks():
    assert decided(rows_of(49, 0.9)).decision == "wait"
    assert decided(rows_of(50, 0.9)).decision == "accept"
    unclear = decided(rows_of(60, 0.0))
    assert (unclear.decision, unclear.look, unclear.groups) == ("wait", 50, 60)


def test_asking_more_often_changes_nothing():
    rows = rows_of(200, 0.35)
    first = next(v for count in range(0, 201) if (v := decided(rows[: 4 * count])).decision != "wait")
    assert decided(rows) == judge(rows[: 4 * first.groups], OLD, NEW, GateConfig(rule="strict", min_groups=50)).__class__(
        **{**first.__dict__, "groups": 200}
    )


def test_harm_is_rejected_and_no_difference_keeps_the_incumbent():
    assert decided(rows_of(200, -0.4)).decision == "reject"
    same = [row for number in range(200) for row in group(number, [0, 1], [0, 1])]
    assert decided(same).decision == decided(same, rule="ratchet").decision == "no difference"
    assert decided(same, only_removes=True).decision == "accept", "the smaller bank wins"
    assert decided(same[:80], rule="always").decision == "accept"


def test_the_last_groups_are_looked_at_though_they_are_few():
    assert decided(rows_of(30, 0.9), last=True).decision == "accept"
    nothing = decided([], last=True)
    assert (nothing.decision, nothing.groups, nothing.to_json()["error"]) == ("no difference", 0, None)
    assert decided([], last=True, only_removes=True).decision == "no difference", "without a group nothing is known"


def test_two_groups_that_agree_are_not_enough():
    groups = [row for number in range(2) for row in group(number, [0, 0], [1, 1])]
    assert decided(groups, last=True).decision == "no difference"


def test_a_ratchet_takes_a_gain_that_cannot_be_ruled_out():
    # 0.1 in each of ten groups, 0 elsewhere: D = 0.02, z SE = 0.012; at z = 4 the bound is below 0 and above -0.01.
    rows = [row for number in range(50) for row in group(number, [0.5, 0.5], [0.6, 0.6] if number < 10 else [0.5, 0.5])]
    strict = judge(rows, OLD, NEW, GateConfig(rule="strict", min_groups=50, z=4.0))
    ratchet = judge(rows, OLD, NEW, GateConfig(rule="ratchet", min_groups=50, z=4.0))
    assert (strict.decision, ratchet.decision) == ("wait", "accept")
    assert strict.difference == pytest.approx(0.02) and strict.error == pytest.approx((50 * 0.04**2 + 0.02**2) ** 0.5 / 50)


def test_over_many_seeds_harm_is_rejected_and_nothing_is_seldom_accepted():
    harmful = [decided(rows_of(200, -0.2, seed)).decision for seed in range(60)]
    null = [decided(rows_of(200, 0.0, seed)).decision for seed in range(60)]
    assert harmful.count("accept") == 0 and harmful.count("reject") >= 57
    assert null.count("accept") <= 6
