"""Terms of the reward that are known within a group only: use of the plan shown, and novelty among the right rollouts.

A right rollout gets, beside its reward,

    plan x [the plan that it was shown was followed] + novelty x (1 - largest Jaccard overlap with another right rollout of its group)

The overlap is that of the words of all its queries, so that a query that is worded anew is not a new one. A rollout without a search is
not novel. A wrong rollout gets nothing: neither term can outweigh a right answer. They change the advantage alone; rewards in
metrics, dump and ledger stay those of the task.

Source: TMAS.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hiexp_verl.config import CreditConfig
from hiexp_verl.text import content_words


def novelties(groups: Sequence[Any], right: Sequence[bool], queries: Sequence[Sequence[str]]) -> list[float]:
    """Return the novelty of each rollout among the right ones of its group, 0 to 1; 0 for wrong ones."""
    words = [frozenset().union(*map(content_words, each)) for each in queries]
    siblings: dict[Any, list[int]] = {}
    for row, (group, is_right) in enumerate(zip(groups, right, strict=True)):
        if is_right:
            siblings.setdefault(group, []).append(row)
    found = [0.0] * len(words)
    for rows in siblings.values():
        for row in rows:
            nearest = max((_overlap(words[row], words[other]) for other in rows if other != row), default=0.0)
            found[row] = 1 - nearest if words[row] else 0.0
    return found


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if one | other else 1.0


def bonuses(credit: CreditConfig, right: Sequence[bool], followed: Sequence[bool | None], novelty: Sequence[float]) -> np.ndarray:
    """Return what each rollout gets beside its reward, (B,)."""
    used = np.array([bool(each) for each in followed], dtype=float)
    return np.array(right, dtype=float) * (credit.plan * used + credit.novelty * np.array(novelty))
