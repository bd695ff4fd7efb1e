"""`hiexp/*`: experience, search and rewards of a training step as numbers for verl's loggers (over several steps: `monitor.History`)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hiexp_verl.domains.domain import Domain
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.guide.record import EpisodeRecord, aggregate, share
from hiexp_verl.plugin.bonus import novelties
from hiexp_verl.types import LEVELS

AVERAGED = ("acc", "em", "f1", "cem", "concise", "format")  # of the scores
QUANTILES = (10, 50, 90)


@dataclass(frozen=True)
class EpisodeOutcome:
    """One training rollout, as the trainer finds it."""

    group: str  # the question it is a sample of
    reward: float
    record: EpisodeRecord
    advantage: float = 0.0
    tokens: int = 0  # that the policy wrote
    scores: Mapping[str, Any] = field(default_factory=dict)  # of the reward function; a user's own may have other keys
    key: str = ""  # verl's name of it

    @property
    def right(self) -> bool:
        """Whether the answer is right; of a user's own reward that does not say so it is not."""
        return bool(self.scores.get("acc"))


def novelties_of(episodes: Sequence[EpisodeOutcome]) -> list[float]:
    """Return the novelty of each episode among the right ones of its group (`plugin.bonus`)."""
    return novelties([e.group for e in episodes], [e.right for e in episodes], [e.record.queries for e in episodes])


def episode_metrics(episodes: Sequence[EpisodeOutcome], max_searches: int = 0, domain: Domain = SEARCH) -> dict[str, float]:
    """Return the step's `hiexp/*` metrics; `max_searches` is how many an episode may make (0: not known)."""
    if not episodes:
        return {}
    records = [e.record for e in episodes]
    totals = aggregate(records)
    metrics = {f"hiexp/{key}": _mean([e.scores[key] for e in episodes]) for key in AVERAGED if all(key in e.scores for e in episodes)}
    metrics |= {
        "hiexp/answered": _mean([bool(domain.answer_in(r.answer_text)) for r in records]),
        "hiexp/response_tokens": _mean([e.tokens for e in episodes]),
        **{f"hiexp/{name}": totals.mean(name) for name in ("searches", "experience_tokens", "dropped", "e1_repeats")},
        "hiexp/valid_search_rate": totals.mean("answered_search"),
        "hiexp/failed_search_rate": share(totals.failed_searches, totals.searches),
        "hiexp/repeated_query_rate": share(totals.repeated_queries, totals.searches),
        "hiexp/lookup_failures": share(totals.lookup_failures, totals.lookups),
        "hiexp/with_experience": totals.mean("guided"),
        "hiexp/e1_fire_rate": share(totals.e1_fired, totals.searches),  # of all search calls
        "hiexp/e2_e3_hit_rate": totals.mean("prompt_hits"),
        **{f"hiexp/{level}_hit_rate": share(totals.level_hits.get(level, 0), totals.episodes) for level in LEVELS},
    }
    if max_searches:
        metrics["hiexp/at_search_cap"] = _mean([r.searches >= max_searches for r in records])
    if stripped := [r.stripped for r in records if r.stripped is not None]:
        metrics["hiexp/strip_failed"] = _mean([not each for each in stripped])
    if followed := [r.followed for r in records if r.followed is not None]:
        metrics["hiexp/plan_followed"] = _mean(followed)  # of the episodes that were shown a plan
    if novel := [each for each, e in zip(novelties_of(episodes), episodes, strict=True) if e.right]:
        metrics["hiexp/novelty"] = _mean(novel)
    for place in ("prompt", "tool"):
        scores = [row["score"] for r in records for row in r.shown if row["place"] == place]
        if scores:
            metrics |= {f"hiexp/{place}_score/p{q}": float(np.percentile(scores, q)) for q in QUANTILES}
    return metrics | _group_metrics(episodes)


def _group_metrics(episodes: Sequence[EpisodeOutcome]) -> dict[str, float]:
    groups: dict[str, list[EpisodeOutcome]] = defaultdict(list)
    for episode in episodes:
        groups[episode.group].append(episode)
    metrics = {
        # A group with equal rewards, or of one, has no advantage.
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
    """Return the difference between rollouts with and without experience in mean reward and searches; None without both kinds."""
    guided, others = ([e for e in group if (e.record.arm != "none") == seen] for seen in (True, False))
    if not guided or not others:
        return None
    reward = _mean([e.reward for e in guided]) - _mean([e.reward for e in others])
    return reward, _mean([e.record.searches for e in guided]) - _mean([e.record.searches for e in others])


def _mean(values: Sequence[float | bool]) -> float:
    return float(np.mean(values))
