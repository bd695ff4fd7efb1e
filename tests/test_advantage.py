"""hiexp_grpo is GRPO, to the bit."""

import pytest

pytestmark = pytest.mark.verl
torch = pytest.importorskip("torch")
pytest.importorskip("verl")

import numpy as np  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, compute_grpo_outcome_advantage  # noqa: E402

from hiexp_verl.plugin.advantage import compute_hiexp_grpo_advantage  # noqa: E402


def test_it_is_registered_with_verl():
    assert ADV_ESTIMATOR_REGISTRY["hiexp_grpo"] is compute_hiexp_grpo_advantage


def test_a_group_of_two_has_hand_computed_advantages():
    rewards = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    mask = torch.ones(2, 2)
    advantages, _ = compute_hiexp_grpo_advantage(rewards, mask, OmegaConf.create({}), np.array(["q", "q"]))
    # mean 0.5, unbiased std sqrt(0.5) = 0.70711; (1 - 0.5) / 0.70711 = 0.70711
    assert advantages.tolist() == [pytest.approx([0.70711] * 2, abs=1e-4), pytest.approx([-0.70711] * 2, abs=1e-4)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0])), min_size=1, max_size=12),
    st.booleans(),
    st.integers(1, 5),
)
def test_it_equals_verl_s_grpo_bit_for_bit(episodes, by_std, length):
    rewards = torch.zeros(len(episodes), length)
    rewards[:, -1] = torch.tensor([reward for _, reward in episodes])
    mask = torch.ones(len(episodes), length)
    mask[:, 0] = 0
    index = np.array([str(group) for group, _ in episodes])
    ours = compute_hiexp_grpo_advantage(rewards, mask, OmegaConf.create({"norm_adv_by_std_in_grpo": by_std}), index)
    verls = compute_grpo_outcome_advantage(rewards, mask, index, norm_adv_by_std_in_grpo=by_std)
    assert torch.equal(ours[0], verls[0]) and torch.equal(ours[1], verls[1])
