"""Read an episode's messages: which searches were made, what came back, what was answered. Pure functions, never raise on odd text."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hiexp_verl.types import Message

# Bounded, non-nested bodies: an opening tag inside restarts the match, so looping text stays linear.
_CALL = re.compile(r"<search>(?P<query>[^<]{1,2000})</search>|<tool_call>(?P<json>[^<]{1,4000})</tool_call>")
_ANSWER = re.compile(r"<answer>([^<]{0,2000})</answer>")
_EXPERIENCE = re.compile(r"<experience>.*?(?:</experience>|\Z)", re.DOTALL)
_WRAPPER = re.compile(r"</?(?:information|tool_response)>")


@dataclass(frozen=True)
class Search:
    """One search call of the agent and what it got back."""

    query: str
    documents: str  # without tags and without experience shown beside it; "" when nothing came back
    message_index: int  # of the assistant message that made the call
    result_index: int | None = None  # of the tool message that answered it, as written; None when nothing came back


def searches(messages: Sequence[Message]) -> list[Search]:
    """Return the searches of an episode, in order; the k-th call of a message belongs to the k-th tool message after it."""
    found: list[Search] = []
    for index, message in enumerate(messages):
        if message.get("role") != "assistant":
            continue
        results = list(_results_after(messages, index))
        for number, query in enumerate(_queries(message)):
            result, documents = results[number] if number < len(results) else (None, "")
            found.append(Search(query, documents, index, result))
    return found


def answer_of(messages: Sequence[Message]) -> str:
    """Return the last complete answer that the agent gave, or an empty string."""
    answers = [match.strip() for message in messages if message.get("role") == "assistant" for match in _ANSWER.findall(text_of(message))]
    return answers[-1] if answers else ""


def text_of(message: Message) -> str:
    """Return the text of a message, whether its content is a text or a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _queries(message: Message) -> Iterator[str]:
    for match in _CALL.finditer(text_of(message)):
        query = match["query"] if match["query"] is not None else _query_of(_loads(match["json"]))
        if query.strip():
            yield " ".join(query.split())
    # Servers that parse tool calls themselves put them beside the text.
    for call in message.get("tool_calls") or ():
        query = _query_of(call.get("function")) if isinstance(call, dict) else ""
        if query.strip():
            yield " ".join(query.split())


def _query_of(call: Any) -> str:
    if not isinstance(call, dict):
        return ""
    arguments = call.get("arguments")
    if isinstance(arguments, str):
        arguments = _loads(arguments)
    query = arguments.get("query") if isinstance(arguments, dict) else None
    return query if isinstance(query, str) else ""


def _loads(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _results_after(messages: Sequence[Message], index: int) -> Iterator[tuple[int, str]]:
    for number, message in enumerate(messages[index + 1 :], start=index + 1):
        if message.get("role") == "assistant":
            return
        if message.get("role") == "tool":
            yield number, _WRAPPER.sub("", _EXPERIENCE.sub("", text_of(message))).strip()
