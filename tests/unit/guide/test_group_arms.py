"""Mixed groups: rollout i of a group gets the i-th arm."""

import pytest

from hiexp_verl.config import parse_config
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.arms import arm_of, arms_of, places_of


def arms(n, **block):
    return [arm_of(session, parse_config(block)) for session in range(n)]


def test_without_arms_of_a_group_every_rollout_gets_the_run_s():
    assert arms(3) == ["full"] * 3
    assert arms(3, arm="none") == ["none"] * 3


def test_the_arms_of_a_group_go_round():
    assert arms(4, group={"arms": ["full", "none"]}) == ["full", "none", "full", "none"]
    assert arms(6, group={"arms": ["none", "prompt", "tool", "full"]}) == ["none", "prompt", "tool", "full", "none", "prompt"]


def test_a_run_plays_the_arms_of_its_groups_and_that_of_validation():
    assert arms_of(parse_config({})) == {"full"}
    assert arms_of(parse_config({"group": {"arms": ["none", "tool"]}, "val_arm": "e3"})) == {"none", "tool", "e3"}
    assert arms_of(parse_config({"arm": "none"})) == {"none"}, "validation follows training where nothing else is set"


@pytest.mark.parametrize(
    ("arm", "places"), [("full", ("prompt", "tool")), ("none", ()), ("prompt", ("prompt",)), ("e1", ("tool",)), ("e2", ("prompt",))]
)
def test_an_arm_has_its_places(arm, places):
    assert places_of(arm) == places


@pytest.mark.parametrize(("key", "value"), [("arms", ["all"]), ("arms", "full"), ("shrinkage", -1.0), ("baseline", "arm")])
def test_a_wrong_setting_of_groups_is_refused(key, value):
    with pytest.raises(HiExpError, match=f"hiexp.group.{key}"):
        parse_config({"group": {key: value}})
