"""Is the run one that verl, and our CPU engine, can do? What they cannot is told before anything starts."""

from omegaconf import DictConfig, OmegaConf

from hiexp_verl.config import HiExpConfig
from hiexp_verl.errors import HiExpError

TRAINERS = ("hiexp_sync", "hiexp_colocate_async")
ON_CPU = {
    "trainer.n_gpus_per_node": 1,
    "trainer.nnodes": 1,
    "actor_rollout_ref.actor.strategy": "fsdp2",
    "actor_rollout_ref.rollout.name": "vllm_cpu",
    "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
    "actor_rollout_ref.rollout.data_parallel_size": 1,
    "actor_rollout_ref.rollout.pipeline_model_parallel_size": 1,
    "actor_rollout_ref.rollout.quantization": None,
    "actor_rollout_ref.actor.ulysses_sequence_parallel_size": 1,
}


def check_engine(config: DictConfig, settings: HiExpConfig) -> None:
    """Check the trainer, and on a CPU what does not run there.

    Raises:
        HiExpError: a trainer of another name, or a setting that ends in a crash minutes later.
    """
    if not config.trainer.use_v1:
        raise HiExpError("trainer.use_v1=false is verl's earlier trainer, which knows no plugin; set it to true")
    mode = config.trainer.v1.trainer_mode
    if settings.enabled and mode not in TRAINERS:
        raise HiExpError(
            f"trainer.v1.trainer_mode={mode} is none of {', '.join(TRAINERS)} (verl's own modes log nothing of experience, and its "
            "separate_async has no counterpart here); set one of these, or hiexp.enabled=false"
        )
    if config.trainer.device == "cpu":
        check_cpu(config)


def check_cpu(config: DictConfig) -> None:
    """Check what does not run on a CPU.

    Raises:
        HiExpError: it is set.
    """
    actor, rollout, model = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout, config.actor_rollout_ref.model
    if config.trainer.v1.trainer_mode == "separate_async":
        raise HiExpError("trainer.v1.trainer_mode=separate_async needs devices of its own for rollouts, and a CPU is one; set it to sync")
    for setting, works in ON_CPU.items():
        found = OmegaConf.select(config, setting)
        if found != works:
            raise HiExpError(f"{setting}={found} does not run on a CPU; set it to {works}")
    if (model.lora.get("rank", 0) > 0 or model.lora_rank > 0) and not model.lora.merge:  # verl takes either for the rank
        raise HiExpError(
            "on a CPU vLLM cannot take over adapters beside weights that it has packed; set actor_rollout_ref.model.lora.merge=true"
        )
    check_divisible(config.data.train_batch_size * rollout.n, rollout, "rollout.log_prob_micro_batch_size_per_gpu", "data.train_batch_size")
    if actor.use_kl_loss:
        ref = config.actor_rollout_ref.ref
        check_divisible(config.data.train_batch_size * rollout.n, ref, "ref.log_prob_micro_batch_size_per_gpu", "data.train_batch_size")


def check_divisible(episodes: int, block: DictConfig, setting: str, batch: str) -> None:
    """Check that a step's episodes come out even in micro-batches; verl finds out when all of them are played.

    Raises:
        HiExpError: they do not.
    """
    size = block.log_prob_micro_batch_size_per_gpu
    if size and not block.log_prob_use_dynamic_bsz and episodes % size:
        raise HiExpError(
            f"{batch} x actor_rollout_ref.rollout.n = {episodes} episodes are no multiple of actor_rollout_ref.{setting}={size}; change one"
        )
