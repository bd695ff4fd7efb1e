"""Credit of entries, by hand-computed numbers."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl.ledger.credit import credit
from hiexp_verl.ledger.rows import LedgerRow
from tests.support.factories import entry

A, B = entry("e1-a", title="a"), entry("e1-b", title="b")
SEEN = ("shown", "masked")
PARENT = entry("e2-p", "e2", children=("e1-a", "e1-b"))


def exposure(of=A, **more):
    return {"content": of.content_id, "level": of.level, "place": "tool", "score": 0.9, "p": 0.9, **more}


def group(number, shown=(), masked=(), of=A, unguided=(0.0, 1.0), **more):
    """A group whose unguided rollouts have these rewards, and one rollout per reward that saw, or was not shown, the entry."""
    key = {"step": 1, "group": f"q{number}", "hek": "v1", **more}
    rows = [LedgerRow(session=session, arm="none", reward=reward, **key) for session, reward in enumerate(unguided)]
    for reward in shown:
        rows.append(LedgerRow(session=len(rows), arm="full", reward=reward, shown=(exposure(of),), **key))
    for reward in masked:
        rows.append(LedgerRow(session=len(rows), arm="full", reward=reward, masked=(exposure(of),), **key))
    return rows


def flat(groups):
    return [row for each in groups for row in each]


def test_the_effect_is_the_mean_difference_to_the_rollouts_without_experience():
    # Baseline 0.5; six rollouts with 1 and two with 0: 0.75 - 0.5. The squares of the deviations add up to 1.5, over 7.
    rows = flat(group(i, shown=[float(i < 6)]) for i in range(8))
    found = credit(rows).of[A.content_id]
    assert (found.exposures, found.groups, found.with_it, found.without) == (8, 8, 0.75, 0.5)
    assert found.effect == 0.25
    assert found.error == pytest.approx((1.5 / 7 / 8) ** 0.5)


def test_what_was_masked_takes_the_bias_off():
    # Look-ups happen where things go badly: the masked ones have 0.5 below the baseline, each, so the effect is 0.25 + 0.5.
    rows = flat(group(i, shown=[float(i < 6)], masked=[0.0] * (i < 2)) for i in range(8))
    found = credit(rows)
    assert found.bias["tool"] == (-0.5, 0.0) and found.masked == {"prompt": 0, "tool": 2}
    assert found.of[A.content_id].effect == 0.75


def test_what_another_version_does_is_not_the_effect_of_an_entry():
    # Under v1 rollouts earn 0.5 less than the baseline of 0.5, under v2 0.5 more, whatever E1 they are shown.
    rows = flat(group(i, shown=[0.0, 0.0], masked=[0.0]) for i in range(8))
    rows += flat(group(i, shown=[1.0], masked=[1.0], step=2, hek="v2") for i in range(8))
    rows += flat(group(i, shown=[1.0], of=B, step=3, hek="v2") for i in range(8))
    found = credit(rows)
    assert found.bias["tool"][0] == 0.0, "all sixteen that were masked, of both versions"
    # Their means are 1 apart and have no variance but the least one, 1e-4 / 8: between 0.5 - 1.25e-5.
    between, error2 = 0.5 - 1e-4 / 8, 1e-4 / 8
    assert found.bias_of["tool"]["v2"][0] == pytest.approx(0.5 * between / (between + error2))
    assert [found.of[each.content_id].effect for each in (A, B)] == pytest.approx([0.0, 0.0], abs=1e-4)
    same = credit([replace(row, hek="v1") for row in rows])
    assert same.of[B.content_id].effect == 0.5, "of one version all that was masked is one mean"


def test_an_e1_in_the_prompt_has_the_bias_of_the_prompt():
    rows = flat(group(i, shown=[float(i < 6)], masked=[0.0] * (i < 2)) for i in range(8))
    in_prompt = [replace(row, **{name: tuple({**each, "place": "prompt"} for each in getattr(row, name)) for name in SEEN}) for row in rows]
    found = credit(in_prompt)
    assert found.bias == {"prompt": (-0.5, 0.0), "tool": (0.0, 0.0)} and found.of[A.content_id].effect == 0.75, (
        "without a tool it stands there"
    )


def test_a_single_entry_is_shrunk_to_nothing_by_its_own_error():
    rows = flat(group(i, shown=[float(i < 6)], masked=[0.0] * (i < 2)) for i in range(8))
    found = credit(rows).of[A.content_id]
    error2 = 1.5 / 7 / 8
    kept = (0.75**2 - error2) / 0.75**2  # the variance of means around 0, less that of the estimate
    assert found.shrunk == pytest.approx(kept * 0.75)
    assert found.shrunk_error == pytest.approx((kept * error2) ** 0.5)
    assert found.low == pytest.approx(found.shrunk - 1.96 * found.shrunk_error)


def test_rollouts_of_one_group_are_one_observation():
    apart = flat(group(i, shown=[float(i % 2)]) for i in range(40))
    together = flat(group(i, shown=[float(i % 2)] * 4) for i in range(10))
    one, other = (credit(rows).of[A.content_id] for rows in (apart, together))
    assert one.exposures == other.exposures == 40 and one.effect == other.effect == 0.0
    # 40 observations of +-0.5 against 10: a variance of 10/39 over 40 and 10 * 4 / (160 (1 - 1/10)) over 10.
    assert one.error == pytest.approx((10 / 39 / 40) ** 0.5)
    assert other.error == pytest.approx((40 / 144 * 160 / 40**2) ** 0.5)


def test_an_entry_that_was_seldom_shown_has_what_its_siblings_have():
    rows = flat(group(i, shown=[1.0]) for i in range(30)) + group(99, shown=[0.0], of=B)
    found = credit(rows, [A, B, PARENT]).of
    assert found[B.content_id].exposures == 1 and found[B.content_id].effect == -0.5
    assert found[B.content_id].shrunk == found[A.content_id].shrunk == pytest.approx(0.5, abs=0.02)
    assert found[PARENT.content_id].groups == 0 and found[PARENT.content_id].shrunk == 0.0


def test_without_an_unguided_rollout_the_others_of_the_arm_are_the_baseline():
    key = {"step": 1, "group": "q1", "hek": "v1", "arm": "full"}
    rows = [LedgerRow(session=0, reward=1.0, shown=(exposure(),), **key), *(LedgerRow(session=s, reward=0.25 * s, **key) for s in (1, 2))]
    found = credit(rows).of[A.content_id]
    assert (found.with_it, found.without) == (1.0, pytest.approx(0.375))
    alone = credit(rows[:1])
    assert alone.of == {} and alone.without_baseline == 1


def test_failed_look_ups_and_other_arms_do_not_count():
    rows = group(1, shown=[1.0])
    assert credit([replace(row, lookup_failed=True) for row in rows]).of == {}
    assert credit([replace(row, arm="random") if row.arm == "full" else row for row in rows]).of == {}


def test_an_entry_that_two_searches_show_has_one_reward():
    row = group(1, shown=[1.0])[-1]
    rows = [*group(1), replace(row, shown=(exposure(search=1), exposure(search=2)))]
    assert credit(rows).of[A.content_id].exposures == 1


def test_a_new_version_discounts_what_was_before():
    rows = flat([group(1, shown=[1.0]), group(2, shown=[1.0]), group(3, shown=[0.0], hek="v2")])
    found = credit(rows, prior=2).of[A.content_id]
    assert found.exposures == 2 * 2 / (2 + 2) + 1  # two count as one
    assert found.with_it == 0.5
    late = flat([group(1, shown=[1.0]), group(2, shown=[1.0], hek="v2"), group(3, shown=[1.0])])
    assert credit(late, prior=1).of[A.content_id].exposures == 0.5 + 1 + 1, "a version that is seen again is not new"


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([A, B]), st.floats(0, 1), st.booleans()), max_size=40))
def test_any_rows_give_finite_guesses_and_intervals_around_them(drawn):
    rows = []
    for i, (number, of, reward, shown) in enumerate(drawn):
        more = {"shown" if shown else "masked": (exposure(of),)}
        rows.append(LedgerRow(1, f"q{number}", i, "v1", "full" if i % 3 else "none", reward, **(more if i % 3 else {})))
    for found in credit(rows, [A, B, PARENT]).of.values():
        assert abs(found.shrunk) <= 2 and found.shrunk_error >= 0 and found.low <= found.shrunk <= found.high
