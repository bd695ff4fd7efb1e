"""Distillers: what turns diagnoses into E1, and clusters into E2 and E3."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from hiexp_verl.distil.diagnose import Diagnosis
from hiexp_verl.distil.draft import Draft
from hiexp_verl.distil.prompts import confirmation_prompt, examples, prompt_files, reflection_prompt, summary_prompt
from hiexp_verl.distil.replies import YES_OR_NO_SCHEMA, Answers, CachedAnswers, FileAnswers, ModelAnswers, Usage
from hiexp_verl.distil.rules import RulesDistiller
from hiexp_verl.distil.validate import admit, admit_summary, repeats, tells
from hiexp_verl.errors import HiExpError
from hiexp_verl.io.files import sha256_of
from hiexp_verl.models.chat import MAX_MODEL_LEN, open_model
from hiexp_verl.models.vllm_offline import offline_vllm
from hiexp_verl.models.vllm_process import is_cpu_build
from hiexp_verl.scoring import normalise
from hiexp_verl.types import MAX_DESCRIPTION_CHARS, Entry, Level, Message

KINDS = ("vllm", "vllm-local", "openai", "files")
_COPY = 0.8  # share of common words from which a description counts as copied from a worked example
_MOST_CHARS = 10_000  # of an answer; no draft needs a tenth of it, and cleaning takes time that grows with its square
_FENCE = re.compile(r"^```(?:json)?\s*|\s*```$")


class Distiller(Protocol):
    """Writes drafts; None stands for one that could not be written, which the build counts and leaves out."""

    @property
    def name(self) -> str: ...

    def prompts(self) -> dict[str, str]: ...

    def reflect(self, diagnoses: Sequence[Diagnosis]) -> list[Draft | None]: ...

    def summarise(self, groups: Sequence[Sequence[Entry]], level: Level) -> list[Draft | None]: ...

    def confirm(self, pairs: Sequence[tuple[Draft, Entry]]) -> list[bool]: ...


class PromptedDistiller:
    """A model writes the entries, from the prompts in hiexp_verl/prompts. What cannot be parsed is asked for once more.

    `dropped` counts what was left out after that, by level and reason (`counts.TEXTS`).
    """

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self.name = answers.name
        self.dropped: Counter[str] = Counter()

    @property
    def usage(self) -> Usage:
        """What the answers took so far."""
        return self._answers.usage

    def prompts(self) -> dict[str, str]:
        """Return the prompt files that were used, by name."""
        return prompt_files()

    def reflect(self, diagnoses: Sequence[Diagnosis]) -> list[Draft | None]:
        """Write E1, one for each diagnosis.

        Raises:
            HiExpError: the source of answers fails.
        """

        def accept(index: int, draft: Draft) -> Draft | str:
            diagnosis = diagnoses[index]
            if _is_copy(draft):
                return "copied_example"
            if len(draft.description) > MAX_DESCRIPTION_CHARS:
                return "too_long"
            # Redacted, it would read "search for the regime's the answer": the model can write another one.
            if tells(draft.description, diagnosis.question, diagnosis.answers):
                return "tells_answer"
            return admit(draft, diagnosis)

        return self._write(len(diagnoses), lambda i, attempt: reflection_prompt(diagnoses[i], attempt), accept, "e1")

    def summarise(self, groups: Sequence[Sequence[Entry]], level: Level) -> list[Draft | None]:
        """Write one entry of the level for each group of entries of the level below.

        Raises:
            HiExpError: the source of answers fails.
        """

        def accept(index: int, draft: Draft) -> Draft | str:
            return "copied_example" if _is_copy(draft) else admit_summary(draft, groups[index], level)

        return self._write(len(groups), lambda i, attempt: summary_prompt(groups[i], level, attempt), accept, level)

    def confirm(self, pairs: Sequence[tuple[Draft, Entry]]) -> list[bool]:
        """Return for each summary and member whether the one holds for the other; what cannot be parsed is a yes, and counted.

        Raises:
            HiExpError: the source of answers fails.
        """
        conversations: list[list[Message]] = [[{"role": "user", "content": confirmation_prompt(*pair)}] for pair in pairs]
        texts = self._answers.answer(conversations, 0, "confirm", None, YES_OR_NO_SCHEMA) if pairs else []
        holds = [_yes_or_no(text) for text in texts]
        self.dropped["unclear_confirmation"] += holds.count(None)
        return [each is not False for each in holds]

    def _write(
        self, count: int, prompt: Callable[[int, int], str], accept: Callable[[int, Draft], Draft | str], level: Level
    ) -> list[Draft | None]:
        drafts: list[Draft | None] = [None] * count
        open_ones = list(range(count))
        reasons: dict[int, str] = {}
        for attempt in range(2 if self._answers.can_retry else 1):
            conversations: list[list[Message]] = [[{"role": "user", "content": prompt(i, attempt)}] for i in open_ones]
            texts = self._answers.answer(conversations, attempt, level.upper() + " again" * attempt) if conversations else []
            for i, text in zip(open_ones, texts, strict=True):
                parsed = parse_draft(text)
                if isinstance(parsed, Draft) and normalise(parsed.description) in normalise(parsed.title):
                    parsed = "repeats_title"
                result = accept(i, parsed) if isinstance(parsed, Draft) else parsed
                if isinstance(result, Draft):
                    drafts[i] = result
                else:
                    reasons[i] = result
            open_ones = [i for i in open_ones if drafts[i] is None]
        self.dropped.update(f"{level}.{reasons[i]}" for i in open_ones)
        return drafts


@contextmanager
def open_distiller(
    spec: str, cache: Path | None = None, resume: bool = False, max_model_len: int = MAX_MODEL_LEN, concurrency: int | None = None
) -> Iterator[Distiller]:
    """Open a distiller: `rules`, or one of `KINDS` with its place; answers of models are kept in `cache`.

    Raises:
        HiExpError: the specification is unknown, the model does not start or answer, the directory is missing.
    """
    kind, place = split_spec(spec)
    if kind == "rules":
        yield RulesDistiller()
    elif kind == "files":
        yield PromptedDistiller(FileAnswers(Path(place)))
    else:
        with _open_answers(kind, place, max_model_len, concurrency) as answers:
            if cache is not None:
                answers = CachedAnswers(answers, cache, _identity(answers.name, place), resume)
            yield PromptedDistiller(answers)


def split_spec(spec: str) -> tuple[str, str]:
    """Return the kind of a distiller and its place, which is empty for `rules` alone.

    Raises:
        HiExpError: there is no such kind, or the place is missing.
    """
    kind, _, place = spec.partition(":")
    if spec != "rules" and (kind not in KINDS or not place):
        raise HiExpError(f"unknown distiller {spec!r}; use rules, vllm:DIR, vllm-local:DIR, openai:URL#MODEL or files:DIR")
    return kind, place


@contextmanager
def _open_answers(kind: str, place: str, max_model_len: int, concurrency: int | None) -> Iterator[Answers]:
    if kind == "vllm-local":
        with offline_vllm(Path(place), max_model_len) as model:
            yield ModelAnswers(model, f"{kind}:{model.model}")
        return
    with open_model(place, concurrency=concurrency or concurrency_for(kind), max_model_len=max_model_len) as client:
        yield ModelAnswers(client, f"{kind}:{client.model}")


def concurrency_for(kind: str) -> int:
    """Return how many requests to keep in flight: what fills the batch of our own server, and what another one bears."""
    if kind == "openai":
        return 16
    return 32 if is_cpu_build() else 256


def _identity(name: str, place: str) -> str:
    """Tell models of the same name apart by their weights: every checkpoint of a run may lie in a `huggingface`."""
    weights = sorted(Path(place).glob("*.safetensors")) if Path(place).is_dir() else []
    return f"{name} {sha256_of(*weights)[:16]}" if weights else name


def parse_draft(text: str) -> Draft | str:
    """Parse a model's answer strictly; return the draft, or the reason why there is none."""
    if len(text) > _MOST_CHARS:
        return "too_long"
    try:
        row = json.loads(_FENCE.sub("", text.strip()))
    except (ValueError, RecursionError):
        return "not_json"
    if not isinstance(row, dict) or set(row) != {"title", "description", "kind"}:
        return "wrong_keys"
    if not all(isinstance(value, str) and value.strip() for value in row.values()):
        return "no_text"
    if row["kind"] not in ("guide", "pitfall"):
        return "unknown_kind"
    return Draft(row["title"], row["description"], row["kind"])


def _yes_or_no(text: str) -> bool | None:
    try:
        row = json.loads(_FENCE.sub("", text.strip()))
    except (ValueError, RecursionError):
        return None
    return {"yes": True, "no": False}.get(str(row.get("holds"))) if isinstance(row, dict) else None


def _is_copy(draft: Draft) -> bool:
    return any(repeats(draft.description, example["description"], _COPY) for example in examples())
