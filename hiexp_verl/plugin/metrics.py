"""What a training step did with experience and search, as numbers for verl's loggers."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hiexp_verl.scoring import extract_answer

AVERAGED = ("acc", "em", "f1", "cem", "format")  # of what the reward says
QUANTILES = (10, 50, 90)


@dataclass(frozen=True)
class EpisodeOutcome:
    """One training rollout, as the trainer finds it."""

    group: str  # the question it is a sample of
    reward: float
    record: Mapping[str, Any]  # of our agent loop (`HiExpAgentLoop._record`)
    advantage: float = 0.0
    tokens: int = 0  # that the policy wrote
    scores: Mapping[str, Any] = field(default_factory=dict)  # what the reward function said; not every user's says the same


def episode_metrics(episodes: Sequence[EpisodeOutcome], max_searches: int = 0) -> dict[str, float]:
    """Return the step's `hiexp/*` metrics; `max_searches` is how many an episode may make (0: not known)."""
    if not episodes:
        return {}
    records = [e.record for e in episodes]
    made = [int(r["searches"]) for r in records]
    searches, lookups = sum(made), sum(r["lookups"] for r in records)
    shown = [row for r in records for row in r["shown"]]
    fired = sum(len({row["search"] for row in r["shown"] if row["place"] == "tool"}) for r in records)
    levels = [{row["level"] for row in r["shown"]} for r in records]
    metrics = {f"hiexp/{key}": _mean([e.scores[key] for e in episodes]) for key in AVERAGED if all(key in e.scores for e in episodes)}
    metrics |= {
        "hiexp/answered": _mean([bool(extract_answer(r["answer_text"])) for r in records]),
        "hiexp/response_tokens": _mean([e.tokens for e in episodes]),
        "hiexp/searches": _mean(made),
        "hiexp/valid_search_rate": _mean([r["searches"] > r["failed_searches"] for r in records]),
        "hiexp/failed_search_rate": sum(r["failed_searches"] for r in records) / searches if searches else 0.0,
        "hiexp/repeated_query_rate": sum(r["repeated_queries"] for r in records) / searches if searches else 0.0,
        "hiexp/lookup_failures": sum(r["lookup_failures"] for r in records) / lookups if lookups else 0.0,
        "hiexp/with_experience": _mean([bool(found) for found in levels]),
        # Of all search calls, how many got an E1 with their documents.
        "hiexp/e1_fire_rate": fired / searches if searches else 0.0,
        "hiexp/e2_e3_hit_rate": _mean([bool(found & {"e2", "e3"}) for found in levels]),
        **{f"hiexp/{level}_hit_rate": _mean([level in found for found in levels]) for level in ("e1", "e2", "e3")},
        "hiexp/experience_tokens": sum(row["tokens"] for row in shown) / len(episodes),
        "hiexp/dropped": _mean([r["dropped"] for r in records]),  # entries that the budgets had no room for, per episode
        "hiexp/e1_repeats": _mean([r["e1_repeats"] for r in records]),
    }
    if max_searches:
        metrics["hiexp/at_search_cap"] = _mean([n >= max_searches for n in made])
    if any("stripped" in r for r in records):
        metrics["hiexp/strip_failed"] = _mean([not r["stripped"] for r in records if "stripped" in r])
    for place in ("prompt", "tool"):
        scores = [row["score"] for row in shown if row["place"] == place]
        if scores:
            metrics |= {f"hiexp/{place}_score/p{q}": float(np.percentile(scores, q)) for q in QUANTILES}
    return metrics | _group_metrics(episodes)


def _group_metrics(episodes: Sequence[EpisodeOutcome]) -> dict[str, float]:
    groups: dict[str, list[EpisodeOutcome]] = defaultdict(list)
    for episode in episodes:
        groups[episode.group].append(episode)
    metrics = {
        # A group whose rewards are all equal has no advantage and teaches nothing; neither does a group of one.
        "hiexp/zero_variance_groups": _mean([np.ptp([e.reward for e in group]) == 0 for group in groups.values()]),
        "hiexp/groups_of_one": _mean([len(group) == 1 for group in groups.values()]),
        "hiexp/reward_mean": _mean([e.reward for e in episodes]),
        "hiexp/reward_variance": float(np.var([e.reward for e in episodes])),
        "hiexp/advantage_mean": _mean([e.advantage for e in episodes]),
        "hiexp/advantage_variance": float(np.var([e.advantage for e in episodes])),
    }
    gaps = [gap for group in groups.values() if (gap := _gap(group)) is not None]
    if gaps:
        metrics["hiexp/gap/reward"] = _mean([reward for reward, _ in gaps])
        metrics["hiexp/gap/searches"] = _mean([searches for _, searches in gaps])
        metrics["hiexp/gap/groups"] = float(len(gaps))
    return metrics


def _gap(group: Sequence[EpisodeOutcome]) -> tuple[float, float] | None:
    """Return by how much the rollouts that may see experience differ from those that may not, in reward and in searches."""
    with_, without = ([e for e in group if (e.record["arm"] != "none") == seen] for seen in (True, False))
    if not with_ or not without:
        return None
    reward = _mean([e.reward for e in with_]) - _mean([e.reward for e in without])
    return reward, _mean([e.record["searches"] for e in with_]) - _mean([e.record["searches"] for e in without])


def _mean(values: Sequence[float | bool]) -> float:
    return float(np.mean(values))
