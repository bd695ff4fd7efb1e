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
from hiexp_verl.plugin.distil_loss import token_kl
from hiexp_verl.plugin.preflight_arms import check_adapter, check_distil
from hiexp_verl.plugin.self_distil import SelfDistil, rows_multiple
from tests.support.paths import ROOT
from tests.support.verl_fixtures import compose, tiny_tokenizer


def kl_of(p, q, top_k, clip=10.0):
    """The KL of one token whose vocabulary has these probabilities."""
    log_p, ids = torch.tensor([[p]]).log().topk(top_k, dim=-1)
    return {name: float(value) for name, value in token_kl(torch.tensor([[q]]).log(), log_p, ids, clip).items()}


def test_over_the_whole_vocabulary_it_is_the_forward_kl():
    p, q = [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]
    found = kl_of(p, q, top_k=3)
    assert found["kl"] == pytest.approx(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)), abs=1e-5)
    assert (found["teacher_mass"], found["student_mass"]) == pytest.approx((1, 1))


def test_what_is_beyond_the_top_is_one_bucket():
    p, q = [0.5, 0.3, 0.15, 0.05], [0.25, 0.25, 0.25, 0.25]
    found = kl_of(p, q, top_k=2)
    by_hand = 0.5 * math.log(2) + 0.3 * math.log(1.2) + 0.2 * math.log(0.2 / 0.5)
    assert found["kl"] == pytest.approx(by_hand, abs=1e-5)
    assert found["teacher_mass"] == pytest.approx(0.8) and found["student_mass"] == pytest.approx(0.5)


def test_equal_contexts_have_no_loss_and_no_gradient():
    logits = torch.randn(1, 5, 40, requires_grad=True)
    log_q = torch.log_softmax(logits, -1)
    log_p, ids = log_q.detach().topk(8, dim=-1)
    loss = token_kl(log_q, log_p, ids, 0.05)["kl"].sum()
    loss.backward()
    assert float(loss) == pytest.approx(0, abs=1e-5) and float(logits.grad.abs().max()) < 1e-5


def test_one_entry_adds_no_more_than_the_clip_and_a_clipped_one_has_no_gradient():
    found = kl_of([0.7, 0.2, 0.1], [0.3, 0.55, 0.15], top_k=3, clip=0.05)
    # 0.193 and 0.148 are more than the clip.
    assert found["kl"] == pytest.approx(0.05 + 0.05 + 0.1 * math.log(0.1 / 0.15) + 0.05, abs=1e-5)
    assert found["clip_fraction"] == pytest.approx(2 / 4), "of three entries and the bucket"
    # Of the third alone comes q (q - p) of the softmax: -q_j (q_3 - p_3), and (q_3 - p_3) for itself.
    logits = torch.tensor([[[0.3, 0.55, 0.15]]]).log().requires_grad_()
    log_p, ids = torch.tensor([[[0.7, 0.2, 0.1]]]).log().topk(3, dim=-1)
    token_kl(torch.log_softmax(logits, -1), log_p, ids, 0.05)["kl"].sum().backward()
    assert logits.grad.flatten().tolist() == pytest.approx([-0.3 * 0.05, -0.55 * 0.05, 0.05 - 0.15 * 0.05], abs=1e-5)


def test_a_clip_does_not_drive_the_student_away_from_the_teacher():
    torch.manual_seed(0)
    teacher = 3 * torch.randn(1, 500, 64)
    log_p, ids = torch.log_softmax(teacher, -1).topk(64, dim=-1)
    logits = (teacher + 0.3 * torch.randn_like(teacher)).requires_grad_()

    def kl(clip):
        return token_kl(torch.log_softmax(logits, -1), log_p, ids, clip)["kl"].mean()

    before, optimizer = float(kl(10.0).detach()), torch.optim.SGD([logits], lr=100.0)
    for _ in range(100):
        optimizer.zero_grad()
        loss = kl(0.05)
        loss.backward()
        optimizer.step()
        assert loss >= 0
    assert float(kl(10.0).detach()) < 0.2 * before, "with terms of p (log p - log q) it would be eight times as large as before"


