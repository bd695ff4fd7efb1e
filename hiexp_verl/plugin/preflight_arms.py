"""Checks of what rollouts of a group are compared for: arms, the loop, self-distillation."""

import logging
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from hiexp_verl.config import CreditConfig, HiExpConfig
from hiexp_verl.domains.domain import UNMARKED
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.arms import CREDITED, arm_of, arms_of
from hiexp_verl.text import load_json

logger = logging.getLogger(__name__)
OWN_ENGINES, OWN_MODES = ("vllm", "vllm_cpu"), ("hiexp_sync", "hiexp_colocate_async")


def check_group(settings: HiExpConfig, config: DictConfig) -> None:
    """Refuse arms that a group has no rollouts for, and settings of verl that baselines per arm or stripping do not work with."""
    group, n = settings.group, int(config.actor_rollout_ref.rollout.n)
    count = len(group.arms)
    if count and settings.arm != "full":
        raise HiExpError(f"hiexp.group.arms and hiexp.arm={settings.arm} both set the arm of a rollout; leave one of them out")
    if n < count:
        raise HiExpError(f"hiexp.group.arms has {count} arms, and actor_rollout_ref.rollout.n={n}; raise it to {count} or more")
    estimator = config.algorithm.adv_estimator
    if group.baseline == "within-arm" and estimator != "hiexp_grpo":
        raise HiExpError(f"hiexp.group.baseline=within-arm needs algorithm.adv_estimator=hiexp_grpo, found {estimator}; set it")
    if group.baseline == "within-arm" and n < 2 * count:
        logger.warning(
            f"hiexp.group.arms has {count} arms, and the baseline of an arm with one rollout is the group's mean; "
            f"for within-arm set actor_rollout_ref.rollout.n={2 * count} or more, found {n}"
        )
    if settings.credit != CreditConfig() and estimator != "hiexp_grpo":
        raise HiExpError(f"hiexp.credit is added by algorithm.adv_estimator=hiexp_grpo, found {estimator}; set it")
    if group.strip and not config.actor_rollout_ref.rollout.calculate_log_probs:
        raise HiExpError("hiexp.group.strip needs the rollout's probabilities; set actor_rollout_ref.rollout.calculate_log_probs=true")
    if group.strip and config.algorithm.rollout_correction.get("bypass_mode"):
        raise HiExpError("hiexp.group.strip needs probabilities without experience; set algorithm.rollout_correction.bypass_mode=false")


def check_loop(settings: HiExpConfig, config: DictConfig) -> None:
    """Refuse a loop that has nothing to learn from, nothing to compare, or a distiller that would need the memory of the policy."""
    loop, n = settings.loop, int(config.actor_rollout_ref.rollout.n)
    if (settings.ledger.enabled or loop.enabled) and not (settings.enabled and settings.hek):
        raise HiExpError("hiexp.ledger and hiexp.loop are of a HEK, and the run has none; set hiexp.hek")
    if not loop.enabled:
        return
    needed = {"hiexp.ledger.enabled=true": settings.ledger.enabled, "hiexp.dump_dir=DIR": settings.dump_dir}
    if missing := [name for name, value in needed.items() if not value]:
        raise HiExpError(f"hiexp.loop.enabled=true learns from the ledger and the dump; set {' and '.join(missing)}")
    if settings.other_domain:
        raise HiExpError("hiexp.loop.enabled=true adds to a HEK of its own domain; leave hiexp.other_domain out")
    if "constitution" in arms_of(settings):
        raise HiExpError("hiexp.loop.enabled=true makes versions that have no constitution; leave the arm constitution out")
    guided = sum(arm_of(session, settings) in CREDITED for session in range(n))
    if guided < 2:
        found = f"actor_rollout_ref.rollout.n={n} and hiexp.group.arms={list(settings.group.arms)}"
        raise HiExpError(f"hiexp.loop.enabled=true compares two versions in a group, and {found} give {guided} guided rollouts; raise n")
    if loop.distiller.partition(":")[0] in ("vllm", "vllm-local"):
        raise HiExpError(f"hiexp.loop.distiller={loop.distiller} would start a model beside the policy; serve it and give openai:URL#MODEL")
    if loop.distiller == "policy":
        _check_own_distiller(config)
    if loop.edits and loop.distiller == "rules":
        raise HiExpError("hiexp.loop.edits=true needs a model as hiexp.loop.distiller; rules add what is new")
    if loop.guards.validation is not None and not 0 < config.trainer.test_freq <= loop.guards.follow:
        found = f"trainer.test_freq={config.trainer.test_freq} and hiexp.loop.guards.follow={loop.guards.follow}"
        raise HiExpError(f"hiexp.loop.guards.validation needs a validation while a version is followed, found {found}; set test_freq below")
    if loop.lag >= loop.every:
        raise HiExpError(f"hiexp.loop.lag={loop.lag} must be less than hiexp.loop.every={loop.every}, the steps between two proposals")


def _check_own_distiller(config: DictConfig) -> None:
    """Refuse the policy's servers as a distiller where an answer in flight would end the run when they are put to sleep."""
    rollout, mode = config.actor_rollout_ref.rollout, config.trainer.v1.trainer_mode
    faults = {
        f"is of vLLM, and actor_rollout_ref.rollout.name is {rollout.name}": rollout.name not in OWN_ENGINES,
        f"needs actor_rollout_ref.rollout.data_parallel_size=1, found {rollout.data_parallel_size}": rollout.data_parallel_size != 1,
        f"is of hiexp_sync and hiexp_colocate_async, and trainer.v1.trainer_mode is {mode}": mode not in OWN_MODES,
    }
    _refuse({f"{fault}; serve a model and give openai:URL#MODEL": holds for fault, holds in faults.items()}, "hiexp.loop.distiller=policy")


