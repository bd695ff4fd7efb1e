"""Where a prompted distiller's answers come from: a server, files written beforehand, and a cache in front of either."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from hiexp_verl.errors import HiExpError
from hiexp_verl.jsonl import read_jsonl, write_jsonl
from hiexp_verl.llm import ChatClient
from hiexp_verl.types import Message

Conversation = Sequence[Message]
Done = Callable[[int, str], None]

ENTRY_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "description": {"type": "string"},
        "kind": {"type": "string", "enum": ["guide", "pitfall"]},
    },
    "required": ["title", "description", "kind"],
    "additionalProperties": False,
}
_MAX_TOKENS = 220  # a title and a description of the sizes asked for take about 100


class Answers(Protocol):
    """Answers conversations; `attempt` counts from 0, and a repetition may be answered differently."""

    name: str
    can_retry: bool

    def answer(self, conversations: Sequence[Conversation], attempt: int, progress: str, done: Done | None = None) -> list[str]: ...


class ServerAnswers:
    """Asks a model, greedily at first, with some randomness in a repetition; JSON-constrained where the server can."""

    can_retry = True

    def __init__(self, client: ChatClient, name: str) -> None:
        self._client = client
        self.name = name

    def answer(self, conversations: Sequence[Conversation], attempt: int, progress: str, done: Done | None = None) -> list[str]:
        """Answer all; `done(index, text)` is called as each one arrives.

        Raises:
            HiExpError: the server cannot be reached or refuses.
        """
        return self._client.complete(
            conversations,
            max_tokens=_MAX_TOKENS,
            temperature=0.7 if attempt else 0.0,
            seed=attempt,
            schema=ENTRY_SCHEMA,
            progress=progress,
            on_reply=done,
        )


class FileAnswers:
    """Reads answers written beforehand: DIR/<sha256 of the prompt>.json. What is missing is listed in DIR/prompts.jsonl."""

    can_retry = False

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise HiExpError(f"{folder} is no directory; give the one with the answers (make an empty one to get the prompts)")
        self._folder = folder
        self.name = f"files:{folder.name}"

    def answer(self, conversations: Sequence[Conversation], attempt: int, progress: str, done: Done | None = None) -> list[str]:
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
        return [path.read_text(encoding="utf-8") for path in paths]


class CachedAnswers:
    """Keeps every answer of another source in a JSONL file as it arrives, so that an interrupted build goes on where it was."""

    def __init__(self, source: Answers, path: Path) -> None:
        self._source = source
        self._path = path
        self.name = source.name
        self.can_retry = source.can_retry
        self._known = _read_cache(path) if path.is_file() else {}

    def answer(self, conversations: Sequence[Conversation], attempt: int, progress: str, done: Done | None = None) -> list[str]:
        """Return stored answers, and ask the source for the others."""
        keys = [f"{self.name} {attempt} {prompt_key(conversation)}" for conversation in conversations]
        missing = [i for i, key in enumerate(dict.fromkeys(keys)) if key not in self._known]
        unique = list(dict(zip(keys, conversations, strict=True)).items())
        if missing:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:

                def keep(number: int, text: str) -> None:
                    key = unique[missing[number]][0]
                    self._known[key] = text
                    file.write(json.dumps({"key": key, "answer": text}, ensure_ascii=False) + "\n")
                    file.flush()

                texts = self._source.answer([unique[i][1] for i in missing], attempt, progress, keep)
                for number, text in enumerate(texts):
                    if unique[missing[number]][0] not in self._known:
                        keep(number, text)
        return [self._known[key] for key in keys]


def prompt_key(conversation: Conversation) -> str:
    """Return the sha256 of a prompt."""
    return hashlib.sha256(json.dumps(list(conversation), ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def _read_cache(path: Path) -> dict[str, str]:
    """Read the cache; a last line that was cut off by a crash is dropped from the file."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        path.write_bytes(whole)
    if not whole:
        return {}
    return {row["key"]: row["answer"] for _, row in read_jsonl(path, "cache of answers")}
