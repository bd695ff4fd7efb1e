"""Step metrics, by hand."""

from hiexp_verl.plugin.metrics import episode_metrics

BASE = {
    "acc": 0.0,
    "em": 0.0,
    "f1": 0.0,
    "cem": 0.0,
    "format": 1.0,
    "experience_tokens": 10.0,
    "e1_repeats": 0.0,
    "lookups": 2.0,
    "lookup_failures": 0.0,
}


def episode(score, searches, failed, fired, shown):
    return {**BASE, "score": score, "searches": searches, "failed_searches": failed, "e1_fired": fired, "e2_e3_shown": shown}


def test_rates_are_shares_of_what_they_name():
    rewards = [episode(1.0, 2, 0, 1, 2), episode(0.0, 2, 1, 0, 0), episode(0.1, 0, 0, 0, 1), episode(0.1, 1, 1, 0, 1)]
    rewards[0] |= {"e1_repeats": 2.0, "lookup_failures": 1.0}
    metrics = episode_metrics(rewards, ["a", "a", "b", "b"])
    assert metrics["hiexp/e1_repeats"] == 0.5  # per episode
    assert metrics["hiexp/lookup_failures"] == 0.125  # 1 of 4 x 2
    assert metrics["hiexp/searches"] == 1.25
    assert metrics["hiexp/valid_search_rate"] == 0.5  # episodes 1 and 2
    assert metrics["hiexp/failed_search_rate"] == 0.4  # 2 of 5 calls
    assert metrics["hiexp/e1_fire_rate"] == 0.2  # 1 of 5 calls
    assert metrics["hiexp/e2_e3_hit_rate"] == 0.75
    assert metrics["hiexp/zero_variance_groups"] == 0.5  # group b


def test_no_searches_is_no_division_by_zero():
    metrics = episode_metrics([episode(0.0, 0, 0, 0, 0) | {"lookups": 0.0}], ["a"])
    assert metrics["hiexp/lookup_failures"] == 0.0
    assert metrics["hiexp/failed_search_rate"] == 0.0 and metrics["hiexp/e1_fire_rate"] == 0.0
