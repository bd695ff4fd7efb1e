"""A round of self-distillation in training: the policy with a privilege teaches the policy without one.

| step | what |
| --- | --- |
| pair | the rollouts of the step: a right one as reference and one without experience as student per question (`internalise.pairs`) |
| look | teacher: the student's tokens after a prompt with the privilege; its top-k log-probabilities, before an update |
| align | position i of the student's response is position i of the teacher's: the responses are the same tokens |
| learn | updates by the forward KL at the policy's own tokens (retrieved text out) |

Per token, with p the teacher's and q the student's probabilities of the teacher's top k, and of all others as one bucket:

    KL = sum_v min(p_v (log p_v - log q_v), clip)

It is a supervised loss: as an advantage a top-k KL has no expected gradient. The round stands inside the step, before its checkpoint:
a killed one is done again with its step. verl's own PPO loss stays what it is for every other batch.

Source: Search-E1 (arXiv:2605.22511). Its k, clip and learning rate are not known; ours are settings.
"""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import lcm
from typing import Any, NamedTuple

import numpy as np
import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.tools.tool_registry import load_all_tools
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import no_padding_2_padding

from hiexp_verl.config import Budgets, HiExpConfig
from hiexp_verl.guide.episode import Guidance, GuidedEpisode
from hiexp_verl.guide.lookup import ExperienceRequest
from hiexp_verl.internalise.pairs import pairs_of, students_of
from hiexp_verl.internalise.privilege import with_reference
from hiexp_verl.io.datasets import trajectory_of
from hiexp_verl.models.tokenizer import prompt_ids
from hiexp_verl.plugin.metrics import EpisodeOutcome
from hiexp_verl.types import TRAJECTORY_KEY, Hit, Message, Trajectory

logger = logging.getLogger(__name__)

MODE = "hiexp_round"  # of a batch: "look", "learn"; none: verl's own update
_LOOK, _LEARN = "hiexp_look", "hiexp_learn"  # partitions of the queue
_OF_TOKENS = ("hiexp_kl", "hiexp_p_mass", "hiexp_q_mass", "hiexp_cut")
_TINY = 1e-8


def loss(
    actor: Any,
    top_k: int,
    clip: float,
    model_output: dict[str, Any] | None = None,
    data: Any = None,
    dp_group: Any = None,
    student_logits: torch.Tensor | None = None,
    data_format: str = "thd",
) -> Any:
    """Return what verl's engine asks of a loss: fields of each token where it is given logits, else the loss and its metrics."""
    mode = tu.get_non_tensor_data(data, MODE, "")
    if not mode:
        return ppo_loss(actor, model_output, data, dp_group)
    if student_logits is not None:
        log_q_1_N_V = torch.log_softmax(student_logits.float(), dim=-1)
        if mode == "look":
            values, ids = log_q_1_N_V.topk(top_k, dim=-1)
            return {f"hiexp_p{k}": values[..., k] for k in range(top_k)} | {f"hiexp_i{k}": ids[..., k].double() for k in range(top_k)}
        return token_kl(log_q_1_N_V, data["hiexp_p"].values()[None], data["hiexp_id"].values()[None], clip)
    if mode == "look":
        return torch.zeros(()), {}
    assert model_output is not None
    mask_B_R = data["response_mask"].to_padded_tensor(False).bool()
    found = {name: no_padding_2_padding(model_output[name], data)[mask_B_R] for name in _OF_TOKENS}
    total = found["hiexp_kl"].sum() / data["batch_num_tokens"] * data["dp_size"]
    metrics = {f"hiexp/distil/{name.removeprefix('hiexp_')}": float(value.detach().mean()) for name, value in found.items() if len(value)}
    return total, metrics


