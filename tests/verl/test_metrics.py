"""Step metrics, by hand."""

import pytest

from hiexp_verl.guide.record import EpisodeRecord
from hiexp_verl.plugin.metrics import EpisodeOutcome, episode_metrics


def shown(*entries):
    """Return rows of (entry, score) or (entry, score, search)."""
    rows = []
    for entry, score, *search in entries:
        place = {"place": "tool", "search": search[0]} if search else {"place": "prompt"}
        rows.append({"entry": entry, "level": entry[:2], "score": score, "tokens": 10, **place})
    return rows


def outcome(
    group="a", reward=0.0, searches=0, failed=0, entries=(), arm="full", repeated=0, repeats=0, dropped=0, lookups=(2, 0), answer="", **more
):
    record = EpisodeRecord(
        group,
        "?",
        arm=arm,
        answer_text=answer,
        shown=tuple(shown(*entries)),
        dropped=dropped,
        e1_repeats=repeats,
        repeated_queries=repeated,
        searches=searches,
        failed_searches=failed,
        lookups=lookups[0],
        lookup_failures=lookups[1],
        stripped=more.pop("stripped", None),
    )
    return EpisodeOutcome(group, reward, record, **more)


def test_rates_are_shares_of_what_they_name():
    episodes = [
        outcome(
            "a",
            1.0,
            2,
            0,
            [("e2-a", 0.5), ("e3-a", 0.3), ("e1-a", 0.9, 1)],
            repeats=2,
            repeated=1,
            dropped=4,
            tokens=30,
            answer="<answer> Kabul </answer>",
        ),
        outcome("a", 0.0, 2, 1, tokens=10, lookups=(4, 1)),
        outcome("b", 0.1, 0, 0, [("e2-a", 0.4)]),
        outcome("b", 0.1, 1, 1, [("e2-b", 0.2)]),
    ]
    metrics = episode_metrics(episodes, max_searches=2)
    assert metrics["hiexp/e1_repeats"] == 0.5  # per episode
    assert metrics["hiexp/dropped"] == 1.0
    assert metrics["hiexp/answered"] == 0.25
    assert metrics["hiexp/searches"] == 1.25
    assert metrics["hiexp/response_tokens"] == 10.0
    assert metrics["hiexp/valid_search_rate"] == 0.5  # episodes 1 and 2
    assert metrics["hiexp/failed_search_rate"] == 0.4  # 2 of 5 calls
    assert metrics["hiexp/repeated_query_rate"] == 0.2
    assert metrics["hiexp/lookup_failures"] == 0.1  # 1 of 10
    assert metrics["hiexp/at_search_cap"] == 0.5
    assert metrics["hiexp/e1_fire_rate"] == 0.2  # 1 of 5 calls
    assert metrics["hiexp/e2_e3_hit_rate"] == metrics["hiexp/with_experience"] == 0.75
    assert (metrics["hiexp/e1_hit_rate"], metrics["hiexp/e2_hit_rate"], metrics["hiexp/e3_hit_rate"]) == (0.25, 0.75, 0.25)
    assert metrics["hiexp/experience_tokens"] == 12.5  # 50 over 4 episodes
    assert (metrics["hiexp/prompt_score/p10"], metrics["hiexp/prompt_score/p50"]) == (pytest.approx(0.23), pytest.approx(0.35))
    assert metrics["hiexp/tool_score/p90"] == 0.9
    assert metrics["hiexp/zero_variance_groups"] == 0.5  # group b
    assert metrics["hiexp/reward_mean"] == pytest.approx(0.3)
    assert metrics["hiexp/reward_variance"] == pytest.approx((0.49 + 0.09 + 0.04 + 0.04) / 4)
    assert not any(key.startswith("hiexp/gap/") for key in metrics), "no group is mixed"


def test_no_searches_is_no_division_by_zero():
    metrics = episode_metrics([outcome(lookups=(0, 0))])
    assert metrics["hiexp/failed_search_rate"] == metrics["hiexp/e1_fire_rate"] == metrics["hiexp/lookup_failures"] == 0.0
    assert metrics["hiexp/groups_of_one"] == 1.0
    assert "hiexp/at_search_cap" not in metrics and "hiexp/tool_score/p50" not in metrics
    assert episode_metrics([]) == {}


def test_the_gap_is_taken_within_each_mixed_group():
    episodes = [
        *(outcome("a", 1.0, 2), outcome("a", 0.5, 1), outcome("a", 0.25, 0, arm="none")),  # 0.75 - 0.25 and 1.5 - 0
        *(outcome("b", 0.0, 1), outcome("b", 0.5, 2, arm="none")),  # -0.5 and -1
        *(outcome("c", 1.0, 1), outcome("c", 1.0, 1)),  # not mixed
    ]
    metrics = episode_metrics(episodes)
    assert metrics["hiexp/gap/reward"] == 0.0
    assert metrics["hiexp/gap/searches"] == 0.25
    assert metrics["hiexp/gap/groups"] == 2.0


def test_what_a_user_s_own_reward_does_not_say_is_left_out():
    metrics = episode_metrics([outcome(scores={"acc": 1.0, "em": 1.0}), outcome(scores={"acc": 0.0})])
    assert metrics["hiexp/acc"] == 0.5 and "hiexp/em" not in metrics


def test_rollouts_that_could_not_be_stripped_are_counted():
    episodes = [outcome(stripped=True), outcome(stripped=False), outcome()]
    assert episode_metrics(episodes)["hiexp/strip_failed"] == 0.5
