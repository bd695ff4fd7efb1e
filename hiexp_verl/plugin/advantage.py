"""The advantage `hiexp_grpo`: GRPO over the group of a question (method page, section 4)."""

from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, compute_grpo_outcome_advantage, register_adv_est

NAME = "hiexp_grpo"


def compute_hiexp_grpo_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    config: DictConfig | None = None,
    index: np.ndarray | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (advantages, returns), both (batch, response length): (r - mean) / std within each question's group.

    Every rollout of a group is conditioned on its own prompt, experience included, so the objective is GRPO's own
    and this delegates to verl. Groups with and without experience side by side would be told apart here.

    Args:
        token_level_rewards: (batch, response length); the terminal reward sits on the last token.
        response_mask: (batch, response length); 0 on tool and experience tokens.
        config: verl's `algorithm` block; `norm_adv_by_std_in_grpo` is read from it.
        index: (batch,) group ids.
    """
    by_std = True if config is None else bool(config.get("norm_adv_by_std_in_grpo", True))
    return compute_grpo_outcome_advantage(
        token_level_rewards=token_level_rewards,
        response_mask=response_mask,
        index=index,
        norm_adv_by_std_in_grpo=by_std,
    )


if NAME not in ADV_ESTIMATOR_REGISTRY:  # verl refuses a second registration, and workers may import this twice
    register_adv_est(NAME)(compute_hiexp_grpo_advantage)