def token_kl(log_q_1_N_V: torch.Tensor, log_p_1_N_K: torch.Tensor, ids_1_N_K: torch.Tensor, clip: float) -> dict[str, torch.Tensor]:
    """Return for each token the forward KL with a bucket for the rest, the mass in the top k of both, and the share that was clipped.

    Args:
        log_q_1_N_V: the student's log-probabilities.
        log_p_1_N_K: the teacher's at its top k, whose ids are `ids_1_N_K`.
        clip: most of one vocabulary entry: rare words of style would outweigh the others.
    """
    log_q_1_N_K = log_q_1_N_V.gather(-1, ids_1_N_K.long())
    p_1_N_K, q_mass = log_p_1_N_K.exp(), log_q_1_N_K.exp().sum(-1)
    p_mass = p_1_N_K.sum(-1)
    rest_p, rest_q = (1 - p_mass).clamp_min(_TINY), (1 - q_mass).clamp_min(_TINY)
    terms = torch.cat([p_1_N_K * (log_p_1_N_K - log_q_1_N_K), (rest_p * (rest_p.log() - rest_q.log()))[..., None]], dim=-1)
    cut = (terms > clip).float().mean(-1)
    return {"hiexp_kl": terms.clamp_max(clip).sum(-1), "hiexp_p_mass": p_mass, "hiexp_q_mass": q_mass.detach(), "hiexp_cut": cut}


class Chosen(NamedTuple):
    """A rollout that learns, and the right one that its teacher reads."""

    student: Trajectory
    reference: Trajectory | None = None

    @property
    def opening(self) -> list[Message]:
        """Return the messages before the student's first turn."""
        turns = self.student.messages
        return list(turns[: next((i for i, message in enumerate(turns) if message.get("role") == "assistant"), len(turns))])


