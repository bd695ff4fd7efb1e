"""Collapse alarms over made-up histories."""

import json
import logging

import pytest

from hiexp_verl.config import AlarmsConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.plugin.monitor import CAP, ENTROPY, FAILED, GRADIENT, LENGTH, REPEATS, REWARD, SEARCHES, Alarms, History

HEALTHY = {REWARD: 0.6, LENGTH: 300.0, ENTROPY: 1.0, GRADIENT: 0.5, SEARCHES: 2.0, CAP: 0.2, REPEATS: 0.1, FAILED: 0.1}


def watch(steps, window=3, **actions):
    """Return which alarms held at each step."""
    history, alarms = History(window), Alarms(AlarmsConfig(window=window, **actions))
    held = []
    for step in steps:
        history.add({**HEALTHY, **step})
        held.append({key.rsplit("/", 1)[1] for key, value in alarms.check(history).items() if value})
    return held


def test_a_healthy_run_is_left_alone():
    noisy = [{REWARD: 0.6 + 0.2 * (i % 2), GRADIENT: 0.5 + 0.4 * (i % 3)} for i in range(40)]
    assert watch(noisy) == [set()] * 40


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("reward", REWARD, 0.1),
        ("length", LENGTH, 50.0),
        ("entropy", ENTROPY, 0.01),
        ("searches", SEARCHES, 0.0),
        ("searches", CAP, 1.0),
        ("repeats", REPEATS, 0.9),
        ("failures", FAILED, 0.9),
        ("reward", REWARD, float("nan")),
    ],
)
def test_a_collapse_rings_when_the_whole_window_has_collapsed(name, key, value):
    held = watch([{}] * 5 + [{key: value}] * 3)
    assert held[:5] == [set()] * 5
    assert held[-1] == {name}


def test_one_bad_step_is_no_collapse_but_one_gradient_is_a_spike():
    assert watch([{}] * 5 + [{REWARD: 0.0}, {}, {}]) == [set()] * 8
    assert watch([{}] * 5 + [{GRADIENT: 6.0}, {}]) == [set()] * 5 + [{"gradient"}, set()]
    assert watch([{}, {GRADIENT: float("inf")}])[-1] == {"gradient"}


def test_searches_that_fail_ring_after_three_steps_whatever_the_window_and_can_stop_the_run():
    assert watch([{FAILED: 1.0}] * 4, window=10) == [set(), set(), {"failures"}, {"failures"}]
    assert watch([{FAILED: 1.0}, {}, {FAILED: 1.0}, {FAILED: 1.0}], window=10) == [set()] * 4
    with pytest.raises(HiExpError, match=r"100% of the searches of the last 3 steps failed.*hiexp.alarms.failures=stop"):
        watch([{FAILED: 1.0}] * 3, window=10, failures="stop")


def test_nothing_is_judged_before_the_window_is_full():
    assert watch([{SEARCHES: 0.0}] * 3) == [set(), set(), {"searches"}]


def test_an_alarm_is_logged_once_until_it_is_cleared(caplog):
    with caplog.at_level(logging.WARNING):
        watch([{}] * 3 + [{GRADIENT: 9.0}, {}, {}, {}, {GRADIENT: 9.0}] + [{SEARCHES: 0.0}] * 6)
    said = [record.message for record in caplog.records]
    assert [m.split(" ", 3)[2] for m in said] == ["gradient", "gradient", "policy"]
    assert "18 times its median over the 2 steps before" in said[0]


def test_stop_ends_the_run_and_off_says_nothing():
    with pytest.raises(
        HiExpError, match=r"the reward collapsed: 0.267 over the last 3 steps, 0.6 at its best; stopped by hiexp.alarms.reward=stop"
    ):
        watch([{}] * 3 + [{REWARD: 0.1}] * 3, reward="stop")
    assert watch([{}] * 3 + [{REWARD: 0.1}] * 3, reward="off")[-1] == set()


def test_the_window_s_variance_is_that_of_all_its_episodes():
    history = History(2)
    for mean, variance, norm in [(9.0, 9.0, 9.0), (0.0, 0.25, 1.0), (1.0, 0.75, 3.0)]:  # the first falls out
        history.add(
            {REWARD: mean, "hiexp/reward_variance": variance, "hiexp/advantage_mean": 0.0, "hiexp/advantage_variance": 1.0, GRADIENT: norm}
        )
    # Two steps of equal size: mean of the variances 0.5 plus the variance of the means 0.25.
    assert history.metrics() == {
        "hiexp/window/reward_variance": 0.75,
        "hiexp/window/advantage_variance": 1.0,
        "hiexp/window/gradient_variance": 1.0,
    }


def test_a_history_goes_on_from_its_state():
    one, other = History(3), History(3)
    for i in range(5):
        one.add({**HEALTHY, REWARD: float(i)})
    other.load(json.loads(json.dumps(one.state())))
    for history in (one, other):
        history.add({**HEALTHY, REWARD: 0.0})
    assert other.state() == one.state() and other.best[REWARD] == 3.0


def test_a_run_that_was_stopped_stops_again_when_it_is_resumed_from_that_step():
    history, alarms = History(3), Alarms(AlarmsConfig(window=3, searches="stop"))
    for _ in range(3):
        history.add({**HEALTHY, SEARCHES: 0.0})
    with pytest.raises(HiExpError, match="stopped searching"):
        alarms.check(history)
    resumed = Alarms(AlarmsConfig(window=3, searches="stop"))
    resumed.triggered = set(alarms.triggered)
    with pytest.raises(HiExpError, match="stopped searching"):
        resumed.check(history)


def test_rewards_below_zero_collapse_downwards():
    assert watch([{REWARD: -0.1}] * 4)[-1] == set()
    assert watch([{REWARD: -0.1}] * 3 + [{REWARD: -1.0}] * 3)[-1] == {"reward"}
