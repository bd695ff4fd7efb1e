"""Drift over versions, by hand-computed numbers."""

import random

import pytest

from hiexp_verl.ledger.drift import Span, poisoned, spans_of, top_share, with_rows
from hiexp_verl.ledger.gate import compare
from hiexp_verl.ledger.rows import LedgerRow


def group(number, version, guided, unguided, step=1):
    arms = [("full", reward) for reward in guided] + [("none", reward) for reward in unguided]
    return [LedgerRow(step, f"q{number}", i, version if arm == "full" else "", arm, reward) for i, (arm, reward) in enumerate(arms)]


def test_the_gap_of_a_version_is_that_of_its_mixed_groups():
    rows = [*group(1, "v1", [1, 1], [0, 1]), *group(2, "v1", [1, 0], [1, 1], step=2), *group(3, "v1", [1], []), *group(4, "v2", [1], [0])]
    first, second = spans_of(rows)
    assert (first.hek, first.first, first.last, first.groups) == ("v1", 1, 2, 2)
    assert first.gap == 0.0 and first.reward == 0.75, "+0.5 and -0.5; the group without an unguided rollout is left out"
    assert first.error == pytest.approx((2 * 0.25 / 4) ** 0.5)
    assert (second.gap, second.error) == (1.0, float("inf"))


def test_the_sums_give_the_mean_of_the_gate():
    drawn = random.Random(0)
    rows = []
    for number in range(50):
        rows += group(
            number, "v1", [drawn.random() for _ in range(drawn.randint(1, 3))], [drawn.random() for _ in range(drawn.randint(1, 3))]
        )
    by_group = {}
    for row in rows:
        by_group.setdefault(row.group, []).append(row)
    (span,) = spans_of(rows)
    assert span.gap == pytest.approx(compare(list(by_group.values()), "", "v1").difference)
    halves = with_rows(with_rows(Span("v1"), rows[: len(group(0, "v1", [], []))]), rows)
    assert halves == span, "rows of no group change nothing"


def test_a_failed_look_up_and_another_version_do_not_count():
    rows = group(1, "v1", [1, 0], [0])
    failed = [LedgerRow(1, "q1", 9, "v1", "full", 1.0, lookup_failed=True), LedgerRow(1, "q1", 8, "v2", "full", 1.0)]
    assert with_rows(Span("v1"), [*rows, *failed]) == with_rows(Span("v1"), rows)


def versions(gaps, unguided, groups=10):
    """A span for each gap; the reward without experience is given, too."""
    spans = []
    for number, (gap, base) in enumerate(zip(gaps, unguided, strict=True)):
        spans += spans_of([row for g in range(groups) for row in group(g, f"v{number}", [base + gap], [base])])
    return spans


def test_a_gap_and_a_reward_that_fall_at_three_publications_are_self_poisoning():
    falling = versions([0.3, 0.2, 0.1, 0.0], [0.3] * 4)
    assert poisoned(falling, 10)
    assert not poisoned(falling[:3], 10) and not poisoned(falling[1:], 10), "two publications"
    assert not poisoned(falling, 11), "too few groups"
    assert not poisoned(versions([0.3, 0.2, 0.25, 0.0], [0.3] * 4), 10), "it rose once"
    assert not poisoned(versions([0.3, 0.2, 0.1, 0.0], [0.2, 0.4, 0.6, 0.8]), 10), "the policy needs the HEK less"


def test_the_gain_that_a_test_could_see_is_that_of_groups_which_vary_alike():
    rows = [row for number, guided in enumerate([1, 0, 1, 0]) for row in group(number, "v1", [guided], [0.5])]
    (span,) = spans_of(rows)
    assert span.error == pytest.approx(0.25), "four differences of 0.5 either way"
    assert span.detectable(400, z=2.13, rollouts=1) == pytest.approx((2.13 + 0.84) * 0.025)
    assert span.detectable(400, z=2.13, rollouts=4) == pytest.approx((2.13 + 0.84) * 0.025 / 2), "means of four vary half as much"
    assert Span("v1").detectable(400, z=2.13, rollouts=1) == span.detectable(0, z=2.13, rollouts=1) == float("inf")


def test_what_a_test_by_half_of_the_guided_rollouts_sees_is_known_before_it():
    drawn = random.Random(0)
    before, tested = [], []
    for number in range(400):
        p = 0.1 + 0.8 * drawn.random()
        rewards = [float(drawn.random() < p) for _ in range(8)]
        before += group(number, "v1", rewards[:4], rewards[4:])
        tested.append(group(number, "v1", rewards[:2], []) + group(number, "v2", rewards[2:4], []))
    seen = compare(tested, "v1", "v2").detectable(400, z=2.13)
    assert spans_of(before)[0].detectable(400, z=2.13, rollouts=2) == pytest.approx(seen, rel=0.1)


def test_the_share_of_the_most_shown_entry():
    seen = [{"content": content, "level": "e1", "place": "tool", "score": 0.9, "p": 1.0} for content in "aab"]
    rows = [LedgerRow(1, "q", i, "v1", "full", 0.0, (each,)) for i, each in enumerate(seen)]
    rows.append(LedgerRow(1, "q", 3, "v1", "random", 0.0, tuple(seen)))
    assert top_share(rows) == pytest.approx(2 / 3) and top_share([]) == 0.0
