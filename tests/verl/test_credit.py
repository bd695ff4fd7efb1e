"""`hiexp.credit`: what is added to the advantage beside the reward, by hand."""

import numpy as np
import pytest

pytestmark = [pytest.mark.verl, pytest.mark.compat]
torch = pytest.importorskip("torch")
pytest.importorskip("verl")

from omegaconf import OmegaConf

from hiexp_verl.config import CreditConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.record import EpisodeRecord
from hiexp_verl.plugin.advantage import Terms, compute_hiexp_grpo_advantage, with_terms
from hiexp_verl.plugin.agent_loop import HiExpAgentLoop, settings_of
from hiexp_verl.plugin.bonus import bonuses, novelties
from hiexp_verl.plugin.metrics import EpisodeOutcome, episode_metrics
from hiexp_verl.plugin.preflight_arms import check_group
from hiexp_verl.plugin.turns import Turns, state_of, turn_advantages
from tests.support.agent_episodes import TURNS, config_of, run
from tests.support.verl_fixtures import tiny_tokenizer, write_corpus, write_hek

RAW = OmegaConf.create({"norm_adv_by_std_in_grpo": False})
BY_STD = OmegaConf.create({"norm_adv_by_std_in_grpo": True})


def test_novelty_is_one_minus_the_largest_overlap_with_another_right_rollout():
    queries = [("capital Peru",), ("Peru capital", "Lima"), ("river",), ("capital Peru",), (), ("river",)]
    groups, right = list("aaaaab"), [True, True, True, False, True, True]
    # 1 and 2 share capital, Peru of capital, Peru, Lima: 1 - 2/3; the wrong one counts for nobody; without a search nothing is new;
    # b has one right rollout.
    assert novelties(groups, right, queries) == pytest.approx([1 / 3, 1 / 3, 1.0, 0.0, 0.0, 1.0])


def test_only_right_rollouts_are_paid():
    paid = bonuses(CreditConfig(plan=0.1, novelty=0.05), [True, True, False, True], [True, False, True, None], [0.5, 1.0, 0.0, 0.0])
    assert paid.tolist() == pytest.approx([0.125, 0.05, 0.0, 0.0])
    for name in ("plan", "novelty"):
        with pytest.raises(HiExpError, match=f"{name} must be at most 0.1"):
            CreditConfig(**{name: 0.2})


def test_novelty_and_use_are_logged_also_where_they_are_not_paid():
    def outcome(right, queries, followed):
        record = EpisodeRecord("a", "?", queries=queries, searches=len(queries), followed=followed)
        return EpisodeOutcome("a", float(right), record, scores={"acc": float(right)})

    episodes = [outcome(True, ("capital Peru",), True), outcome(True, ("capital Chile",), False), outcome(False, ("sea",), None)]
    metrics = episode_metrics(episodes)
    assert metrics["hiexp/novelty"] == pytest.approx(2 / 3), "1 of 3 words is shared"
    assert metrics["hiexp/plan_followed"] == 0.5
    assert not {"hiexp/novelty", "hiexp/plan_followed"} & episode_metrics(episodes[2:]).keys()


# A turn is two tokens, the documents after it one. Three rollouts of q: after the first search 1 and 2 are in the same state x.
MASK = np.array([[1, 1, 0, 1, 1, 0, 1, 1], [1, 1, 0, 1, 1, 0, 0, 0], [1, 1, 0, 1, 1, 0, 0, 0], [1, 1, 0, 1, 1, 0, 0, 0]])
STATES = [("x", "y"), ("x",), ("z",), ("x",)]
REWARDS = np.array([1.0, 0.0, 0.5, 0.25])
GROUPS = ["q", "q", "q", "other"]


def test_a_turn_is_compared_with_the_turns_in_the_same_state():
    # At x the mean of q is 0.5: +0.5 and -0.5; at y, z, and in the other question, one came alone.
    expected = np.zeros(MASK.shape)
    expected[0, 3:5], expected[1, 3:5] = 0.5, -0.5
    assert turn_advantages(REWARDS, GROUPS, STATES, MASK).tolist() == expected.tolist()
    twice = turn_advantages(REWARDS, GROUPS, [("x", "x"), ("x",), (), ()], MASK)
    assert twice[0].tolist() == [0, 0, 0, 0.5, 0.5, 0, 0.5, 0.5], "the mean is that of two rollouts"


