"""What a training step did with experience and search, as numbers for verl's loggers."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

AVERAGED = ("acc", "em", "f1", "cem", "format", "searches", "experience_tokens", "e1_repeats")


def episode_metrics(rewards: Sequence[dict[str, Any]], groups: Sequence[str]) -> dict[str, float]:
    """Return the step's `hiexp/*` metrics.

    Args:
        rewards: what `compute_score` returned, one dict per episode.
        groups: the group (question) of each episode.
    """
    if not rewards:
        return {}
    searches = sum(r["searches"] for r in rewards)
    lookups = sum(r["lookups"] for r in rewards)
    answered = [r for r in rewards if r["searches"] > r["failed_searches"]]
    scores = defaultdict(list)
    for reward, group in zip(rewards, groups, strict=True):
        scores[group].append(reward["score"])
    metrics = {f"hiexp/{key}": float(np.mean([r[key] for r in rewards])) for key in AVERAGED}
    return metrics | {
        "hiexp/valid_search_rate": len(answered) / len(rewards),
        "hiexp/failed_search_rate": sum(r["failed_searches"] for r in rewards) / searches if searches else 0.0,
        "hiexp/lookup_failures": sum(r["lookup_failures"] for r in rewards) / lookups if lookups else 0.0,
        # Of all search calls, how many got an E1 with their documents.
        "hiexp/e1_fire_rate": sum(r["e1_fired"] for r in rewards) / searches if searches else 0.0,
        "hiexp/e2_e3_hit_rate": float(np.mean([r["e2_e3_shown"] > 0 for r in rewards])),
        # A group whose rewards are all equal has no advantage and teaches nothing.
        "hiexp/zero_variance_groups": float(np.mean([np.ptp(s) == 0 for s in scores.values()])),
    }
