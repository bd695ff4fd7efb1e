"""What a set of episodes amounts to, in numbers."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from hiexp_verl.types import Trajectory


def summarise(trajectories: Iterable[Trajectory]) -> dict[str, Any]:
    """Return counts, shares (0 to 1) and means over episodes; shares over nothing are 0."""
    episodes = list(trajectories)
    outcomes: dict[str, set[bool]] = defaultdict(set)
    for t in episodes:
        outcomes[t.question_id].add(t.correct)
    searches = [int(t.extra.get("searches", 0)) for t in episodes]
    failed = sum(int(t.extra.get("failed_searches", 0)) for t in episodes)
    stops: dict[str, int] = defaultdict(int)
    for t in episodes:
        stops[str(t.extra.get("stop", ""))] += 1
    return {
        "questions": len(outcomes),
        "episodes": len(episodes),
        "valid_search": _mean(n > 0 for n in searches),  # share of episodes with at least one well-formed search
        "answered": _mean(bool(t.prediction) for t in episodes),
        "correct": _mean(t.correct for t in episodes),
        **{name: _mean(float(t.extra.get(name, 0.0)) for t in episodes) for name in ("em", "f1", "cem")},
        "reward": _mean(t.score for t in episodes),
        "mean_searches": _mean(searches),
        "mixed_groups": _mean(len(seen) == 2 for seen in outcomes.values()),  # questions with a success and a failure
        "failed_searches": round(failed / sum(searches), 4) if sum(searches) else 0.0,
        "completion_tokens": sum(int(t.extra.get("completion_tokens", 0)) for t in episodes),
        "stops": dict(sorted(stops.items())),
        **_experience(episodes, sum(searches) - failed),
    }


def _experience(episodes: list[Trajectory], answered_searches: int) -> dict[str, float]:
    """Return how much experience was shown: silent absence is the classic failure."""
    shown = [row for t in episodes for row in t.extra.get("shown", ())]
    fired = len({(t.id, row.get("search")) for t in episodes for row in t.extra.get("shown", ()) if row["place"] == "step"})
    return {
        "start_hit_rate": _mean(any(row["place"] == "start" for row in t.extra.get("shown", ())) for t in episodes),
        "e1_fire_rate": round(fired / answered_searches, 4) if answered_searches else 0.0,  # of the searches that were answered
        "e1_repeats": sum(int(t.extra.get("e1_repeats", 0)) for t in episodes),  # E1 found again in an episode, and not shown again
        "lookup_failures": sum(int(t.extra.get("lookup_failures", 0)) for t in episodes),
        "dropped": sum(int(t.extra.get("dropped", 0)) for t in episodes),  # entries found that the token budgets had no room for
        "experience_tokens": round(sum(row["tokens"] for row in shown) / len(episodes), 2) if episodes else 0.0,  # per episode
    }


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return round(sum(numbers) / len(numbers), 4) if numbers else 0.0
