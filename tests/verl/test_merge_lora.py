"""A LoRA checkpoint is evaluated as it was trained: verl's own merger, and peft's arithmetic."""

import json

import pytest

pytest.importorskip("verl")
torch = pytest.importorskip("torch")

from hiexp_verl.errors import HiExpError
from hiexp_verl.rollout.policy import find_policy
from tests.support.chat_families import tokenizer_of


def lora_checkpoint(folder, alpha=16):
    """Write what verl leaves of a LoRA run with one worker; return the actor's directory and what was trained, merged."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    actor = folder / "checkpoints" / "global_step_3" / "actor"
    tokenizer = tokenizer_of("smollm2")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), architectures=["LlamaForCausalLM"], **sizes)
    model = LlamaForCausalLM(config)
    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    config.save_pretrained(actor / "huggingface")
    tokenizer.save_pretrained(actor / "huggingface")
    torch.save(adapted.state_dict(), actor / "model_world_size_1_rank_0.pt")
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 1, "world_size": 1}))
    (actor / "lora_train_meta.json").write_text(json.dumps({"r": 4, "lora_alpha": alpha, "task_type": "CAUSAL_LM"}))
    adapted.save_pretrained(actor / "huggingface")  # an export as verl's `hf_model`: names that no engine knows
    return actor, start, adapted.merge_and_unload().state_dict()


def test_a_lora_checkpoint_is_the_base_and_its_adapter(tmp_path):
    from safetensors.torch import load_file

    actor, start, trained = lora_checkpoint(tmp_path / "mine")
    found = load_file(f"{find_policy(str(actor.parent), tmp_path / 'out').spec}/model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert (trained[name] - start[name]).abs().max() > 0.5, "something was trained"
    torch.testing.assert_close(found[name].float(), trained[name], atol=0.05, rtol=0.02)  # verl merges in bfloat16
    assert not [each for each in found if "lora" in each]


def test_a_lora_checkpoint_without_its_scale_is_refused(tmp_path):
    actor, *_ = lora_checkpoint(tmp_path / "mine", alpha=0)
    with pytest.raises(HiExpError, match="has no lora_alpha"):
        find_policy(str(actor.parent), tmp_path / "out")
    assert not (tmp_path / "out" / "policy").exists()
