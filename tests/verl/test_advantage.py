"""hiexp_grpo is GRPO, to the bit; in mixed groups it may compare within the arm, without bias."""

import pytest

pytestmark = [pytest.mark.verl, pytest.mark.compat]
torch = pytest.importorskip("torch")
pytest.importorskip("verl")

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, compute_grpo_outcome_advantage

from hiexp_verl.plugin.advantage import Arms, baseline_within, compute_hiexp_grpo_advantage, within_arm_advantages


def test_it_is_registered_with_verl():
    assert ADV_ESTIMATOR_REGISTRY["hiexp_grpo"] is compute_hiexp_grpo_advantage


def test_a_group_of_two_has_hand_computed_advantages():
    rewards = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    mask = torch.ones(2, 2)
    advantages, _ = compute_hiexp_grpo_advantage(rewards, mask, OmegaConf.create({}), np.array(["q", "q"]))
    # mean 0.5, unbiased std sqrt(0.5) = 0.70711; (1 - 0.5) / 0.70711 = 0.70711
    assert advantages.tolist() == [pytest.approx([0.70711] * 2, abs=1e-4), pytest.approx([-0.70711] * 2, abs=1e-4)]


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


def within(rewards, names, shrinkage=1.0, by_std=False, groups=None):
    arms = Arms(names, shrinkage)
    return within_arm_advantages(np.array(rewards), groups or ["q"] * len(rewards), arms, by_std).tolist()


def test_within_arm_baselines_have_hand_computed_advantages():
    # Rollouts 1, 2 saw experience (1, 0), 3, 4 did not (0, 0). w = 1/2; A = 3/4 (r - (arm without i + group without i) / 2).
    # r1: arm 0, group 0, A = 3/4; r2: arm 1, group 1/3, A = -3/4 * 2/3; r3, r4: arm 0, group 1/3, A = -3/4 * 1/6
    assert within([1.0, 0.0, 0.0, 0.0], ["all", "all", "none", "none"]) == pytest.approx([0.75, -0.5, -0.125, -0.125])


def test_without_shrinkage_an_arm_whose_rewards_are_equal_teaches_nothing():
    # The group's mean would praise the guided rollouts for being guided; their own arm does not.
    names = ["all", "all", "none", "none"]
    assert within([1.0, 1.0, 0.0, 0.0], names, shrinkage=0.0) == [0.0] * 4
    assert within([1.0, 1.0, 0.0, 0.0], names, shrinkage=1e9) == pytest.approx([0.5, 0.5, -0.5, -0.5])  # GRPO's


def test_an_arm_of_one_is_compared_with_the_group():
    assert within([1.0, 0.0, 0.0], ["none", "all", "all"], shrinkage=0.0)[0] == pytest.approx(2 / 3)  # 2/3 (1 - 0)


def test_a_group_of_one_gets_its_reward_and_equal_rewards_nothing():
    assert within([0.5], ["all"], by_std=True) == [0.5]
    assert within([0.5] * 4, ["all", "all", "none", "none"], by_std=True) == [0.0] * 4


@given(st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0]), min_size=1, max_size=8), st.booleans(), st.floats(0, 5))
@example([0.1] * 7, True, 0.0)
def test_one_arm_alone_is_grpo(rewards, by_std, shrinkage):
    spread = torch.zeros(len(rewards), 2)
    spread[:, -1] = torch.tensor(rewards)
    config, index = OmegaConf.create({"norm_adv_by_std_in_grpo": by_std}), np.array(["q"] * len(rewards))
    grpo, _ = compute_hiexp_grpo_advantage(spread, torch.ones_like(spread), config, index)
    with baseline_within(Arms(["all"] * len(rewards), shrinkage)):
        ours, _ = compute_hiexp_grpo_advantage(spread, torch.ones_like(spread), config, index)
    if len(rewards) > 1 and len(set(rewards)) == 1:
        grpo = torch.zeros_like(ours)  # verl's mean of seven 0.1 in float32 is another number, which its tiny deviation makes 0.007
    assert torch.allclose(ours, grpo, atol=1e-4)  # verl adds its epsilon to a group of one as well


def test_the_arms_hold_inside_the_context_alone():
    rewards, mask = torch.tensor([[1.0], [1.0], [0.0], [0.0]]), torch.ones(4, 1)
    index, config = np.array(["q"] * 4), OmegaConf.create({"norm_adv_by_std_in_grpo": False})
    with baseline_within(Arms(["all", "all", "none", "none"], 0.0)):
        inside, _ = compute_hiexp_grpo_advantage(rewards, mask, config, index)
    outside, _ = compute_hiexp_grpo_advantage(rewards, mask, config, index)
    assert inside.flatten().tolist() == [0.0] * 4 and outside.flatten().tolist() == [0.5, 0.5, -0.5, -0.5]


@pytest.mark.parametrize("shrinkage", [0.0, 1.0, 3.0])
def test_the_gradient_is_unbiased_in_each_arm(shrinkage):
    """A Bernoulli policy per arm: E[A d log p] is (n - 1) / n of the true gradient p (1 - p), whatever the arms' sizes."""
    names = ["none", "all", "all", "all", "start", "start"]
    probability = np.array([{"none": 0.2, "all": 0.7, "start": 0.5}[name] for name in names])
    rng, n, batches = np.random.default_rng(0), len(names), 40_000
    actions_B_N = (rng.random((batches, n)) < probability).astype(float)
    groups = np.repeat(np.arange(batches), n).tolist()
    found = within_arm_advantages(actions_B_N.ravel(), groups, Arms(names * batches, shrinkage), by_std=False)
    gradient_N = (found.reshape(batches, n) * (actions_B_N - probability)).mean(axis=0)  # d log p / d logit = action - p
    assert gradient_N == pytest.approx((n - 1) / n * probability * (1 - probability), abs=0.006)
