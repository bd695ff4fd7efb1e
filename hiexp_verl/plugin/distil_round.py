"""One round of self-distillation, over whatever runs verl's engine: `self_distil` in training, `distil_alone` without it.

| step | what |
| --- | --- |
| look | teacher: the student's tokens after a prompt with the privilege; its top-k log-probabilities, before an update |
| align | position i of the student's response is position i of the teacher's: the responses are the same tokens |
| learn | updates by the forward KL at the policy's own tokens (retrieved text out), a few mini-batches at a time |
| check | on students that are held out: the KL to the teacher, and the drift, the KL to the policy at the round's start |

With `stop_on_drop` a round ends where the KL of the held-out students rises or the drift exceeds its limit, and the weights of the
check before come back. What needs rollouts (exact match, answer rate, searches) is not checked inside a round: it would take as long
as a step. verl's next validation and the alarms of the next steps see it.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch

from hiexp_verl.config import SelfDistilConfig
from hiexp_verl.internalise.kinds import KINDS
from hiexp_verl.plugin.distil_loss import DRIFT, MODE, means_of

logger = logging.getLogger(__name__)

Fields = Mapping[str, torch.Tensor]  # what verl's engine reads of a row
Log = Callable[[int, dict[str, float]], None]
# verl's engine calls the loss with the logits where the first flag is set, whoever set it.
FLAGS = {"distillation_use_topk": True, "distillation_only": True, "calculate_entropy": False, "temperature": 1.0}

# Why a rollout that was chosen does not learn.
LEFT_OUT = {
    "prompts_unlike": "students whose text cannot be written as it was by the chat template",
    "no_privilege": "students whose teacher would read nothing more, since no entry was found",
    "too_long": "students whose teacher's prompt and response exceed data.max_prompt_length + data.max_response_length",
    "no_tokens": "students without a token to learn",
    "rest": "students that fill no mini-batch",
}


@dataclass(frozen=True)
class Student:
    """A rollout that learns, and the prompt under which it is looked at."""

    key: str  # unlike those of the others
    prompt: torch.Tensor  # (P,) token ids
    response: torch.Tensor  # (R,)
    mask: torch.Tensor  # (R,) 1 on the tokens that are learnt
    kinds: torch.Tensor  # (R,) a number of `internalise.kinds.KINDS`; what the policy did not write is 0
    teacher: torch.Tensor  # (T,) token ids of the prompt with the privilege

    def fields(self, prompt: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what verl's engine reads of the rollout after this prompt."""
        ids = torch.cat([prompt, self.response])
        both = {"response_mask": self.mask, "loss_mask": self.mask, "hiexp_kind": self.kinds}
        return {"prompts": prompt, "responses": self.response, "input_ids": ids, "position_ids": torch.arange(len(ids)), **both}

    def aligned(self, seen: "Seen", name: str = "hiexp_") -> dict[str, torch.Tensor]:
        """Return what was seen at the response at the places of the student's sequence: the logits before a token predict it."""
        length, first = len(self.prompt) + len(self.response), len(self.prompt) - 1
        log_p_S_K = torch.zeros(length, seen.log_p_R_K.shape[1])
        ids_S_K = torch.zeros(length, seen.ids_R_K.shape[1], dtype=torch.int64)
        log_p_S_K[first : first + len(seen.log_p_R_K)], ids_S_K[first : first + len(seen.ids_R_K)] = seen
        return {f"{name}p": log_p_S_K, f"{name}id": ids_S_K}


class Seen(NamedTuple):
    """The top k of a look at each token of a response."""

    log_p_R_K: torch.Tensor
    ids_R_K: torch.Tensor


class Check(NamedTuple):
    """What the held-out students show: nats a token."""

    kl: float  # to the teacher
    drift: float = 0.0  # from the policy at the round's start

    def is_worse(self, before: "Check", most: float) -> bool:
        """Return whether a round must not go on."""
        return self.kl > before.kl or self.drift > most


