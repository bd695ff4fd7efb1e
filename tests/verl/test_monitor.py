"""A run that expects experience and shows none stops, and says why."""

import pytest

from hiexp_verl.config import parse_config
from hiexp_verl.errors import HiExpError
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.plugin.monitor import Expectation
from tests.support.factories import entry, hek_of

ENTRIES = [entry("e1-1"), entry("e2-1", "e2", title="a pattern of it"), entry("e3-1", "e3", title="a strategy of it")]


def expectation(entries=ENTRIES, **block):
    return Expectation(parse_config(block), hek_of(entries, HashEncoder(32)), n=4)


def play(expected, steps, hit=0.0, fire=0.0):
    for _ in range(steps):
        expected.check({"hiexp/e2_e3_hit_rate": hit, "hiexp/e1_fire_rate": fire})


def test_silence_in_the_first_steps_stops_the_run():
    expected = expectation()
    play(expected, 4)
    with pytest.raises(HiExpError, match=r"in 5 steps no episode was shown E2 or E3.*hiexp.expect.prompt=false"):
        play(expected, 1)


def test_each_place_must_speak_once():
    expected = expectation(expect={"after": 2})
    play(expected, 1, hit=1.0)
    with pytest.raises(HiExpError, match="no search call got an E1"):
        play(expected, 1)
    expected = expectation(expect={"after": 2})
    play(expected, 1, hit=1.0, fire=0.1)
    play(expected, 9)  # later silence is for the alarms, not for this


@pytest.mark.parametrize(
    "block",
    [
        {"group": {"arms": ["none"]}},
        {"arm": "none"},
        {"arm": "none", "val_arm": "full"},
        {"expect": {"prompt": False, "tool": False}},
        {"prompt": {"max_tokens": 0}, "tool": {"max_tokens": 0}},
    ],
)
def test_nothing_is_expected_where_nothing_can_be_shown(block):
    play(expectation(**block), 9)


def test_a_level_that_the_hek_lacks_is_not_expected():
    with pytest.raises(HiExpError, match="E2 or E3"):
        play(expectation(ENTRIES[1:]), 5)
    play(expectation(ENTRIES[:1]), 5, fire=0.5)


def test_an_arm_that_no_session_has_expects_nothing():
    expected = Expectation(
        parse_config({"group": {"arms": ["none", "prompt", "tool", "full"]}}), hek_of(ENTRIES, HashEncoder(32)), n=2
    )  # none, prompt
    play(expected, 9, hit=1.0)


def test_a_resumed_run_remembers_what_has_spoken():
    expected = expectation(expect={"after": 3})
    play(expected, 2, hit=1.0, fire=0.5)
    resumed = expectation(expect={"after": 3})
    resumed.load(expected.state())
    play(resumed, 5)
    assert resumed.state() == {"steps": 7, "silent": []}


def test_a_step_in_which_most_look_ups_fail_stops_the_run_at_any_time():
    spoken = {"hiexp/e2_e3_hit_rate": 1.0, "hiexp/e1_fire_rate": 1.0}
    expected = expectation()
    for share in (0.0, 0.5, 0.1, 0.0, 0.0, 0.0, 0.0):
        expected.check({**spoken, "hiexp/lookup_failures": share})
    with pytest.raises(HiExpError, match=r"51% of the look-ups.*resume.*hiexp.expect.lookup_failures=1"):
        expected.check({**spoken, "hiexp/lookup_failures": 0.51})
    expectation(expect={"lookup_failures": 1}).check({**spoken, "hiexp/lookup_failures": 1.0})


def test_a_run_that_was_stopped_stops_again_when_it_is_resumed():
    expected = expectation(expect={"after": 2})
    play(expected, 1)
    with pytest.raises(HiExpError):
        play(expected, 1)
    resumed = expectation(expect={"after": 2})
    resumed.load(expected.state())
    with pytest.raises(HiExpError, match="in 3 steps"):
        play(resumed, 1)


def test_a_run_too_short_to_be_stopped_is_warned_of_at_its_end(caplog):
    expected = expectation()
    play(expected, 2, hit=1.0)
    assert not caplog.text
    expected.check({"hiexp/e2_e3_hit_rate": 1.0, "hiexp/e1_fire_rate": 0.0}, last=True)
    assert "in 3 steps no search call got an E1" in caplog.text and "E2 or E3" not in caplog.text
