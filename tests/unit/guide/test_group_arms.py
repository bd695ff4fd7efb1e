"""Mixed groups: rollout i of a group gets the i-th arm."""

import pytest

from hiexp_verl.config import parse_config
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.arms import arm_of, shows_at


def arms(n, **block):
    return [arm_of(session, parse_config(block)) for session in range(n)]


def test_without_arms_of_a_group_every_rollout_gets_the_run_s():
    assert arms(3) == ["full"] * 3
    assert arms(3, arm="none") == ["none"] * 3


def test_the_arms_of_a_group_go_round():
    assert arms(4, group={"arms": ["full", "none"]}) == ["full", "none", "full", "none"]
    assert arms(6, group={"arms": ["none", "prompt", "tool", "full"]}) == ["none", "prompt", "tool", "full", "none", "prompt"]


@pytest.mark.parametrize(
    ("block", "places"),
    [
        ({}, ["prompt", "tool"]),
        ({"enabled": False}, []),
        ({"arm": "none"}, []),
        ({"arm": "e1"}, ["tool"]),
        ({"arm": "none", "val_arm": "e2"}, ["prompt"]),
        ({"group": {"arms": ["none", "tool"]}}, ["tool", "prompt"]),
        ({"group": {"arms": ["none", "tool"]}, "val_arm": "none"}, ["tool"]),
    ],
)
def test_a_run_shows_experience_at_the_places_of_its_arms_and_of_validation(block, places):
    assert {place for place in ("prompt", "tool") if shows_at(place, parse_config(block))} == set(places)


@pytest.mark.parametrize(("key", "value"), [("arms", ["all"]), ("arms", "full"), ("shrinkage", -1.0), ("baseline", "arm")])
def test_a_wrong_setting_of_groups_is_refused(key, value):
    with pytest.raises(HiExpError, match=f"hiexp.group.{key}"):
        parse_config({"group": {key: value}})
