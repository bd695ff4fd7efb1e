"""A round of self-distillation alone: pairs of a file, verl's engine in this one process, no rollouts and no reward.

    hiexp train --distil pairs.jsonl [overrides]

The policy learns the students' tokens anew from their text, each message by itself as an agent loop writes them. Results lie in
trainer.default_local_dir: `actor/huggingface` (a LoRA run: shards in `actor`, which `--model` merges), metrics, run.json.
"""

import copy
import logging
import os
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from tensordict import TensorDict
from transformers import AutoTokenizer
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import TrainingWorkerConfig
from verl.workers.engine_workers import TrainingWorker

from hiexp_verl.config import HiExpConfig
from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.hek.opening import pinned
from hiexp_verl.internalise.pairs import REASONS, Pair, check_policy, read_pairs
from hiexp_verl.io.files import append_lines, only_one, writing
from hiexp_verl.io.manifest import MANIFEST, Manifest, read_manifest, timed
from hiexp_verl.plugin.agent_loop import settings_of
from hiexp_verl.plugin.distil_loss import loss
from hiexp_verl.plugin.distil_round import LEFT_OUT, Fields, Round, Student, usable
from hiexp_verl.plugin.preflight import check_model
from hiexp_verl.plugin.preflight_arms import check_adapter, check_round
from hiexp_verl.plugin.retrieval import LocalRetrieval
from hiexp_verl.plugin.self_distil import rows_multiple
from hiexp_verl.plugin.teacher import Chosen, Teacher
from hiexp_verl.rollout.policy import identify
from hiexp_verl.types import Message

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
_ONE_PROCESS = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "WG_BACKEND": "ray"}


