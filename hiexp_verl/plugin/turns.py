"""Credit of single turns: a turn is compared with the turns of other rollouts of its question that are in the same state.

The state is what the turn before it searched for and found: its normalised query and the ids of the passages. The rollouts S that
came to it took different turns from there; with the terminal reward r the turn of rollout i gets, beside its advantage,

    weight x (r_i - mean of r over S)        divided by the group's standard deviation where GRPO's advantage is

A rollout that came to it twice counts once in the mean. The first turn has the whole group as S, which GRPO compares already: it gets
nothing, as does a state that one rollout alone came to.

Sources: GiGPO (arXiv:2505.10978), SLEA-RL.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hiexp_verl.io.files import digest_of
from hiexp_verl.scoring import normalise


@dataclass(frozen=True)
class Turns:
    """The states of each row of a batch before its second turn, its third, ...; "" is none."""

    states: Sequence[Sequence[str]]
    weight: float


def state_of(searches: Sequence[tuple[str, Sequence[str] | None]]) -> str:
    """Return the state after a turn with these (query, ids of the passages); "" where a search failed or there was none."""
    if not searches or any(passages is None for _, passages in searches):
        return ""
    return digest_of(*(part for query, passages in searches for part in (normalise(query), list(passages or ())))).hex()[:16]


def turn_advantages(rewards_B: np.ndarray, groups: Sequence[Any], states: Sequence[Sequence[str]], mask_B_T: np.ndarray) -> np.ndarray:
    """Return r minus the mean of those who came to its state, on the tokens of each turn, (B, T).

    A row whose stretches of written tokens are not the turns of its states gets nothing: tokens of it were taken out of the loss.
    """
    came: dict[tuple[Any, str], set[int]] = defaultdict(set)
    for row, group in enumerate(groups):
        for state in states[row]:
            came[group, state].add(row)
    found_B_T = np.zeros(mask_B_T.shape)
    written_B_T = mask_B_T > 0
    starts_B_T = written_B_T & ~np.pad(written_B_T, ((0, 0), (1, 0)))[:, :-1]
    turn_B_T = np.cumsum(starts_B_T, axis=1) * written_B_T
    for row, group in enumerate(groups):
        if turn_B_T[row].max(initial=0) - len(states[row]) not in (0, 1):  # a last turn may have had no room
            continue
        for turn, state in enumerate(states[row], start=2):
            if state:
                others = rewards_B[sorted(came[group, state])]
                found_B_T[row, turn_B_T[row] == turn] = rewards_B[row] - others.mean()
    return found_B_T