def test_the_overlap_is_the_share_of_the_teachers_top_that_is_in_the_students():
    assert kl_of([0.5, 0.3, 0.15, 0.05], [0.5, 0.1, 0.35, 0.05], top_k=2)["overlap"] == 0.5
    assert kl_of([0.5, 0.3, 0.15, 0.05], [0.3, 0.5, 0.15, 0.05], top_k=2)["overlap"] == 1


def test_a_step_along_the_gradient_brings_the_student_nearer():
    torch.manual_seed(0)
    logits = torch.randn(1, 4, 30, requires_grad=True)
    log_p, ids = torch.log_softmax(torch.randn(1, 4, 30), -1).topk(16, dim=-1)
    optimizer, seen = torch.optim.SGD([logits], lr=1.0), []
    for _ in range(50):
        loss = token_kl(torch.log_softmax(logits, -1), log_p, ids, 10.0)["kl"].sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(float(loss))
    assert seen[-1] < 0.05 * seen[0]


def config(**more):
    actor = {
        "strategy": "fsdp2",
        "optim": {"lr_scheduler_type": "constant", "lr_warmup_steps": 0},
        "checkpoint": {"save_contents": ["model"]},
    }
    base = OmegaConf.create({"actor_rollout_ref": {"actor": actor, "model": {"use_fused_kernels": False}, "rollout": {"n": 4}}})
    return OmegaConf.merge(base, {"trainer": more.pop("trainer", {}), "actor_rollout_ref": more})


MIXED = {"group": GroupConfig(arms=("none", "full")), "dump_dir": "dump", "hek": "hek"}


def test_rounds_that_can_be_done_pass():
    check_distil(HiExpConfig(distil=SelfDistilConfig(every=2), **MIXED), config())
    check_distil(HiExpConfig(distil=SelfDistilConfig(every=2), **MIXED), config(trainer={"max_actor_ckpt_to_keep": 1}))
    check_distil(HiExpConfig(), config(model={"use_fused_kernels": True}))
    without_guard = SelfDistilConfig(every=2, stop_on_drop=False)
    check_distil(HiExpConfig(distil=without_guard, **MIXED), config(actor={"checkpoint": {"save_contents": ["hf_model"]}}))
    check_distil(HiExpConfig(distil=SelfDistilConfig(every=2, teacher="base"), **MIXED), config(model={"lora_rank": 8}))


