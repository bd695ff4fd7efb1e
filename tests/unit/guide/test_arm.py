"""Mixed groups: who sees what is known from the session's index."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl.config import GroupConfig, parse_config
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.arms import arm_of, guided


def arms(n, **group):
    return [arm_of(session, n, GroupConfig(**group)) for session in range(n)]


def test_by_default_every_rollout_sees_experience():
    assert arms(3) == ["all"] * 3
    assert arms(3, with_experience=0.0) == ["none"] * 3


def test_the_first_sessions_are_guided():
    assert arms(4, with_experience=0.5) == ["all", "all", "none", "none"]
    assert arms(5, with_experience=0.75) == ["all"] * 4 + ["none"]


def test_strata_go_round():
    assert arms(6, stratified=True) == ["none", "start", "step", "all", "none", "start"]


@given(st.integers(2, 64), st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_a_share_between_none_and_all_is_always_mixed(n, share):
    assert 1 <= guided(n, share) <= n - 1


@pytest.mark.parametrize(("key", "value"), [("with_experience", 1.5), ("with_experience", -0.1), ("shrinkage", -1.0), ("baseline", "arm")])
def test_settings_out_of_range_are_refused(key, value):
    with pytest.raises(HiExpError, match=f"hiexp.group.{key} must be"):
        parse_config({"group": {key: value}})
