"""The advantage `hiexp_grpo`: GRPO within the group of a question, also where the rollouts of a group have different arms.

`hiexp.credit` adds to it: terms of the reward (`plugin.bonus`), and the credit of single turns (`plugin.turns`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, compute_grpo_outcome_advantage, register_adv_est

from hiexp_verl.plugin.turns import Turns, turn_advantages

NAME = "hiexp_grpo"
EPSILON = 1e-6  # as in verl's GRPO


@dataclass(frozen=True)
class Arms:
    """The arm of each row of a batch; `shrinkage` is the weight of the group's mean against the arm's, in rollouts."""

    names: Sequence[str]
    shrinkage: float


@dataclass(frozen=True)
class Terms:
    """What is added to the rewards of a batch, (B,), and how its turns are compared; None: not at all."""

    bonus_B: np.ndarray
    turns: Turns | None = None


# verl passes an estimator rewards, mask and group ids, nothing else: the trainer sets the others here around the call.
_ARMS: ContextVar[Arms | None] = ContextVar("hiexp_arms", default=None)
_TERMS: ContextVar[Terms | None] = ContextVar("hiexp_terms", default=None)


@contextmanager
def baseline_within(arms: Arms | None) -> Iterator[None]:
    """Inside, `hiexp_grpo` compares each rollout with those of its arm; with None, with its whole group."""
    token = _ARMS.set(arms)
    try:
        yield
    finally:
        _ARMS.reset(token)


@contextmanager
def with_terms(terms: Terms | None) -> Iterator[None]:
    """Inside, `hiexp_grpo` adds these terms; with None, nothing."""
    token = _TERMS.set(terms)
    try:
        yield
    finally:
        _TERMS.reset(token)


def compute_hiexp_grpo_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    config: DictConfig | None = None,
    index: np.ndarray | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (advantages, returns), both (batch, response length): (r - baseline) / std within each question's group.

    Every rollout of a group is conditioned on its own prompt, experience included, so with the group's mean as the baseline
    the objective is GRPO's and this calls verl (where the advantage of a group of one is its reward). In a mixed group that
    mean contains the effect of the experience, which the policy did not choose: inside `baseline_within` the baseline is
    the arm's.

    Args:
        token_level_rewards: (batch, response length); the terminal reward sits on the last token.
        response_mask: (batch, response length); 0 on tool and experience tokens.
        config: verl's `algorithm` block; `norm_adv_by_std_in_grpo` is read from it.
        index: (batch,) group ids.
    """
    by_std = True if config is None else bool(config.get("norm_adv_by_std_in_grpo", True))
    arms, terms = _ARMS.get(), _TERMS.get()
    if terms is not None and index is not None:
        return _with_terms(terms, token_level_rewards, response_mask, config, index, by_std)
    if arms is None or index is None:
        return compute_grpo_outcome_advantage(
            token_level_rewards=token_level_rewards,
            response_mask=response_mask,
            index=index,
            norm_adv_by_std_in_grpo=by_std,
        )
    rewards_B = token_level_rewards.sum(dim=-1).double().numpy(force=True)
    advantages_B = within_arm_advantages(rewards_B, list(index), arms, by_std)
    spread_B_T = torch.as_tensor(advantages_B, dtype=token_level_rewards.dtype, device=response_mask.device).unsqueeze(-1) * response_mask
    return spread_B_T, spread_B_T


def _with_terms(
    terms: Terms, rewards_B_T: torch.Tensor, mask_B_T: torch.Tensor, config: DictConfig | None, index: np.ndarray, by_std: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the advantage of the rewards with their bonus, plus the weighted advantages of single turns."""
    paid_B_T = rewards_B_T.clone()
    paid_B_T[:, -1] += torch.as_tensor(terms.bonus_B, dtype=rewards_B_T.dtype, device=rewards_B_T.device)  # only their sum counts
    with with_terms(None):
        advantages_B_T, _ = compute_hiexp_grpo_advantage(paid_B_T, mask_B_T, config, index)
    if terms.turns is not None:
        rewards_B = paid_B_T.sum(dim=-1).double().numpy(force=True)
        turns_B_T = terms.turns.weight * turn_advantages(rewards_B, list(index), terms.turns.states, mask_B_T.numpy(force=True))
        if by_std:
            turns_B_T /= _deviations(rewards_B, list(index))[:, None] + EPSILON
        advantages_B_T = advantages_B_T + torch.as_tensor(turns_B_T, dtype=advantages_B_T.dtype, device=advantages_B_T.device)
    return advantages_B_T, advantages_B_T


def _deviations(rewards_B: np.ndarray, groups: Sequence[Any]) -> np.ndarray:
    """Return the standard deviation of each row's group, as in GRPO; 1 in a group of one."""
    group_B = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]
    n_B = np.bincount(group_B)[group_B]
    squares_B = (rewards_B - _sums(group_B, rewards_B) / n_B) ** 2
    return np.where(n_B > 1, np.sqrt(_sums(group_B, squares_B) / np.maximum(n_B - 1, 1)), 1.0)


def within_arm_advantages(rewards_B: np.ndarray, groups: Sequence[Any], arms: Arms, by_std: bool) -> np.ndarray:
    """Return (batch,) advantages with baselines per arm.

    The baseline of rollout i uses the others only, so it does not bias the gradient: with k rollouts in its arm, n in
    its group and shrinkage s, w = (k - 1) / (k - 1 + s) and b_i = w mean(arm without i) + (1 - w) mean(group without i). The
    factor (n - 1) / n makes a group of one arm GRPO's: r - mean. The divisor is the root of sum(A^2) / (n - 1), which is then
    GRPO's standard deviation. The advantage of a group of one is its reward, as in GRPO.
    """
    group_B = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]
    name_B = np.unique(np.asarray(arms.names, dtype=str), return_inverse=True)[1]
    arm_B = np.unique(group_B * len(name_B) + name_B, return_inverse=True)[1]  # of its group
    n_B, k_B = np.bincount(group_B)[group_B], np.bincount(arm_B)[arm_B]
    of_group_B = (_sums(group_B, rewards_B) - rewards_B) / np.maximum(n_B - 1, 1)
    of_arm_B = (_sums(arm_B, rewards_B) - rewards_B) / np.maximum(k_B - 1, 1)
    weight_B = (k_B - 1) / np.maximum(k_B - 1 + arms.shrinkage, 1)
    advantages_B = (n_B - 1) / n_B * (rewards_B - weight_B * of_arm_B - (1 - weight_B) * of_group_B)
    if by_std:
        advantages_B /= np.sqrt(_sums(group_B, advantages_B**2) / np.maximum(n_B - 1, 1)) + EPSILON
    return np.where(n_B > 1, advantages_B, rewards_B)


def _sums(keys_B: np.ndarray, values_B: np.ndarray) -> np.ndarray:
    """Return for each row the sum of the values with its key."""
    return np.bincount(keys_B, values_B)[keys_B]


if NAME not in ADV_ESTIMATOR_REGISTRY:  # verl refuses a second registration, and workers may import this twice
    register_adv_est(NAME)(compute_hiexp_grpo_advantage)