def composed(overrides: Sequence[str]) -> DictConfig:
    """Return verl's configuration with the flag and these overrides.

    Raises:
        HiExpError: an override is none, or names an unknown setting.
    """
    flagged = overrides if any(each.startswith("+hiexp=") for each in overrides) else ["+hiexp=grpo", *overrides]
    if options := [each for each in overrides if each.startswith("-")]:
        raise HiExpError(f"{options[0]} is an option of hydra, which --distil does not take; give settings as KEY=VALUE")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module("verl.trainer.config", version_base=None):
            config = compose("ppo_trainer", overrides=list(flagged))
        prepare(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise HiExpError(f"the settings do not compose ({first_line(error)}); correct the overrides") from error
    return config


def run(path: Path, config: DictConfig, same_model: bool = False) -> dict[str, float]:
    """Do the round and write its results; return `hiexp/distil/*`.

    Raises:
        HiExpError: the pairs are of another model, nothing can be learnt, the folder holds a run, or a setting cannot work.
    """
    settings = settings_of(config)
    settings = pinned(settings) if settings.distil.privilege != "sibling" else settings
    model, out = str(config.actor_rollout_ref.model.path), Path(config.trainer.default_local_dir).expanduser()
    check_model(model)
    check_adapter(config)
    check_round(settings, config)
    pairs = list(read_pairs(path))
    if not same_model:
        check_policy(path, pairs, identify(str(Path(model).expanduser())))
    with only_one(out):
        if _holds_a_run(out):
            raise HiExpError(f"{out} holds a run; set trainer.default_local_dir to a folder of its own")
        (out / METRICS).unlink(missing_ok=True)  # of a round that failed or was killed
        spec = {"pairs": str(path), **{key: OmegaConf.to_container(config[key], resolve=True) for key in ("hiexp", "actor_rollout_ref")}}
        manifest = Manifest(kind="training", spec=spec, results={"metrics": [METRICS], "checkpoints": ["."]})
        with timed(out, manifest):
            metrics = _run(pairs[: settings.distil.pairs], settings, config, out)
        manifest.finish(out, **{name.rsplit("/", 1)[1]: round(value, 6) for name, value in metrics.items()})
    return metrics


def _holds_a_run(out: Path) -> bool:
    """Return whether a folder holds a run; a round that failed or was killed is none, and is done again."""
    if not (out / MANIFEST).exists():
        return (out / "actor").exists()
    found = read_manifest(out)
    return "pairs" not in found.spec or (found.finished is not None and not found.error)


def _run(pairs: Sequence[Pair], settings: HiExpConfig, config: DictConfig, out: Path) -> dict[str, float]:
    tokenizer = AutoTokenizer.from_pretrained(str(config.actor_rollout_ref.model.path))
    retrieval = LocalRetrieval(settings, searches=False) if settings.distil.privilege != "sibling" else None
    teacher = Teacher(settings, tokenizer, retrieval, config.data.get("apply_chat_template_kwargs") or {})
    students, left_out = students_of_pairs(pairs, teacher, settings, config.data.max_prompt_length + config.data.max_response_length)
    counts = {f"hiexp/distil/{name}": float(count) for name, count in {"pairs": len(pairs), **left_out}.items()}
    if len(students) < rows_multiple(config, ranks=1):
        reasons = "; ".join(f"{count} {LEFT_OUT[name]}" for name, count in left_out.items() if count)
        raise HiExpError(f"{len(students)} of {len(pairs)} pairs can be learnt, fewer than a micro-batch ({reasons}); give more pairs")
    engine = Direct(config, settings)

    def log(step: int, figures: dict[str, float]) -> None:
        with writing(out / METRICS), (out / METRICS).open("a", encoding="utf-8") as file:
            append_lines(file, {"step": step, "data": figures})
        shown = ", ".join(f"{name.removeprefix('hiexp/distil/')} {value:.5f}" for name, value in figures.items())
        logger.info("update %d: %s", step, shown)

    metrics = counts | Round(settings.distil, engine).run(students, log)
    engine.worker.save_checkpoint(str(out / "actor"))
    return metrics


def students_of_pairs(pairs: Sequence[Pair], teacher: Teacher, settings: HiExpConfig, most: int) -> tuple[list[Student], Counter[str]]:
    """Return the students, and how often each of `LEFT_OUT` left one out."""
    chosen = [Chosen(pair.student, pair.reference) for pair in pairs]
    found, left_out = [], Counter[str]()
    for number, (each, messages) in enumerate(zip(chosen, teacher.messages(chosen), strict=True)):
        if (written := written_of(each.student.messages, each.opening, teacher)) is None:
            left_out["prompts_unlike"] += 1
            continue
        prompt, response, mask = (torch.tensor(part, dtype=torch.int64) for part in written)
        kinds = torch.tensor(teacher.kinds(written[1], written[2]), dtype=torch.int64)
        student = Student(f"pair_{number}", prompt, response, mask, kinds, torch.tensor(teacher.ids(messages)))
        student = usable(student, settings.distil.tokens, most)
        if isinstance(student, Student):
            found.append(student)
        else:
            left_out[student] += 1
    return found, left_out


def written_of(messages: Sequence[Message], opening: Sequence[Message], teacher: Teacher) -> tuple[list[int], list[int], list[int]] | None:
    """Return token ids of the prompt, those of the response, and 1 at those that the policy wrote, the end of its turns included.

    None where the chat template rewrites earlier turns: what the policy wrote cannot be found in its text.
    """
    response, mask, written = list[int](), list[int](), len(teacher.text(opening, True))
    for number, message in enumerate(messages):
        if message.get("role") != "assistant":
            continue
        before, after = teacher.text(messages[:number], True), teacher.text(messages[: number + 1], False).rstrip("\n")
        if not after.startswith(before) or len(before) < written:
            return None
        for text, own in ((before[written:], 0), (after[len(before) :], 1)):
            ids = teacher.encode(text)
            response, mask, written = response + ids, mask + [own] * len(ids), written + len(text)
    return teacher.ids(opening), response, mask


def prepare(config: DictConfig) -> None:
    """Set what a round alone needs: its checkpoint is the model for others to load, and a micro-batch is a row where none is set."""
    block = config.actor_rollout_ref
    lora = block.model.lora_rank > 0 or block.model.lora.get("rank", 0) > 0 or bool(block.model.get("lora_adapter_path"))
    with open_dict(block):
        block.actor.checkpoint.save_contents = ["model"] if lora else ["hf_model"]
        block.actor.checkpoint.load_contents = block.actor.checkpoint.save_contents
        for part, name in ((block.actor, "ppo_micro_batch_size_per_gpu"), (block.rollout, "log_prob_micro_batch_size_per_gpu")):
            part[name] = part[name] or (None if block.actor.use_dynamic_bsz else 1)


class Direct:
    """verl's training worker in this process."""

    def __init__(self, config: DictConfig, settings: HiExpConfig) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        os.environ |= {**_ONE_PROCESS, "MASTER_PORT": port, "DIST_INIT_METHOD": f"tcp://127.0.0.1:{port}"}
        self.multiple = rows_multiple(config, ranks=1)
        self.worker = TrainingWorker(worker_config(config))
        self.worker.reset()
        actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
        self.worker.set_loss_fn(partial(loss, actor, settings.distil.top_k, settings.distil.clip))
        self._kept: Any = None

    def forward(self, keys: Sequence[str], rows: Sequence[Fields], names: Sequence[str], **flags: Any) -> list[dict[str, torch.Tensor]]:
        """See `distil_round.Engine`."""
        found = self.worker.infer_batch(_batch(rows, flags))
        columns = {name: found[name].unbind() for name in names}
        return [{name: columns[name][row] for name in names} for row in range(len(keys))]

    def update(self, keys: Sequence[str], rows: Sequence[Fields], **flags: Any) -> Mapping[str, Any]:
        """See `distil_round.Engine`."""
        return tu.get(self.worker.train_mini_batch(_batch(rows, flags)), "metrics")

    def keep(self) -> None:
        """See `distil_round.Engine`."""
        self._kept = copy.deepcopy((self.worker.engine.module.state_dict(), self.worker.engine.optimizer.state_dict()))

    def restore(self) -> None:
        """See `distil_round.Engine`."""
        weights, moments = self._kept
        self.worker.engine.module.load_state_dict(weights)
        self.worker.engine.optimizer.load_state_dict(moments)


def _batch(rows: Sequence[Fields], flags: Mapping[str, Any]) -> TensorDict:
    fields = {name: torch.nested.as_nested_tensor([row[name] for row in rows], layout=torch.jagged) for name in rows[0]}
    data = TensorDict(fields, batch_size=[len(rows)])
    tu.assign_non_tensor(data, **flags)
    return data


def worker_config(config: DictConfig) -> TrainingWorkerConfig:
    """Return the configuration of the worker, as verl makes it of the actor's."""
    block = config.actor_rollout_ref
    actor, model = omega_conf_to_dataclass(block.actor), omega_conf_to_dataclass(block.model)
    made = TrainingWorkerConfig(
        model_type="language_model",
        model_config=model,
        engine_config=actor.engine,
        optimizer_config=actor.optim,
        checkpoint_config=actor.checkpoint,
    )
    engine = made.engine_config
    engine.use_dynamic_bsz = block.actor.use_dynamic_bsz
    engine.max_token_len_per_gpu, engine.micro_batch_size_per_gpu = (
        block.actor.ppo_max_token_len_per_gpu,
        block.actor.ppo_micro_batch_size_per_gpu,
    )
    engine.infer_max_token_len_per_gpu = block.rollout.log_prob_max_token_len_per_gpu
    engine.infer_micro_batch_size_per_gpu = block.rollout.log_prob_micro_batch_size_per_gpu
    return made


def summary(metrics: Mapping[str, float], config: DictConfig) -> str:
    """Return what a person wants to know of the round."""
    figures = {name.removeprefix("hiexp/distil/"): value for name, value in metrics.items()}
    lines = [f"{figures['students']:.0f} students learnt in {figures.get('updates', 0):.0f} updates, {figures['held_out']:.0f} watched"]
    lines += [f"{figures[name]:6.0f} {why} left out" for name, why in {**REASONS, **LEFT_OUT}.items() if figures.get(name)]
    if "held_out_kl_before" in figures:
        lines.append(f"held-out KL to the teacher {figures['held_out_kl_before']:.5f} before, {figures['held_out_kl']:.5f} after")
    if figures.get("stopped"):
        lines.append("it stopped early: the weights before the drop are kept")
    return "\n".join([*lines, f"the policy: --model {config.trainer.default_local_dir}"])
