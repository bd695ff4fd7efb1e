"""The presets `+hiexp=grpo` and `+hiexp=gspo`: a hydra config group that the plugin registers, so that no path is needed."""

from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from hiexp_verl.config import HiExpConfig
from hiexp_verl.models.vllm_process import CPU_BLOCK_SIZE, cpu_dtype
from hiexp_verl.settings import block_of

REWARD = "pkg://hiexp_verl.plugin.reward"

COMMON: dict[str, Any] = {
    "hiexp": block_of(HiExpConfig()),
    # Refuses a bad corpus, HEK, encoder or setting in the driver, before Ray or a device is touched.
    "hydra": {
        "callbacks": {
            "hiexp": {"_target_": "hiexp_verl.plugin.preflight.Preflight"},
            "hiexp_record": {"_target_": "hiexp_verl.plugin.record.Record"},
        }
    },
    "data": {
        "custom_cls": {"path": "pkg://hiexp_verl.plugin.dataset", "name": "QuestionDataset"},
        "search_format": "${actor_rollout_ref.rollout.multi_turn.format}",
        "hiexp_domain": "${hiexp.domain}",
        "return_raw_chat": True,
        "max_prompt_length": 2048,  # verl's defaults of 512 end most episodes at their first search
        "max_response_length": 4096,
    },
    "actor_rollout_ref": {
        "rollout": {
            "n": 5,
            "agent": {"default_agent_loop": "hiexp_agent"},
            "multi_turn": {
                "enable": True,
                "format": "hermes",
                "max_assistant_turns": 8,
                "tool_config_path": str(Path(__file__).with_name("tools.yaml")),
                "max_tool_response_length": 4000,  # characters; verl's default of 256 cuts most of the documents
                "tool_response_truncate_side": "right",
            },
        },
    },
    "reward": {
        "custom_reward_function": {
            "path": REWARD,
            "name": "compute_score",
            "reward_kwargs": {"kind": "${hiexp.reward.kind}", "domain": "${hiexp.domain}"},
        }
    },
    "algorithm": {"adv_estimator": "hiexp_grpo", "norm_adv_by_std_in_grpo": True, "use_kl_in_reward": False},
    "trainer": {"v1": {"trainer_mode": "hiexp_sync"}},
}

GRPO: dict[str, Any] = {
    "actor_rollout_ref": {
        "actor": {
            "policy_loss": {"loss_mode": "vanilla"},
            "loss_agg_mode": "token-mean",
            "clip_ratio_low": 0.2,
            "clip_ratio_high": 0.2,
            "clip_ratio_c": 3.0,
            "use_kl_loss": True,
            "kl_loss_coef": 0.001,
            "kl_loss_type": "low_var_kl",
        }
    }
}

GSPO: dict[str, Any] = {
    "actor_rollout_ref": {
        "actor": {
            "policy_loss": {"loss_mode": "gspo"},
            # verl 0.9.0 hard-codes this for GSPO; 0.9.1 reads it and would default to token-mean.
            "loss_agg_mode": "seq-mean-token-mean",
            "clip_ratio_low": 3e-4,
            "clip_ratio_high": 4e-4,
            "clip_ratio_c": 10.0,
            "use_kl_loss": False,
        }
    }
}

# With VERL_PLATFORM=cpu: one logical GPU, small pools, FSDP2, vLLM's CPU build.
CPU: dict[str, Any] = {
    "trainer": {"device": "cpu", "n_gpus_per_node": 1, "nnodes": 1},
    "ray_kwargs": {"ray_init": {"num_gpus": 1, "num_cpus": 24, "include_dashboard": False}},
    "reward": {"num_workers": 1},
    "data": {"dataloader_num_workers": 0},
    "transfer_queue": {"backend": {"SimpleStorage": {"num_data_storage_units": 1}}},
    "actor_rollout_ref": {
        "model": {
            "override_config": {"attn_implementation": "sdpa"},
            "use_remove_padding": False,
            "lora": {"merge": True},  # vLLM's packed kernels take full weights, not adapters
            # Registers the CPU training engine in the workers that load a model, and only there.
            "external_lib": "hiexp_verl.plugin.cpu.engine",
        },
        "actor": {"strategy": "fsdp2", "use_torch_compile": False, "fsdp_config": {"use_torch_compile": False}},
        "ref": {"use_torch_compile": False, "fsdp_config": {"use_torch_compile": False}},
        "rollout": {
            "name": "vllm_cpu",
            "dtype": cpu_dtype(),
            "tensor_model_parallel_size": 1,
            "enforce_eager": True,
            "enable_chunked_prefill": False,  # with hiexp.seed: see vllm_process.engine_arguments
            "enable_sleep_mode": False,
            "free_cache_engine": False,
            "agent": {"num_workers": 1},
            "engine_kwargs": {"vllm": {"distributed_executor_backend": "uni", "block_size": CPU_BLOCK_SIZE}},  # see vllm_process.CPU_ENGINE
            "checkpoint_engine": {"update_weights_bucket_megabytes": 1024},
        },
    },
}


def compose(algorithm: str, cpu: bool) -> dict[str, Any]:
    """Return everything that `+hiexp=<algorithm>` sets, on a CPU or not."""
    parts = [COMMON, {"grpo": GRPO, "gspo": GSPO}[algorithm], *([CPU] if cpu else [])]
    return OmegaConf.to_container(OmegaConf.merge(*parts))  # type: ignore[return-value]


def store(cpu: bool) -> None:
    """Register the group with hydra; command-line overrides still win."""
    for name in ("grpo", "gspo"):
        node = OmegaConf.create(compose(name, cpu))
        # Our own check names the key nearest to an unknown one; hydra only refuses it.
        OmegaConf.set_struct(node.hiexp, False)
        ConfigStore.instance().store(group="hiexp", name=name, node=node, package="_global_", provider="hiexp_verl")
