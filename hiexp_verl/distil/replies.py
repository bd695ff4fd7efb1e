"""Where a prompted distiller's answers come from: a model, files, or stored answers of an interrupted build; and what they cost.

OUT/run.json keeps how many answers OUT/answers.jsonl held when the last build finished. Another number means that a build
was interrupted since, and its answers may have been paid for.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.datasets import read_jsonl
from hiexp_verl.io.files import write_jsonl, writing
from hiexp_verl.io.manifest import read_manifest
from hiexp_verl.models.chat import Reply
from hiexp_verl.types import Message

MILLION = 1_000_000


@dataclass(frozen=True)
class Price:
    """Cost of a million tokens, in whatever currency."""

    prompt: float
    completion: float

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the cost of so many tokens."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / MILLION


@dataclass
class Usage:
    """Counts of one build. Stored answers cost nothing, and are not among the calls."""

    calls: int = 0
    repeated: int = 0  # of the calls: asked again, since the first answer was no entry
    stored: int = 0  # answers that were there already
    uncounted: int = 0  # of the calls: the server gave no number of tokens
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def add(self, prompt_tokens: int, completion_tokens: int, repeated: bool) -> None:
        """Count one call."""
        self.calls += 1
        self.repeated += repeated
        self.uncounted += not completion_tokens
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

    def summary(self, price: Price | None = None) -> str:
        """Return the counts on one line."""
        rate = self.completion_tokens / self.seconds if self.seconds else 0.0
        parts = [
            f"{self.calls:,} calls",
            *([f"{self.repeated:,} of them repeated"] if self.repeated else []),
            *([f"{self.stored:,} stored answers"] if self.stored else []),
            f"{self.prompt_tokens:,} prompt + {self.completion_tokens:,} completion tokens",
            *([f"without {self.uncounted:,} calls whose tokens the server did not count"] if self.uncounted else []),
            f"{self.seconds:.0f} s",
            *([f"{rate:.0f} tokens/s"] if self.completion_tokens else []),
            *([f"cost {price.of(self.prompt_tokens, self.completion_tokens):.4f}"] if price else []),
        ]
        return ", ".join(parts)


Conversation = Sequence[Message]
Done = Callable[[int, str], None]
Schema = dict[str, Any]

ENTRY_SCHEMA: Schema = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "description": {"type": "string"},
        "kind": {"type": "string", "enum": ["guide", "pitfall"]},
    },
    "required": ["title", "description", "kind"],
    "additionalProperties": False,
}
YES_OR_NO_SCHEMA: Schema = {
    "type": "object",
    "properties": {"holds": {"type": "string", "enum": ["yes", "no"]}},
    "required": ["holds"],
    "additionalProperties": False,
}
MAX_TOKENS = 220  # a title and a description of the sizes asked for take about 100


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn: greedily at first, with some randomness in a repetition."""

    temperature: float
    seed: int
    max_tokens: int = MAX_TOKENS

    @classmethod
    def of(cls, attempt: int) -> "Sampling":
        """Return the sampling of an attempt, counted from 0."""
        return cls(temperature=0.7 if attempt else 0.0, seed=attempt)


class Answers(Protocol):
    """Answers conversations; `attempt` counts from 0, and a repetition may be answered differently."""

    name: str
    can_retry: bool
    usage: Usage

    def answer(
        self, conversations: Sequence[Conversation], attempt: int, progress: str, done: Done | None = None, schema: Schema = ENTRY_SCHEMA
    ) -> list[str]: ...


class Model(Protocol):
    """What generates: `chat.ChatClient` or `vllm_offline.OfflineModel`."""

    def complete(
        self,
        conversations: Sequence[Conversation],
        *,
        max_tokens: int,
        temperature: float,
        seed: int,
        schema: dict[str, Any],
        progress: str,
        on_reply: Callable[[int, Reply], None],
    ) -> list[str]: ...


class ModelAnswers:
    """Asks a model, JSON-constrained where it can be, and counts the tokens."""

    can_retry = True

    def __init__(self, model: Model, name: str) -> None:
        self._model = model
        self.name = name
        self.usage = Usage()

    def answer(
        self, conversations: Sequence[Conversation], attempt: int, progress: str, done: Done | None = None, schema: Schema = ENTRY_SCHEMA
    ) -> list[str]:
        """Answer all; `done(index, text)` is called as each one arrives.

        Raises:
            HiExpError: the model cannot be reached or refuses.
        """

        def count(index: int, reply: Reply) -> None:
            self.usage.add(reply.prompt_tokens, reply.completion_tokens, repeated=attempt > 0)
            if done is not None:
                done(index, reply.text)

        start = time.monotonic()
        sampling = asdict(Sampling.of(attempt))
        texts = self._model.complete(conversations, **sampling, schema=schema, progress=progress, on_reply=count)
        self.usage.seconds += time.monotonic() - start
        return texts


