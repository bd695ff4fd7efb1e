"""The loss of self-distillation, by hand, and what preflight refuses."""

import json
import math
import subprocess
import sys
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.verl
pytest.importorskip("verl")

import torch
from omegaconf import OmegaConf

from hiexp_verl.config import GroupConfig, HiExpConfig, SelfDistilConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.models.tokenizer import prompt_ids
from hiexp_verl.plugin.preflight_arms import check_distil
from hiexp_verl.plugin.self_distil import SelfDistil, token_kl
from tests.support.paths import ROOT
from tests.support.verl_fixtures import compose, tiny_tokenizer


def kl_of(p, q, top_k, clip=10.0):
    """The KL of one token whose vocabulary has these probabilities."""
    log_p, ids = torch.tensor([[p]]).log().topk(top_k, dim=-1)
    return {name: float(value) for name, value in token_kl(torch.tensor([[q]]).log(), log_p, ids, clip).items()}


def test_over_the_whole_vocabulary_it_is_the_forward_kl():
    p, q = [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]
    found = kl_of(p, q, top_k=3)
    assert found["hiexp_kl"] == pytest.approx(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)), abs=1e-5)
    assert (found["hiexp_p_mass"], found["hiexp_q_mass"]) == pytest.approx((1, 1))


def test_what_is_beyond_the_top_is_one_bucket():
    p, q = [0.5, 0.3, 0.15, 0.05], [0.25, 0.25, 0.25, 0.25]
    found = kl_of(p, q, top_k=2)
    by_hand = 0.5 * math.log(2) + 0.3 * math.log(1.2) + 0.2 * math.log(0.2 / 0.5)
    assert found["hiexp_kl"] == pytest.approx(by_hand, abs=1e-5)
    assert found["hiexp_p_mass"] == pytest.approx(0.8) and found["hiexp_q_mass"] == pytest.approx(0.5)


def test_equal_contexts_have_no_loss_and_no_gradient():
    logits = torch.randn(1, 5, 40, requires_grad=True)
    log_q = torch.log_softmax(logits, -1)
    log_p, ids = log_q.detach().topk(8, dim=-1)
    loss = token_kl(log_q, log_p, ids, 0.05)["hiexp_kl"].sum()
    loss.backward()
    assert float(loss) == pytest.approx(0, abs=1e-5) and float(logits.grad.abs().max()) < 1e-5


def test_one_entry_adds_no_more_than_the_clip_and_a_clipped_one_has_no_gradient():
    found = kl_of([0.9, 0.1], [0.1, 0.9], top_k=2, clip=0.05)
    assert found["hiexp_kl"] == pytest.approx(0.05 + 0.1 * math.log(0.1 / 0.9), abs=1e-5)
    assert found["hiexp_cut"] == pytest.approx(1 / 3), "of two entries and the bucket"


def test_a_step_along_the_gradient_brings_the_student_nearer():
    torch.manual_seed(0)
    logits = torch.randn(1, 4, 30, requires_grad=True)
    log_p, ids = torch.log_softmax(torch.randn(1, 4, 30), -1).topk(16, dim=-1)
    optimizer, seen = torch.optim.SGD([logits], lr=1.0), []
    for _ in range(50):
        loss = token_kl(torch.log_softmax(logits, -1), log_p, ids, 10.0)["hiexp_kl"].sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(float(loss))
    assert seen[-1] < 0.05 * seen[0]


def config(**more):
    actor = {"strategy": "fsdp2", "optim": {"lr_scheduler_type": "constant", "lr_warmup_steps": 0}}
    base = OmegaConf.create({"actor_rollout_ref": {"actor": actor, "model": {"use_fused_kernels": False}, "rollout": {"n": 4}}})
    return OmegaConf.merge(base, {"actor_rollout_ref": more})


MIXED = {"group": GroupConfig(arms=("none", "full")), "dump_dir": "dump", "hek": "hek"}


def test_rounds_that_can_be_done_pass():
    check_distil(HiExpConfig(distil=SelfDistilConfig(every=2), **MIXED), config())
    check_distil(HiExpConfig(), config(model={"use_fused_kernels": True}))


@pytest.mark.parametrize(
    ("settings", "more", "says"),
    [
        ({"dump_dir": None}, {}, "set hiexp.dump_dir"),
        ({"group": GroupConfig()}, {}, "gives 0 a question"),
        ({"hek": None, "distil": SelfDistilConfig(every=1, privilege="hek")}, {}, "needs a HEK"),
        ({}, {"model": {"use_fused_kernels": True}}, "use_fused_kernels=false"),
        ({}, {"actor": {"ulysses_sequence_parallel_size": 2}}, "ulysses_sequence_parallel_size=1"),
        ({}, {"actor": {"strategy": "megatron"}}, "strategy is megatron"),
        ({}, {"actor": {"optim": {"lr_scheduler_type": "cosine"}}}, "lr_scheduler_type=constant"),
        ({}, {"actor": {"optim": {"lr_warmup_steps": 10}}}, "lr_warmup_steps=0"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(settings, more, says):
    with pytest.raises(HiExpError, match=says):
        check_distil(HiExpConfig(**{"distil": SelfDistilConfig(every=1), **MIXED, **settings}), config(**more))


@pytest.mark.parametrize(
    ("students", "mini_batch", "micro", "ranks", "expected"),
    [
        (10, 32, 2, 1, 10),
        (11, 32, 2, 1, 10),
        (100, 32, 2, 1, 32),
        (100, 33, 4, 2, 32),
        (1, 32, 2, 1, 0),
        (40, 1, 4, 2, 8),
        (0, 32, 1, 1, 0),
    ],
)
def test_an_update_has_as_many_rows_as_micro_batches_and_ranks_divide(students, mini_batch, micro, ranks, expected):
    actor = {"use_dynamic_bsz": False, "ppo_micro_batch_size_per_gpu": micro}
    distil = object.__new__(SelfDistil)
    distil._settings = HiExpConfig(distil=SelfDistilConfig(mini_batch=mini_batch))
    distil._config = OmegaConf.create({"actor_rollout_ref": {"actor": actor, "rollout": {"log_prob_micro_batch_size_per_gpu": 1}}})
    distil._workers = SimpleNamespace(world_size=ranks)
    assert distil._mini_batch(students) == expected


def test_verls_engine_computes_the_same_kl_as_by_hand_and_lowers_it(tmp_path):
    """And a batch that is no round has verl's own loss."""
    result = subprocess.run([sys.executable, "-m", "tests.support.distil_engine", str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["kl"][0] == pytest.approx(found["by_hand"], rel=1e-3)
    assert found["kl"][-1] < 0.5 * found["kl"][0], "five updates towards the teacher"
    assert math.isfinite(found["ppo"])


@pytest.mark.parametrize("dialect", ["hermes", "search_tags"])
def test_a_prompt_is_written_again_as_the_agent_loop_wrote_it(dialect):
    tokenizer, config = tiny_tokenizer(), compose("+hiexp=grpo", f"actor_rollout_ref.rollout.multi_turn.format={dialect}")
    config.actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu = 1
    losses = []
    distil = SelfDistil(HiExpConfig(), config, tokenizer, SimpleNamespace(set_loss_fn=losses.append), None)
    messages = [{"role": "system", "content": "Search."}, {"role": "user", "content": "Who?"}]
    written = [prompt_ids(tokenizer, messages, tools) for tools in ([], distil._tools[1])]
    assert distil._tools[1] and [distil._ids(messages, tools) for tools in distil._tools] == written
    assert len(losses) == 1, "the workers' loss knows rounds"
