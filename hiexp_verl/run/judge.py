"""A model as the judge of answers: right or wrong, where words differ and the meaning may not."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from hiexp_verl.jsonl import append_line, drop_torn_line, read_jsonl
from hiexp_verl.llm import ChatClient, Reply
from hiexp_verl.text import sanitise
from hiexp_verl.types import Message, Trajectory

_PROMPT = """You check answers. The answer given is right if it says the same as one of the right answers, in whatever words.

Question: {question}
Right answers: {answers}
Answer given: {prediction}

Is the answer given right? Say yes or no, nothing else."""
_YES = re.compile(r"\W*yes\b", re.IGNORECASE)
_NO = re.compile(r"\W*no\b", re.IGNORECASE)
_MAX_CHARS = 300  # of a prediction


def judge(episodes: Iterable[Trajectory], client: ChatClient, path: Path) -> dict[str, bool]:
    """Return whether each answer is right, by `judge_key`; verdicts that are in the file already are not asked for again.

    An empty answer is wrong, and nobody is asked. A judge that says neither yes nor no has not called it right; its words
    are in the file, one JSON line a verdict, written as they arrive.

    Raises:
        HiExpError: the server fails for good.
    """
    if path.is_file():
        drop_torn_line(path)
    known = {row["key"]: bool(row["right"]) for _, row in read_jsonl(path, "verdicts")} if path.is_file() and path.stat().st_size else {}
    todo = {judge_key(t): t for t in episodes if t.prediction.strip() and judge_key(t) not in known}
    keys = list(todo)
    with path.open("a", encoding="utf-8") as file:

        def keep(index: int, reply: Reply) -> None:
            key = keys[index]
            known[key] = bool(_YES.match(reply.text))
            odd = {} if known[key] or _NO.match(reply.text) else {"neither": True}
            append_line(file, {"key": key, "right": known[key], "said": reply.text, **odd})

        if keys:
            client.complete([_messages(todo[key]) for key in keys], max_tokens=4, progress="judge", on_reply=keep)
    return known


def judge_key(t: Trajectory) -> str:
    """Return all that a verdict depends on."""
    return json.dumps([t.question, list(t.answers), t.prediction], ensure_ascii=False)


def _messages(t: Trajectory) -> list[Message]:
    answers = "; ".join(t.answers)
    prompt = _PROMPT.format(question=t.question, answers=answers, prediction=sanitise(t.prediction, _MAX_CHARS))
    return [{"role": "user", "content": prompt}]