def check_distil(settings: HiExpConfig, config: DictConfig) -> None:
    """Refuse rounds of self-distillation that have no students, no text, or no logits to learn from."""
    distil, actor = settings.distil, config.actor_rollout_ref.actor
    if not distil.every:
        return
    n, arms = int(config.actor_rollout_ref.rollout.n), list(settings.group.arms)
    unguided = [arm_of(session, settings) for session in range(n)].count("none") if settings.enabled else n
    students = (
        f"pairs rollouts without experience, and actor_rollout_ref.rollout.n={n} with hiexp.group.arms={arms} gives {unguided} a question"
    )
    most, contents = OmegaConf.select(config, "trainer.max_actor_ckpt_to_keep") or 1, ("save_contents", "load_contents")
    lacking = [f"{name}={list(held)}" for name, held in actor.checkpoint.items() if name in contents and "model" not in held]
    watched = distil.stop_on_drop and distil.held_out > 0
    kept = f"keeps weights by verl's checkpoints, and actor.checkpoint.{' and '.join(lacking)} has no model; add it, or set"
    faults = {
        "reads the rollouts of a step; set hiexp.dump_dir=DIR": not settings.dump_dir,
        f"compares searches, and hiexp.domain is {settings.domain}; it is for search": settings.domain != UNMARKED,
        f"{students}; have one at least (hiexp.group.arms=[none,full])": unguided < 1,
        f"with privilege={distil.privilege} pairs two rollouts of a question, and actor_rollout_ref.rollout.n={n}; raise it": (
            distil.privilege != "hek" and n < 2
        ),
        f"{kept} hiexp.distil.stop_on_drop=false": watched and bool(lacking),
        # verl counts them, and deletes as many of the run's own before their time.
        f"keeps weights as one of trainer.max_actor_ckpt_to_keep={most} checkpoints; set it to 1 or null, or "
        "hiexp.distil.stop_on_drop=false": watched and most > 1,
    }
    _refuse({**faults, **round_faults(settings, config)}, f"hiexp.distil.every={distil.every}")


def round_faults(settings: HiExpConfig, config: DictConfig) -> dict[str, bool]:
    """Return what a round of self-distillation cannot have, and whether the run has it; in training and alone."""
    distil, actor, model = settings.distil, config.actor_rollout_ref.actor, config.actor_rollout_ref.model
    optim, fsdp = actor.optim, actor.get("fsdp_config") or {}
    warms_up = max(optim.get("lr_warmup_steps") or 0, optim.get("lr_warmup_steps_ratio") or 0) > 0
    # The name that verl had before comes first.
    schedule = (optim.get("warmup_style") or optim.get("lr_scheduler_type", "constant")) != "constant" or warms_up
    lora = (model.get("lora_rank") or 0) > 0 or (model.get("lora") or {}).get("rank", 0) > 0 or bool(model.get("lora_adapter_path"))
    vocabulary = _vocabulary(str(model.get("path")))
    parallel = max(each.get("ulysses_sequence_parallel_size") or 1 for each in (actor, fsdp))
    return {
        f"with privilege={distil.privilege} needs a HEK; set hiexp.hek and hiexp.enabled=true, or privilege=sibling": (
            distil.privilege != "sibling" and not (settings.enabled and settings.hek)
        ),
        "needs the logits, which fused kernels never make; set actor_rollout_ref.model.use_fused_kernels=false": model.use_fused_kernels,
        "aligns tokens, which pad_to_length moves; set actor_rollout_ref.actor.fsdp_config.pad_to_length=false": (
            fsdp.get("pad_to_length", False)
        ),
        "runs without sequence parallelism; set ulysses_sequence_parallel_size=1 of actor and actor.fsdp_config": parallel > 1,
        f"runs on FSDP, and actor_rollout_ref.actor.strategy is {actor.strategy}": actor.strategy not in ("fsdp", "fsdp2"),
        "would move a learning rate that has a schedule; set actor.optim.lr_scheduler_type=constant, lr_warmup_steps=0 and "
        "lr_warmup_steps_ratio=0": schedule,
        "with teacher=base takes the adapter off, and there is none; set actor_rollout_ref.model.lora_rank, or teacher=policy": (
            distil.teacher == "base" and not lora
        ),
        f"with top_k={distil.top_k} exceeds the vocabulary of the model; set it to {vocabulary} at most": 0 < vocabulary < distil.top_k,
    }


def check_round(settings: HiExpConfig, config: DictConfig) -> None:
    """Refuse a round alone that cannot work."""
    _refuse(round_faults(settings, config), "a round of self-distillation")


def check_adapter(config: DictConfig) -> None:
    """Refuse an adapter to start from that is not there: verl would look for it minutes later."""
    place = config.actor_rollout_ref.model.get("lora_adapter_path")
    if place and "://" not in str(place) and not (Path(str(place)).expanduser() / "adapter_config.json").is_file():
        raise HiExpError(f"actor_rollout_ref.model.lora_adapter_path={place} has no adapter_config.json; give the folder of an adapter")


def _refuse(faults: Mapping[str, bool], what: str) -> None:
    for fault, holds in faults.items():
        if holds:
            raise HiExpError(f"{what} {fault}")


def _vocabulary(model: str) -> int:
    """Return the size of the vocabulary of a model directory; 0 where it is not known before the run."""
    path = Path(model).expanduser() / "config.json"
    if not path.is_file():
        return 0
    held = load_json(path.read_text(encoding="utf-8", errors="replace"))
    found = held.get("vocab_size") if isinstance(held, dict) else None
    return found if isinstance(found, int) else 0