def test_a_row_whose_turns_are_not_those_that_were_played_gets_nothing():
    torn = MASK.copy()
    torn[0] = [1, 0, 1, 0, 1, 0, 1, 1]
    assert not turn_advantages(REWARDS, GROUPS, STATES, torn)[0].any()
    assert not turn_advantages(REWARDS, ["q"] * 4, [("",)] * 4, MASK[1:2].repeat(4, axis=0)).any(), "a failed search is no state"


def test_states_are_the_same_for_the_same_query_and_passages():
    one = state_of([("Capital of Peru?", ["1", "2"])])
    assert one == state_of([("capital of peru", ["1", "2"])]) != state_of([("capital of Peru", ["2", "1"])])
    assert state_of([("a", None)]) == state_of([]) == ""


def advantages(terms, config=RAW):
    rewards_B_T = torch.zeros(MASK.shape)
    rewards_B_T[:, -1] = torch.tensor(REWARDS)
    with with_terms(terms):
        found, _ = compute_hiexp_grpo_advantage(rewards_B_T, torch.tensor(MASK), config, np.array(GROUPS))
    return found


def test_the_terms_are_added_to_the_advantage_and_hold_inside_the_context_alone():
    plain = advantages(None)
    # q has the mean 0.5, with the bonus of its first rollout 0.53: 0.57 on the tokens that the policy wrote.
    paid = advantages(Terms(np.array([0.09, 0.0, 0.0, 0.0])))
    assert paid[0].tolist() == pytest.approx([0.56, 0.56, 0, 0.56, 0.56, 0, 0.56, 0.56])
    assert paid[1, 0] == pytest.approx(-0.53)
    stepped = advantages(Terms(np.zeros(4), Turns(STATES, 0.5)))
    assert (stepped - plain)[0].tolist() == pytest.approx([0, 0, 0, 0.25, 0.25, 0, 0, 0])
    # The deviation of 1, 0, 0.5 is 0.5.
    by_std = advantages(Terms(np.zeros(4), Turns(STATES, 0.5)), BY_STD) - advantages(None, BY_STD)
    assert by_std[0].tolist() == pytest.approx([0, 0, 0, 0.5, 0.5, 0, 0, 0], abs=1e-4)
    assert torch.equal(advantages(None), plain)
    assert torch.equal(advantages(Terms(np.zeros(4))), plain)


def test_an_episode_says_where_its_turns_stand_if_asked(tmp_path):
    paths = {"corpus": write_corpus(tmp_path / "corpus.jsonl"), "hek": write_hek(tmp_path / "hek")}
    tokenizer = tiny_tokenizer()
    for dialect in ("search_tags", "hermes"):
        output, _ = run(HiExpAgentLoop, config_of(paths, dialect, "hiexp.credit.turns=0.5"), tokenizer, TURNS[dialect])
        states, mask = output.extra_fields["hiexp"]["states"], np.array([output.response_mask])
        assert len(states) == len(set(states)) == 2 and all(states)
        found = turn_advantages(np.array([1.0, 0.0]), ["q", "q"], [states, states[:1]], mask.repeat(2, axis=0))
        turn = found[0] == 0.5
        last_but_one = len(tokenizer.encode(TURNS[dialect][1] + tokenizer.eos_token))
        assert turn.sum() == last_but_one and (mask[0][turn] == 1).all(), "the second turn"
        plain, _ = run(HiExpAgentLoop, config_of(paths, dialect), tokenizer, TURNS[dialect])
        assert "states" not in plain.extra_fields["hiexp"]


def test_terms_that_no_estimator_adds_are_refused(tmp_path):
    paths = {"corpus": "c", "hek": "h"}
    config = config_of(paths, "search_tags", "hiexp.credit.plan=0.1", "algorithm.adv_estimator=grpo")
    with pytest.raises(HiExpError, match=r"hiexp\.credit is added by algorithm\.adv_estimator=hiexp_grpo, found grpo"):
        check_group(settings_of(config), config)