@dataclass(frozen=True)
class Student:
    """A rollout that learns, and the prompt under which it is looked at."""

    key: str  # of verl
    prompt: torch.Tensor  # (P,) token ids
    response: torch.Tensor  # (R,)
    mask: torch.Tensor  # (R,) 1 on the policy's own tokens
    teacher: torch.Tensor  # (T,) token ids of the prompt with the privilege

    def fields(self, prompt: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what verl's engine reads of the rollout after this prompt."""
        ids = torch.cat([prompt, self.response])
        both = {"response_mask": self.mask, "loss_mask": self.mask}
        return {"prompts": prompt, "responses": self.response, "input_ids": ids, "position_ids": torch.arange(len(ids)), **both}


class SelfDistil:
    """The rounds of one run."""

    def __init__(self, settings: HiExpConfig, config: DictConfig, tokenizer: Any, workers: Any, retrieval: Any) -> None:
        self._settings, self._config, self._tokenizer = settings, config, tokenizer
        self._workers, self._retrieval = workers, retrieval
        # A prompt may have been written with the schemas of the configured tools, or with none.
        turns = config.actor_rollout_ref.rollout.multi_turn
        tools = load_all_tools(turns.tool_config_path, turns.get("function_tool_path"))
        self._tools = [[], [tool.tool_schema.model_dump(exclude_unset=True, exclude_none=True) for tool in tools]]
        actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
        workers.set_loss_fn(partial(loss, actor, settings.distil.top_k, settings.distil.clip))

    def is_due(self, step: int) -> bool:
        """Return whether a round follows this step."""
        return step % self._settings.distil.every == 0

    def round(self, batch: Any, episodes: Sequence[EpisodeOutcome]) -> dict[str, float]:
        """Do one round with the rollouts of a step; return `hiexp/distil/*`."""
        rollouts = [(e, trajectory_of(json.loads(e.scores[TRAJECTORY_KEY]))) for e in episodes if TRAJECTORY_KEY in e.scores]
        keys = {id(t): e.key for e, t in rollouts}
        chosen, left_out = self._chosen([t for _, t in rollouts])
        students, unlike = self._students(batch, [(keys[id(each.student)], each) for each in chosen])
        size = self._mini_batch(len(students))
        students = students[: len(students) // size * size] if size else []
        counts = {"pairs": len(chosen), "students": len(students), "prompts_unlike": unlike, **left_out}
        metrics = {f"hiexp/distil/{name}": float(count) for name, count in counts.items()}
        if not students:
            logger.warning("a round of self-distillation has nothing to learn from: %s", counts)
            return metrics
        return metrics | self._learn(students, self._look(students), size)

    def _chosen(self, rollouts: Sequence[Trajectory]) -> tuple[list["Chosen"], Counter[str]]:
        """Return which rollouts learn, and from which reference, where the privilege has one."""
        if self._settings.distil.privilege == "hek":
            students, left_out = students_of(rollouts, self._settings.distil.pairs)
            return [Chosen(student) for student in students], left_out
        pairs, left_out = pairs_of(rollouts, self._settings.distil.pairs)
        return [Chosen(pair.student, pair.reference) for pair in pairs], left_out

    def _mini_batch(self, students: int) -> int:
        """Return the rows of one update, which micro-batches and ranks divide; 0 where there are too few."""
        actor, rollout = self._config.actor_rollout_ref.actor, self._config.actor_rollout_ref.rollout
        ranks = self._workers.world_size
        micro = 1 if actor.use_dynamic_bsz else lcm(actor.ppo_micro_batch_size_per_gpu or 1, rollout.log_prob_micro_batch_size_per_gpu or 1)
        multiple = ranks * micro
        return min(max(self._settings.distil.mini_batch, multiple), students) // multiple * multiple

    def _students(self, batch: Any, chosen: Sequence[tuple[str, Chosen]]) -> tuple[list[Student], int]:
        """Return the students, and how many have a prompt that cannot be written again as it was."""
        if not chosen:
            return [], 0
        names = ["prompts", "responses", "response_mask"]
        data = tq.kv_batch_get(keys=[key for key, _ in chosen], partition_id=batch.partition_id, select_fields=names)
        rows = zip(chosen, *(data[name].unbind() for name in names), strict=True)
        found, unlike = [], 0
        prompted = self._with_privilege([each for _, each in chosen])
        for ((key, each), prompt, response, mask), messages in zip(rows, prompted, strict=True):
            tools = next((tools for tools in self._tools if self._ids(each.opening, tools) == prompt.tolist()), None)
            if tools is None:
                unlike += 1
            else:
                found.append(Student(key, prompt, response, mask, torch.tensor(self._ids(messages, tools))))
        return found, unlike

    def _with_privilege(self, chosen: Sequence[Chosen]) -> list[list[Message]]:
        """Return the first messages of each student with what the teacher may read."""
        messages = [each.opening for each in chosen]
        if self._settings.distil.privilege in ("hek", "both"):
            messages = self._with_experience(chosen, messages)
        references = [each.reference for each in chosen]
        return [with_reference(prompted, r) if r is not None else prompted for prompted, r in zip(messages, references, strict=True)]

    def _with_experience(self, chosen: Sequence[Chosen], messages: Sequence[Sequence[Message]]) -> list[list[Message]]:
        """Return the messages with E2 and E3 of the HEK, as a guided rollout of the question has them."""
        budgets = Budgets(self._settings.prompt, self._settings.tool)
        guidance = Guidance(budgets, "prompt", self._settings.leave_one_out, lambda text: len(self._tokenizer.encode(text)))
        asked: list[ExperienceRequest] = []

        def ask(request: ExperienceRequest) -> list[Hit]:
            asked.append(request)
            return []

        for each in chosen:
            GuidedEpisode(guidance, ask, each.student.question, each.student.question_id).system([])
        answers = iter(ray.get(self._retrieval.actor.experiences.remote(asked)))

        def answered(request: ExperienceRequest) -> list[Hit]:
            found = next(answers)
            if isinstance(found, BaseException):
                raise found
            return found

        asking = [GuidedEpisode(guidance, answered, each.student.question, each.student.question_id) for each in chosen]
        return [episode.system(list(prompted)) for episode, prompted in zip(asking, messages, strict=True)]

    def _ids(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> list[int]:
        kwargs = self._config.data.get("apply_chat_template_kwargs") or {}
        return prompt_ids(self._tokenizer, messages, tools, **{str(key): value for key, value in kwargs.items()})

    def _look(self, students: Sequence[Student]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return for each student the teacher's top-k log-probabilities and ids at its response, (R, K) each."""
        top_k = self._settings.distil.top_k
        meta = _put(_LOOK, students, [student.fields(student.teacher) for student in students], mode="look", compute_loss=True)
        self._workers.compute_log_prob(meta)
        names = [f"hiexp_{what}{k}" for what in ("p", "i") for k in range(top_k)]
        data = tq.kv_batch_get(keys=meta.keys, partition_id=_LOOK, select_fields=names)
        columns = {name: data[name].unbind() for name in names}
        tq.kv_clear(keys=meta.keys, partition_id=_LOOK)
        found = []
        for row, student in enumerate(students):
            # The logits before a token predict it: one position back.
            first, length = len(student.teacher) - 1, len(student.response)
            p, ids = (torch.stack([columns[f"hiexp_{what}{k}"][row] for k in range(top_k)], -1) for what in ("p", "i"))
            found.append((p[first : first + length].float(), ids[first : first + length].long()))
        return found

    def _learn(
        self, students: Sequence[Student], teacher: Sequence[tuple[torch.Tensor, torch.Tensor]], mini_batch: int
    ) -> dict[str, float]:
        """Update the policy by the KL to the teacher; return the means of its metrics."""
        rows = []
        for student, (log_p_R_K, ids_R_K) in zip(students, teacher, strict=True):
            fields = student.fields(student.prompt)
            length, first = len(fields["input_ids"]), len(student.prompt) - 1
            log_p_S_K = torch.zeros(length, log_p_R_K.shape[1])
            ids_S_K = torch.zeros(length, ids_R_K.shape[1], dtype=torch.int64)
            log_p_S_K[first : first + len(log_p_R_K)], ids_S_K[first : first + len(ids_R_K)] = log_p_R_K, ids_R_K
            rows.append(fields | {"hiexp_p": log_p_S_K, "hiexp_id": ids_S_K})
        size = {"global_batch_size": mini_batch, "mini_batch_size": mini_batch}
        how = {"epochs": self._settings.distil.epochs, "seed": 0, "dataloader_kwargs": {"shuffle": False}}
        meta = _put(_LEARN, students, rows, mode="learn", **size, **how)
        metrics = self._workers.update_actor(meta)["metrics"]
        tq.kv_clear(keys=meta.keys, partition_id=_LEARN)
        found = {name: _mean(value) for name, value in metrics.items() if name.startswith("hiexp/distil/")}
        return found | {"hiexp/distil/grad_norm": _mean(metrics["grad_norm"])}


def _put(partition: str, students: Sequence[Student], rows: Sequence[Mapping[str, torch.Tensor]], mode: str, **more: Any) -> Any:
    """Lay rows into verl's queue, in a partition of their own; return what its workers are given."""
    keys = [student.key for student in students]
    fields = {name: torch.nested.as_nested_tensor([row[name] for row in rows], layout=torch.jagged) for name in rows[0]}
    lengths = [(len(row["input_ids"]), len(row["prompts"]), len(row["responses"])) for row in rows]
    tags = [{"seq_len": s, "prompt_len": p, "response_len": r, "status": "success"} for s, p, r in lengths]
    tq.kv_batch_put(keys=keys, partition_id=partition, fields=TensorDict(fields, batch_size=[len(rows)]), tags=tags)
    # verl's engine calls the loss with the logits where this flag is set, whoever set it.
    flags = {"distillation_use_topk": True, "distillation_only": True, "calculate_entropy": False, "temperature": 1.0}
    return KVBatchMeta(keys=keys, tags=tags, partition_id=partition, extra_info={**flags, MODE: mode, **more})


def _mean(value: Any) -> float:
    """Return the mean of a metric over micro-batches and ranks."""
    values = [_mean(each) for each in value] if isinstance(value, list | tuple) else [float(value)]
    return float(np.mean(values)) if values else 0.0
