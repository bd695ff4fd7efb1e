"""Messages of other programs as turns of ours: own words and calls of the assistant, then one `tool` message for each result.

Programs differ in who carries a result (tool, function, ipython, observation, user, the assistant's own text) and in how a call is
written. The words stay; only roles and the boundaries of messages change, and calls that are not ours are added as `tool_calls`.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hiexp_verl.protocol import load_json, makes_call
from hiexp_verl.text import text_of
from hiexp_verl.types import Message

_RESULT_ROLES = frozenset(("tool", "function", "ipython", "observation", "environment", "tool_response"))
_RESULT_TAGS = "information|tool_response|observation|result|documents"
_WRAPPERS = ("<information>", "<tool_response>")  # of a result in a user's turn
_RESULT = re.compile(rf"<({_RESULT_TAGS})>(.*?)(?:</\1>|\Z)", re.DOTALL)
# A result inside the assistant's text: a tagged block, or a line "Observation:" up to the next step (ReAct).
_INLINE = re.compile(
    rf"<({_RESULT_TAGS})>.*?(?:</\1>|(?=<answer>)|\Z)|^Observation(?: \d+)?:.*?(?=^(?:Thought|Action|Final Answer|Answer)\b|<answer>|\Z)",
    re.DOTALL | re.MULTILINE,
)
_OBSERVATION = re.compile(r"\AObservation(?: \d+)?:")
_QWEN_XML = re.compile(r"<function=([\w.-]+)>(.*?)</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([\w.-]+)>(.*?)</parameter>", re.DOTALL)
_JSON_CALL = re.compile(r"(?:<\|python_tag\|>|\[TOOL_CALLS\]|<function_call>|\A)\s*(?=[\[{])")
_REACT = re.compile(r"^Action(?: \d+)?:\s*(?:(\w+)\[(.*)\]\s*$|(\w+)\s*\nAction Input(?: \d+)?:\s*(.*)$)", re.MULTILINE)


def as_turns(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the messages in the roles and the order of ours; those of our own episodes are unchanged."""
    first = next((index for index, message in enumerate(messages) if message["role"] == "assistant"), len(messages))
    apart = any(_carries_result(message, False) for message in messages[first:])
    by_role = any(message["role"] in _RESULT_ROLES for message in messages[first:])  # then a turn of the user is one
    turns = list(messages[:first])
    searching = False  # whether a result is due: the last turn of the assistant made a call
    for message in messages[first:]:
        if message["role"] == "assistant":
            for turn in [_assistant(message)] if apart else _split(_assistant(message)):
                searching = makes_call(turn) if turn["role"] == "assistant" else searching
                turns.append(turn)
        elif _carries_result(message, searching and not by_role):
            turns += _results(message)
        else:
            turns.append(message)
    return tuple(turns)


def _carries_result(message: Message, searching: bool) -> bool:
    if message["role"] in _RESULT_ROLES:
        return True
    if message["role"] != "user":
        return False
    return searching or bool(_parts(message, "tool_result")) or text_of(message).lstrip().startswith(_WRAPPERS)


def _parts(message: Message, kind: str) -> list[dict[str, Any]]:
    content = message.get("content")
    return [part for part in content if isinstance(part, dict) and part.get("type") == kind] if isinstance(content, list) else []


def _results(message: Message) -> Iterator[Message]:
    """Yield one message for each result; Qwen's template and Anthropic's format put all of a turn into one message."""
    if parts := _parts(message, "tool_result"):
        yield from (_tool(text_of(part)) for part in parts)
        return
    text = text_of(message)
    blocks = [block[0] for block in _RESULT.finditer(text) if block[1] == "tool_response"]
    if message["role"] == "tool" and not blocks:
        unwrapped = _unwrapped(text)
        yield message if unwrapped == text else {**message, "content": unwrapped}
        return
    yield from map(_tool, blocks or [text])


def _tool(text: str) -> Message:
    block = _RESULT.fullmatch(text.strip())
    return {"role": "tool", "content": _unwrapped(block[2].strip() if block else _OBSERVATION.sub("", text.strip()).strip())}


def _unwrapped(text: str) -> str:
    """Return the text in `{"result": text}`, as verl's search tool writes it."""
    held = load_json(text) if text.lstrip().startswith("{") else None
    return held["result"] if isinstance(held, dict) and len(held) == 1 and isinstance(held.get("result"), str) else text


def _assistant(message: Message) -> Message:
    """Return the message with every call that is not in our notation under `tool_calls`."""
    flat = [call for call in message.get("tool_calls") or () if isinstance(call, dict) and "function" not in call and call.get("name")]
    if flat:
        message = {**message, "tool_calls": [{"id": call.get("id"), "type": "function", "function": call} for call in flat]}
    if makes_call(message):
        return message
    text = text_of(message)
    if not text:  # a server took the text out of the content, too
        text = str(message.get("reasoning_content") or "")
    old = message.get("function_call")
    used = [{"name": part.get("name"), "arguments": part.get("input")} for part in _parts(message, "tool_use")]
    calls = [*([old] if isinstance(old, dict) else []), *used, *_calls_in(text)]
    if not calls and text == message.get("content"):
        return message
    turn: Message = {"role": "assistant", "content": text}
    return {**turn, "tool_calls": [{"type": "function", "function": call} for call in calls]} if calls else turn


def _calls_in(text: str) -> Iterator[dict[str, Any]]:
    """Yield the calls that a text writes in Qwen's XML, as JSON (Llama 3, Mistral) or as ReAct does."""
    for name, body in _QWEN_XML.findall(text):
        yield {"name": name, "arguments": {key: value.strip() for key, value in _PARAMETER.findall(body)}}
    if (start := _JSON_CALL.search(text)) is not None:
        yield from _json_calls(text[start.end() :])
    for name, query, other, written in _REACT.findall(text):
        if (name or other).lower() not in ("finish", "answer"):
            yield {"name": name or other, "arguments": load_json(written) if written.startswith("{") else {"query": query or written}}


def _json_calls(text: str) -> Iterator[dict[str, Any]]:
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return
    for call in value if isinstance(value, list) else [value]:
        if isinstance(call, dict) and isinstance(call.get("name"), str):
            yield {"name": call["name"], "arguments": call.get("arguments", call.get("parameters"))}


def _split(message: Message) -> Iterator[Message]:
    """Yield the turns of a whole episode that stands in one message of the assistant, results included."""
    text = message["content"] if isinstance(message.get("content"), str) else ""
    blocks = list(_INLINE.finditer(text))
    if not blocks:
        yield message
        return
    end = 0
    for block in blocks:
        yield from _own(text[end : block.start()])
        yield _tool(block[0].strip())
        end = block.end()
    yield from _own(text[end:])


def _own(text: str) -> Iterable[Message]:
    return [_assistant({"role": "assistant", "content": text.strip()})] if text.strip() else []