class Engine(Protocol):
    """verl's engine, wherever it runs. The number of rows of a call is a multiple of `multiple`."""

    multiple: int

    def forward(self, keys: Sequence[str], rows: Sequence[Fields], names: Sequence[str], **flags: Any) -> list[dict[str, torch.Tensor]]:
        """Return for each row the fields of these names, one value for each token of its sequence."""
        ...

    def update(self, keys: Sequence[str], rows: Sequence[Fields], **flags: Any) -> Mapping[str, Any]:
        """Update the weights; return the metrics of verl, lists over micro-batches and ranks."""
        ...

    def keep(self) -> None:
        """Keep the weights as they are."""
        ...

    def restore(self) -> None:
        """Bring back the weights that were kept last."""
        ...


class Round:
    """A round with these settings."""

    def __init__(self, distil: SelfDistilConfig, engine: Engine) -> None:
        self._distil, self._engine = distil, engine
        self._tokens = 0  # of all sequences of a round that went through the engine: what it costs

    def run(self, students: Sequence[Student], log: Log | None = None) -> dict[str, float]:
        """Learn from the students; return `hiexp/distil/*`. `log` is given the figures after each check, with the updates so far."""
        self._tokens, multiple, distil = 0, self._engine.multiple, self._distil
        held, rest = self._held_out(students)
        size = min(max(distil.mini_batch, multiple), len(rest)) // multiple * multiple
        rest = rest[: len(rest) // size * size] if size else []
        counts = {"students": len(rest), "held_out": len(held), "rest": len(students) - len(held) - len(rest)}
        metrics = {f"hiexp/distil/{name}": float(count) for name, count in counts.items()}
        if not rest:
            return metrics
        seen = self.look([*held, *rest], [each.teacher for each in (*held, *rest)], **self._of_teacher())
        learning = [student.fields(student.prompt) | student.aligned(each) for student, each in zip(rest, seen[len(held) :], strict=True)]
        watched = self._watched(held, seen[: len(held)])
        last = first = self._check(held, watched)
        if log is not None:
            log(0, _figures(last))
        sums, norms, updates, stopped = dict[str, float](), list[float](), 0, False
        for keys, rows in self._stretches([each.key for each in rest], learning, size):
            if last is not None and distil.stop_on_drop:
                self._engine.keep()
            how = {"global_batch_size": size, "mini_batch_size": size, "epochs": 1, "seed": 0, "dataloader_kwargs": {"shuffle": False}}
            found = self._engine.update(keys, self._counted(rows), **FLAGS, **{MODE: "learn"}, **how)
            updates += len(rows) // size
            of_these = {name: _sum(value) for name, value in found.items() if name.startswith("hiexp/distil/")}
            sums = {name: sums.get(name, 0.0) + value for name, value in of_these.items()}
            norms += _flat(found["grad_norm"])
            now = self._check(held, watched)
            if log is not None:
                log(updates, means_of(of_these) | _figures(now))
            if now is not None and last is not None and distil.stop_on_drop and now.is_worse(last, distil.max_drift):
                logger.warning(
                    "a round of self-distillation stops after %d updates: %s, before %s; the weights before come back", updates, now, last
                )
                self._engine.restore()
                stopped = True
                break
            last = now
        metrics |= means_of(sums) | _figures(last) | {"hiexp/distil/grad_norm": sum(norms) / len(norms)}
        done = {"updates": updates, "stopped": stopped, "tokens": self._tokens}
        metrics |= {f"hiexp/distil/{name}": float(value) for name, value in done.items()}
        return metrics | ({"hiexp/distil/held_out_kl_before": first.kl} if first is not None else {})

    def look(self, students: Sequence[Student], prompts: Sequence[torch.Tensor], **flags: Any) -> list[Seen]:
        """Return the policy's top k at the response of each student, after another prompt."""
        top_k = range(self._distil.top_k)
        names = [f"hiexp_{what}{k}" for what in ("p", "i") for k in top_k]
        rows = [student.fields(prompt) for student, prompt in zip(students, prompts, strict=True)]
        how = {**FLAGS, MODE: "look", "compute_loss": True, **flags}
        found = self._engine.forward([each.key for each in students], self._counted(rows), names, **how)
        seen = []
        for fields, student, prompt in zip(found, students, prompts, strict=True):
            first, length = len(prompt) - 1, len(student.response)
            p, ids = (torch.stack([fields[f"hiexp_{what}{k}"][first : first + length] for k in top_k], -1) for what in ("p", "i"))
            seen.append(Seen(p.float(), ids.long()))
        return seen

    def _counted(self, rows: Sequence[Fields]) -> Sequence[Fields]:
        self._tokens += sum(len(row["input_ids"]) for row in rows)
        return rows

    def _of_teacher(self) -> dict[str, Any]:
        return {"no_lora_adapter": True} if self._distil.teacher == "base" else {}

    def _held_out(self, students: Sequence[Student]) -> tuple[Sequence[Student], Sequence[Student]]:
        """Return the students that are held out, a quarter at most, and the others."""
        multiple = self._engine.multiple
        count = min(self._distil.held_out, len(students) // 4) // multiple * multiple
        if self._distil.held_out and not count:
            logger.warning(
                "a round of self-distillation with %d students is not watched: it needs %d, 4 for each of %d rows of a micro-batch",
                len(students),
                4 * multiple,
                multiple,
            )
        return students[:count], students[count:]

    def _watched(self, held: Sequence[Student], seen: Sequence[Seen]) -> list[Fields]:
        """Return the rows of the held-out students, with the teacher's top k and the policy's own before the round."""
        if not held:
            return []
        start = self.look(held, [each.prompt for each in held])
        rows = zip(held, seen, start, strict=True)
        return [each.fields(each.prompt) | each.aligned(teacher) | each.aligned(own, "hiexp_start_") for each, teacher, own in rows]

    def _check(self, held: Sequence[Student], rows: Sequence[Fields]) -> Check | None:
        """Return what the held-out students show now; None where there are none."""
        if not held:
            return None
        names = ["hiexp_kl", DRIFT]
        how = {**FLAGS, MODE: "check", "compute_loss": True}
        found = self._engine.forward([each.key for each in held], self._counted(rows), names, **how)
        totals, tokens = dict.fromkeys(names, 0.0), 0
        for fields, student in zip(found, held, strict=True):
            own = student.mask.bool()
            first, tokens = len(student.prompt) - 1, tokens + int(own.sum())
            for name in names:
                totals[name] += float(fields[name][first : first + len(own)][own].sum())
        return Check(*(totals[name] / tokens for name in names))

    def _stretches(self, keys: Sequence[str], rows: Sequence[Fields], size: int) -> list[tuple[Sequence[str], Sequence[Fields]]]:
        """Return what is learnt between two checks, over all epochs."""
        step = size * self._distil.check_every
        return [(keys[i : i + step], rows[i : i + step]) for _ in range(self._distil.epochs) for i in range(0, len(rows), step)]


def usable(student: Student, only: str, most: int) -> Student | str:
    """Return the student with the tokens that are learnt, or which of `LEFT_OUT` it is.

    Args:
        only: hiexp.distil.tokens.
        most: tokens of prompt and response that the engine is set up for.
    """
    mask = student.mask * (student.kinds == KINDS.index("query")) if only == "query" else student.mask
    if student.prompt.tolist() == student.teacher.tolist():
        return "no_privilege"
    if len(student.teacher) + len(student.response) > most:
        return "too_long"
    return replace(student, mask=mask) if mask.any() else "no_tokens"


def _figures(check: Check | None) -> dict[str, float]:
    return {"hiexp/distil/held_out_kl": check.kl, "hiexp/distil/drift": check.drift} if check is not None else {}


def _flat(value: Any) -> list[float]:
    """Return the numbers of a metric over micro-batches and ranks."""
    return [number for each in value for number in _flat(each)] if isinstance(value, list | tuple) else [float(value)]


def _sum(value: Any) -> float:
    return sum(_flat(value))
