"""The gate of the demo: it passes where vLLM serves the trained weights, and catches weights that are some steps old."""

import importlib
import json

import pytest

PEARSON = "training/rollout_actor_probs_pearson_corr"


@pytest.fixture
def recipe():
    pytest.importorskip("yaml")
    return lambda name: importlib.import_module(f"recipes.cpu_demo.{name}")


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ([0.9988, 0.9991, 0.9997], 0),  # as the demo measured them
        ([0.9988, 0.96, 0.9997], 1),  # 0.96: a server that was three steps behind
        ([0.9988, float("nan"), 0.9997], 1),  # no token to compare: nothing is proven
        ([0.99], 1),
    ],
)
def test_one_step_with_stale_weights_fails_the_demo(recipe, tmp_path, capsys, steps, code):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(json.dumps({"step": i, "data": {PEARSON: value}}) + "\n" for i, value in enumerate(steps)))
    training, run = recipe("training"), recipe("run")
    rows = training.read_metrics(metrics)
    assert len(rows) == len(steps)
    assert run.verdict(training.lowest([row[PEARSON] for row in rows])) == code
    assert ("does not serve the trained weights" in capsys.readouterr().err) == bool(code)


@pytest.mark.verl
def test_a_model_three_optimiser_steps_behind_is_below_the_gate_and_its_rounded_copy_above(recipe):
    """A tiny real model and verl's own metric: what is rounded to bfloat16 passes, what is old does not."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("verl")
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    actor = LlamaForCausalLM(LlamaConfig(**sizes))
    tokens_B_T = torch.randint(0, 64, (8, 48))
    optimiser = torch.optim.Adam(actor.parameters(), lr=3e-3)

    def train(steps):
        for _ in range(steps):
            optimiser.zero_grad()
            actor(tokens_B_T, labels=tokens_B_T).loss.backward()
            optimiser.step()

    train(60)  # until its probabilities spread over (0, 1), as those of a trained model do
    stale_B_T = log_probs(actor, tokens_B_T)
    train(3)
    rounded = LlamaForCausalLM(actor.config)
    rounded.load_state_dict(actor.state_dict())
    served_B_T = log_probs(rounded.to(torch.bfloat16), tokens_B_T)
    in_sync, behind = (pearson(rollout, log_probs(actor, tokens_B_T)) for rollout in (served_B_T, stale_B_T))
    gate = recipe("training").weights_in_sync
    assert gate(in_sync), in_sync
    assert not gate(behind), behind


def log_probs(model, tokens_B_T):
    """The log-probability of each token but the first, given those before it."""
    import torch

    with torch.no_grad():
        logits_B_T_V = model(tokens_B_T).logits.float()
    return logits_B_T_V[:, :-1].log_softmax(-1).gather(-1, tokens_B_T[:, 1:, None])[..., 0]


def pearson(rollout_B_T, actor_B_T):
    import torch
    from verl.protocol import DataProto
    from verl.utils.debug.metrics import calculate_debug_metrics

    mask_B_T = torch.ones_like(actor_B_T)
    tensors = {"rollout_log_probs": rollout_B_T, "old_log_probs": actor_B_T, "response_mask": mask_B_T, "responses": mask_B_T}
    return calculate_debug_metrics(DataProto.from_dict(tensors))[PEARSON]