@pytest.mark.parametrize(
    ("settings", "more", "says"),
    [
        ({"dump_dir": None}, {}, "set hiexp.dump_dir"),
        ({"group": GroupConfig()}, {}, "gives 0 a question"),
        ({"hek": None, "distil": SelfDistilConfig(every=1, privilege="hek")}, {}, "needs a HEK"),
        ({}, {"model": {"use_fused_kernels": True}}, "use_fused_kernels=false"),
        ({}, {"actor": {"ulysses_sequence_parallel_size": 2}}, "ulysses_sequence_parallel_size=1"),
        ({}, {"actor": {"fsdp_config": {"ulysses_sequence_parallel_size": 2}}}, "ulysses_sequence_parallel_size=1"),
        ({}, {"actor": {"strategy": "megatron"}}, "strategy is megatron"),
        ({}, {"actor": {"optim": {"lr_scheduler_type": "cosine"}}}, "lr_scheduler_type=constant"),
        ({}, {"actor": {"optim": {"warmup_style": "cosine"}}}, "lr_scheduler_type=constant"),
        ({}, {"actor": {"optim": {"lr_warmup_steps": 10}}}, "lr_warmup_steps=0"),
        ({}, {"actor": {"optim": {"lr_warmup_steps": -1, "lr_warmup_steps_ratio": 0.1}}}, "lr_warmup_steps_ratio=0"),
        ({}, {"actor": {"fsdp_config": {"pad_to_length": True}}}, "pad_to_length=false"),
        ({}, {"actor": {"checkpoint": {"save_contents": ["hf_model"]}}}, "has no model; add it, or set hiexp.distil.stop_on_drop=false"),
        ({}, {"actor": {"checkpoint": {"load_contents": ["optimizer"]}}}, r"load_contents=\['optimizer'\] has no model"),
        ({"group": GroupConfig(), "arm": "none"}, {"rollout": {"n": 1}}, "privilege=sibling pairs two rollouts.*rollout.n=1; raise it"),
        ({}, {"trainer": {"max_actor_ckpt_to_keep": 3}}, "set it to 1 or null"),
        ({"domain": "maths"}, {}, "compares searches, and hiexp.domain is maths"),
        ({"distil": SelfDistilConfig(every=1, teacher="base")}, {}, "takes the adapter off, and there is none"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(settings, more, says):
    with pytest.raises(HiExpError, match=says):
        check_distil(HiExpConfig(**{"distil": SelfDistilConfig(every=1), **MIXED, **settings}), config(**more))


@pytest.mark.parametrize(("micro", "look", "ranks", "expected"), [(2, 1, 1, 2), (4, 6, 1, 12), (4, 1, 2, 8), (None, None, 3, 3)])
def test_rows_are_a_multiple_of_what_micro_batches_and_ranks_divide(micro, look, ranks, expected):
    actor, rollout = {"use_dynamic_bsz": False, "ppo_micro_batch_size_per_gpu": micro}, {"log_prob_micro_batch_size_per_gpu": look}
    config = OmegaConf.create({"actor_rollout_ref": {"actor": actor, "rollout": rollout}})
    assert rows_multiple(config, ranks) == expected
    config.actor_rollout_ref.actor.use_dynamic_bsz = True
    assert rows_multiple(config, ranks) == ranks


@pytest.mark.parametrize("dialect", ["hermes", "search_tags"])
def test_a_prompt_is_written_again_as_the_agent_loop_wrote_it(dialect):
    tokenizer, config = tiny_tokenizer(), compose("+hiexp=grpo", f"actor_rollout_ref.rollout.multi_turn.format={dialect}")
    config.actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu = 1
    losses = []
    config.actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu = 1
    distil = SelfDistil(HiExpConfig(), config, tokenizer, SimpleNamespace(set_loss_fn=losses.append, world_size=1), None)
    messages = [{"role": "system", "content": "Search."}, {"role": "user", "content": "Who?"}]
    written = [prompt_ids(tokenizer, messages, tools) for tools in ([], distil._tools[1])]
    assert distil._tools[1] and [distil._teacher.ids(messages, tools) for tools in distil._tools] == written
    assert len(losses) == 1, "the workers' loss knows rounds"


def test_a_top_k_beyond_the_vocabulary_and_an_adapter_that_is_missing_are_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"vocab_size": 60}')
    run = config(model={"path": str(tmp_path), "lora_adapter_path": str(tmp_path / "adapter")})
    with pytest.raises(HiExpError, match="top_k=64 exceeds the vocabulary of the model; set it to 60 at most"):
        check_distil(HiExpConfig(distil=SelfDistilConfig(every=1), **MIXED), run)
    with pytest.raises(HiExpError, match=r"adapter has no adapter_config.json; give the folder of an adapter"):
        check_adapter(run)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    check_adapter(run)


def test_rows_go_through_verls_queue_and_come_back_round_after_round():
    command = [sys.executable, "-m", "tests.support.distil_queue"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    out = json.loads(done.stdout.splitlines()[-1])
    once = [[[0.0, 2.0, 4.0], [0.0, 2.0, 4.0, 6.0, 8.0]], {"rows": 2}, [[0.0, 2.0, 4.0]]]
    assert out["found"] == once * 2
    plain, aligned = ["input_ids", "prompts", "responses"], ["hiexp_p", "input_ids", "prompts", "responses"]
    assert out["seen"] == [["look", plain], ["learn", aligned], ["check", aligned]] * 2, "nothing of the call before is left"
