"""Rounds of self-distillation in training: the rollouts of a step, verl's workers, their queue of rows.

The round stands inside the step, before its checkpoint: a killed one is done again with its step.
"""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from math import lcm
from pathlib import Path
from typing import Any

import torch
import transfer_queue as tq
from omegaconf import DictConfig
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.tools.tool_registry import load_all_tools
from verl.utils.config import omega_conf_to_dataclass

from hiexp_verl.config import HiExpConfig
from hiexp_verl.io.datasets import trajectory_of
from hiexp_verl.plugin.distil_loss import loss
from hiexp_verl.plugin.distil_round import Fields, Round, Student, usable
from hiexp_verl.plugin.loop import Version
from hiexp_verl.plugin.metrics import EpisodeOutcome
from hiexp_verl.plugin.retrieval import Retrieval
from hiexp_verl.plugin.teacher import Chosen, Teacher
from hiexp_verl.types import TRAJECTORY_KEY

logger = logging.getLogger(__name__)

_ROUND = "hiexp_round"  # partition of the queue
KEPT = "hiexp_distil_kept"  # in trainer.default_local_dir, while a round is under way


class SelfDistil:
    """The rounds of one run."""

    def __init__(self, settings: HiExpConfig, config: DictConfig, tokenizer: Any, workers: Any, retrieval: Retrieval) -> None:
        self._settings, self._config = settings, config
        self._teacher = Teacher(settings, tokenizer, retrieval, config.data.get("apply_chat_template_kwargs") or {})
        # A prompt may have been written with the schemas of the configured tools, or with none.
        turns = config.actor_rollout_ref.rollout.multi_turn
        tools = load_all_tools(turns.tool_config_path, turns.get("function_tool_path"))
        self._tools = [[], [tool.tool_schema.model_dump(exclude_unset=True, exclude_none=True) for tool in tools]]
        actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
        workers.set_loss_fn(partial(loss, actor, settings.distil.top_k, settings.distil.clip))
        self._kept = Path(config.trainer.default_local_dir).expanduser().absolute() / KEPT
        self._round = Round(settings.distil, Workers(workers, rows_multiple(config, workers.world_size), self._kept))

    def is_due(self, step: int) -> bool:
        """Return whether a round follows this step."""
        return step % self._settings.distil.every == 0

    def round(self, batch: Any, episodes: Sequence[EpisodeOutcome], version: Version | None = None) -> dict[str, float]:
        """Do one round with the rollouts of a step; return `hiexp/distil/*`. `version`: of the HEK, that this step was played with."""
        rollouts = [(e, trajectory_of(json.loads(e.scores[TRAJECTORY_KEY]))) for e in episodes if TRAJECTORY_KEY in e.scores]
        keys = {id(t): e.key for e, t in rollouts}
        chosen, left_out = self._teacher.chosen([t for _, t in rollouts])
        students, more = self._students(batch, [(keys[id(each.student)], each) for each in chosen], version)
        try:
            metrics = self._round.run(students)
        finally:
            shutil.rmtree(self._kept, ignore_errors=True)
        counts = {"pairs": len(chosen), **left_out, **more}
        if not metrics["hiexp/distil/students"]:
            logger.warning("a round of self-distillation has nothing to learn from: %s", counts)
        return {f"hiexp/distil/{name}": float(count) for name, count in counts.items()} | metrics

    def _students(self, batch: Any, chosen: Sequence[tuple[str, Chosen]], version: Version | None) -> tuple[list[Student], Counter[str]]:
        """Return the students, and how often each of `LEFT_OUT` left one out."""
        left_out: Counter[str] = Counter(prompts_unlike=0)
        if not chosen:
            return [], left_out
        names = ["prompts", "responses", "response_mask"]
        data = tq.kv_batch_get(keys=[key for key, _ in chosen], partition_id=batch.partition_id, select_fields=names)
        rows = zip(chosen, *(data[name].unbind() for name in names), strict=True)
        prompted = self._teacher.messages([each for _, each in chosen], version)
        most = self._config.data.max_prompt_length + self._config.data.max_response_length
        found = []
        for ((key, each), prompt, response, mask), messages in zip(rows, prompted, strict=True):
            tools = next((tools for tools in self._tools if self._teacher.ids(each.opening, tools) == prompt.tolist()), None)
            if tools is None:
                left_out["prompts_unlike"] += 1
                continue
            kinds = torch.tensor(self._teacher.kinds(response.tolist(), mask.tolist()))
            student = Student(key, prompt, response, mask, kinds, torch.tensor(self._teacher.ids(messages, tools)))
            student = usable(student, self._settings.distil.tokens, most)
            if isinstance(student, Student):
                found.append(student)
            else:
                left_out[student] += 1
        return found, left_out


def rows_multiple(config: DictConfig, ranks: int) -> int:
    """Return the number of rows that ranks and micro-batches divide, of updates and of looks."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    micro = 1 if actor.use_dynamic_bsz else lcm(actor.ppo_micro_batch_size_per_gpu or 1, rollout.log_prob_micro_batch_size_per_gpu or 1)
    return ranks * micro


class Workers:
    """verl's workers, which read their rows from its queue; weights are kept in a folder, by verl's own checkpoints."""

    def __init__(self, workers: Any, multiple: int, folder: Path) -> None:
        self.multiple = multiple
        self._workers, self._folder = workers, folder

    def forward(self, keys: Sequence[str], rows: Sequence[Fields], names: Sequence[str], **flags: Any) -> list[dict[str, torch.Tensor]]:
        """See `distil_round.Engine`."""
        meta = _put(keys, rows, flags)
        self._workers.compute_log_prob(meta)
        data = tq.kv_batch_get(keys=meta.keys, partition_id=_ROUND, select_fields=list(names))
        columns = {name: data[name].unbind() for name in names}
        tq.kv_clear(keys=meta.keys, partition_id=_ROUND)
        return [{name: columns[name][row] for name in names} for row in range(len(keys))]

    def update(self, keys: Sequence[str], rows: Sequence[Fields], **flags: Any) -> Mapping[str, Any]:
        """See `distil_round.Engine`."""
        meta = _put(keys, rows, flags)
        metrics = self._workers.update_actor(meta)["metrics"]
        tq.kv_clear(keys=meta.keys, partition_id=_ROUND)
        return metrics

    def keep(self) -> None:
        """See `distil_round.Engine`."""
        self._workers.save_checkpoint(str(self._folder))

    def restore(self) -> None:
        """See `distil_round.Engine`."""
        self._workers.load_checkpoint(str(self._folder))


def _put(keys: Sequence[str], rows: Sequence[Fields], flags: Mapping[str, Any]) -> Any:
    """Lay rows into verl's queue, in a partition of their own; return what its workers are given."""
    fields = {name: torch.nested.as_nested_tensor([row[name] for row in rows], layout=torch.jagged) for name in rows[0]}
    lengths = [(len(row["input_ids"]), len(row["prompts"]), len(row["responses"])) for row in rows]
    tags = [{"seq_len": s, "prompt_len": p, "response_len": r, "status": "success"} for s, p, r in lengths]
    tq.kv_batch_put(keys=list(keys), partition_id=_ROUND, fields=TensorDict(fields, batch_size=[len(rows)]), tags=tags)
    return KVBatchMeta(keys=list(keys), tags=tags, partition_id=_ROUND, extra_info=dict(flags))