class FileAnswers:
    """Reads answers written beforehand: DIR/<sha256 of the prompt>.json. What is missing is listed in DIR/prompts.jsonl."""

    can_retry = False

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise HiExpError(f"{folder} is not a directory; give the one with the answers (or an empty one, to get the prompts)")
        self._folder = folder
        self.usage = Usage()
        self.name = f"files:{folder.name}"

    def answer(
        self, conversations: Sequence[Conversation], attempt: int, progress: str, done: Done | None = None, schema: Schema = ENTRY_SCHEMA
    ) -> list[str]:
        """Return the stored answers.

        Raises:
            HiExpError: some are missing; they are in DIR/prompts.jsonl then, one {"key", "messages"} a line.
        """
        keys = [prompt_key(conversation) for conversation in conversations]
        paths = [self._folder / f"{key}.json" for key in keys]
        missing = {key: c for key, c, path in zip(keys, conversations, paths, strict=True) if not path.is_file()}
        if missing:
            todo = self._folder / "prompts.jsonl"
            write_jsonl(todo, ({"key": key, "messages": list(c)} for key, c in missing.items()))
            raise HiExpError(f"{len(missing)} of {len(keys)} prompts have no answer; answer those in {todo} as KEY.json and run again")
        self.usage.stored += len(paths)
        return [path.read_text(encoding="utf-8", errors="replace") for path in paths]


class CachedAnswers:
    """Keeps every answer of a model in a JSONL file as it arrives, so that an interrupted build goes on where it was.

    An answer is found again by `model` (whatever tells models apart), the sampling and the prompt. Without `resume` the
    file of an earlier build is replaced, but not before the first answer is there: it may have been paid for.
    """

    def __init__(self, source: Answers, path: Path, model: str, resume: bool) -> None:
        self._source = source
        self._model = model
        self._path = path
        self._mode = "a" if resume else "w"
        self.name = source.name
        self.can_retry = source.can_retry
        self.usage = source.usage
        self._known = _read_cache(path) if resume and path.is_file() else {}

    def answer(
        self, conversations: Sequence[Conversation], attempt: int, progress: str, done: Done | None = None, schema: Schema = ENTRY_SCHEMA
    ) -> list[str]:
        """Return stored answers, and ask the source for the others.

        Raises:
            HiExpError: the source fails, or the file cannot be written; what it holds by then is kept.
        """
        keys = [self._key(conversation, attempt, schema) for conversation in conversations]
        missing = {key: c for key, c in zip(keys, conversations, strict=True) if key not in self._known}
        self.usage.stored += len(set(keys)) - len(missing)
        asked = list(missing)

        def keep(number: int, text: str) -> None:
            with writing(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open(self._mode, encoding="ascii") as file:
                    file.write(json.dumps({"key": asked[number], "answer": text}) + "\n")
            self._mode = "a"
            self._known[asked[number]] = text

        if missing:
            self._source.answer(list(missing.values()), attempt, progress, keep, schema)
        return [self._known[key] for key in keys]

    def _key(self, conversation: Conversation, attempt: int, schema: Schema) -> str:
        how = json.dumps([asdict(Sampling.of(attempt)), schema], sort_keys=True)
        return f"{self._model} {hashlib.sha256(how.encode()).hexdigest()[:8]} {prompt_key(conversation)}"


def prompt_key(conversation: Conversation) -> str:
    """Return the sha256 of a prompt."""
    text = json.dumps(list(conversation), ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _read_cache(path: Path) -> dict[str, str]:
    """Read the cache; a last line that was cut off by a crash is dropped from the file.

    Raises:
        HiExpError: another line is damaged.
    """
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)  # in place: a copy could itself be cut off
    if not whole:
        return {}
    try:
        return {row["key"]: row["answer"] for _, row in read_jsonl(path, "cache of answers", surrogates=True)}
    except KeyError as error:
        raise HiExpError(f"{path}: a line has no {error}; leave --resume out to ask for the answers again") from error


def check_stored_answers(out: Path, cache: Path) -> None:
    """Check that no interrupted build left answers.

    Raises:
        HiExpError: there are some.
    """
    left = count_answers(cache)
    if left and left != finished_answers(out):
        raise HiExpError(f"{cache} holds {left} answers of an interrupted build; continue with --resume, or delete that file to start over")


def count_answers(cache: Path) -> int:
    """Return the number of whole lines in the file of answers, 0 when there is none."""
    return cache.read_bytes().count(b"\n") if cache.is_file() else 0


def finished_answers(out: Path) -> int:
    """Return how many answers there were when the last build was finished, 0 when none was or its record is damaged."""
    try:
        stored = read_manifest(out).outcome.get("answers")
    except HiExpError:
        return 0
    return stored if isinstance(stored, int) else 0
