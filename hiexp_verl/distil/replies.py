"""`Replies`: what a prompted distiller asks: a model, files, or what an interrupted build stored; and the cost of the model.

OUT/run.json keeps how many replies OUT/answers.jsonl held when the last build finished. Another number means that a build
was interrupted since, and its replies may have been paid for.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.datasets import read_jsonl
from hiexp_verl.io.files import drop_torn_line, make_folder, write_jsonl, writing
from hiexp_verl.io.manifest import read_manifest
from hiexp_verl.models.chat import ChatClient, Reply
from hiexp_verl.models.vllm_offline import OfflineModel
from hiexp_verl.types import KINDS, Message

Conversation = Sequence[Message]
Schema = dict[str, Any]
REPLIES = "answers.jsonl"  # in the folder of the HEK
ATTEMPTS = 2  # of a distiller at an entry
MAX_TOKENS = 220  # a title and a description of the sizes asked for take about 100


def schema_of(**properties: Any) -> Schema:
    """Return the schema of a JSON object with these properties and no others."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


ENTRY_SCHEMA = schema_of(title={"type": "string"}, description={"type": "string"}, kind={"type": "string", "enum": list(KINDS)})
YES_OR_NO_SCHEMA = schema_of(holds={"type": "string", "enum": ["yes", "no"]})


def sampling_of(attempt: int) -> dict[str, Any]:
    """Return how a reply is drawn: greedily at first, with some randomness in a repetition."""
    return {"temperature": 0.7 if attempt else 0.0, "seed": attempt, "max_tokens": MAX_TOKENS}


@dataclass(frozen=True)
class Price:
    """Cost of a million tokens, in whatever currency."""

    prompt: float
    completion: float

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the cost of so many tokens."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1_000_000


@dataclass
class Usage:
    """Counts of one build; replies that were stored before are not among the calls."""

    calls: int = 0
    repeated: int = 0  # of the calls: second attempts
    stored: int = 0
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


class Replies(Protocol):
    """The source of replies to conversations; `attempt` counts from 0, and a second attempt may get another reply."""

    name: str
    can_retry: bool
    usage: Usage

    def reply(self, conversations: Sequence[Conversation], attempt: int, progress: str, schema: Schema = ENTRY_SCHEMA) -> list[str]: ...


class StoredReplies:
    """The replies of a model, also in a JSONL file if there is one, so that an interrupted build continues.

    A reply is found by `model` (which identifies the weights), sampling, schema and prompt. Without `resume` the first new
    reply replaces the file of an earlier build; until then it stays, since it may have been paid for.

    Raises:
        HiExpError: a line of the file is damaged.
    """

    def __init__(self, path: Path | None = None, model: str = "", resume: bool = False) -> None:
        self._path = path
        self._model = model
        self._mode = "a" if resume else "w"
        self.by_key = _read_replies(path) if path is not None and resume and path.is_file() else {}

    def key(self, conversation: Conversation, attempt: int, schema: Schema) -> str:
        """Return the key of a reply."""
        how = json.dumps([sampling_of(attempt), schema], sort_keys=True)
        return f"{self._model} {hashlib.sha256(how.encode()).hexdigest()[:8]} {prompt_key(conversation)}"

    def add(self, key: str, reply: str) -> None:
        """Keep a reply.

        Raises:
            HiExpError: the file cannot be written.
        """
        if self._path is not None:
            make_folder(self._path.parent)
            with writing(self._path), self._path.open(self._mode, encoding="ascii") as file:
                file.write(json.dumps({"key": key, "answer": reply}) + "\n")
        self._mode = "a"
        self.by_key[key] = reply


class ModelReplies:
    """Asks a model for what is not stored, JSON-constrained where it can be, and counts the tokens."""

    can_retry = True

    def __init__(self, model: ChatClient | OfflineModel, name: str, stored: StoredReplies | None = None) -> None:
        self._model = model
        self._stored = stored or StoredReplies()
        self.name = name
        self.usage = Usage()

    def reply(self, conversations: Sequence[Conversation], attempt: int, progress: str, schema: Schema = ENTRY_SCHEMA) -> list[str]:
        """Return the replies; the same prompt is asked once.

        Raises:
            HiExpError: the model cannot be reached or refuses, or the file cannot be written; replies until then are kept.
        """
        keys = [self._stored.key(conversation, attempt, schema) for conversation in conversations]
        missing = {key: c for key, c in zip(keys, conversations, strict=True) if key not in self._stored.by_key}
        self.usage.stored += len(set(keys)) - len(missing)
        asked = list(missing)

        def keep(index: int, reply: Reply) -> None:
            self.usage.add(reply.prompt_tokens, reply.completion_tokens, repeated=attempt > 0)
            self._stored.add(asked[index], reply.text)

        if missing:
            start = time.monotonic()
            self._model.complete(list(missing.values()), **sampling_of(attempt), schema=schema, progress=progress, on_reply=keep)
            self.usage.seconds += time.monotonic() - start
        return [self._stored.by_key[key] for key in keys]


class OtherDraft:
    """Another draft of the same source: each of its attempts draws what no attempt of the other drafts draws."""

    def __init__(self, replies: Replies, draft: int) -> None:
        self._replies, self._draft = replies, draft
        self.name, self.can_retry, self.usage = replies.name, replies.can_retry, replies.usage

    def reply(self, conversations: Sequence[Conversation], attempt: int, progress: str, schema: Schema = ENTRY_SCHEMA) -> list[str]:
        """Return the replies; raises what the source raises."""
        return self._replies.reply(conversations, attempt + ATTEMPTS * self._draft, f"{progress}, draft {self._draft + 1}", schema)


class FileReplies:
    """Reads replies written beforehand: DIR/<sha256 of the prompt>.json. What is missing is listed in DIR/prompts.jsonl."""

    can_retry = False

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise HiExpError(f"{folder} is not a directory; give the one with the answers (or an empty one, to get the prompts)")
        self._folder = folder
        self.usage = Usage()
        self.name = f"files:{folder.name}"

    def reply(self, conversations: Sequence[Conversation], attempt: int, progress: str, schema: Schema = ENTRY_SCHEMA) -> list[str]:
        """Return the stored replies.

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


def prompt_key(conversation: Conversation) -> str:
    """Return the sha256 of a prompt."""
    text = json.dumps(list(conversation), ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _read_replies(path: Path) -> dict[str, str]:
    drop_torn_line(path)
    if not path.stat().st_size:
        return {}
    try:
        return {row["key"]: row["answer"] for _, row in read_jsonl(path, "cache of answers", surrogates=True)}
    except KeyError as error:
        raise HiExpError(f"{path}: a line has no {error}; leave --resume out to ask for the answers again") from error


def check_stored_replies(out: Path) -> None:
    """Check that no interrupted build left replies in the folder of a HEK.

    Raises:
        HiExpError: there are some.
    """
    count = count_replies(out)
    if count and count != finished_replies(out):
        cache = out / REPLIES
        raise HiExpError(
            f"{cache} holds {count} answers of an interrupted build; continue with --resume, or delete that file to start over"
        )


def count_replies(out: Path) -> int:
    """Return the number of whole lines in the file of replies, 0 without one."""
    path = out / REPLIES
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def finished_replies(out: Path) -> int:
    """Return the number of replies when the last build finished, 0 if none did or its record is damaged."""
    try:
        stored = read_manifest(out).outcome.get("answers")
    except HiExpError:
        return 0
    return stored if isinstance(stored, int) else 0
