"""Messages of other programs as turns of ours: own words and calls of the assistant, then one `tool` message for each result.

Programs differ in who carries a result (tool, function, ipython, observation, user, the assistant's own text) and in how a call is
written. The words stay; only roles and the boundaries of messages change, and calls that are not ours are added as `tool_calls`.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hiexp_verl.protocol import makes_call
from hiexp_verl.text import load_json, text_of
from hiexp_verl.types import Message

_RESULT_ROLES = frozenset(
    ("tool", "function", "ipython", "observation", "environment", "env", "tool_response", "tool_result", "search", "retriever", "context")
)
_ROLES = {"human": "user", "model": "assistant", "gpt": "assistant", "bot": "assistant", "chatbot": "assistant", "ai": "assistant"}
_RESULT_TAGS = "information|tool_responses?|tool_results?|observation|results?|search_results?|documents|retrieved_documents|context"
_WRAPPERS = ("<information>", "<tool_response>", "<search_result>", "<search_results>")  # of a result in a user's turn
_RESULT = re.compile(rf"<({_RESULT_TAGS})>(.*?)(?:</\1>|\Z)", re.DOTALL)
# The tags of R1-Searcher and of Search-o1.
_QUERY = re.compile(r"<\|begin_(?:of|search)_query\|>((?:(?!<\|begin_).)*?)<\|end_(?:of|search)_query\|>", re.DOTALL)
_DOCUMENTS = re.compile(r"<\|begin_(?:of_documents|search_result)\|>(.*?)(?:<\|end_(?:of_documents|search_result)\|>|\Z)", re.DOTALL)
# A result inside the assistant's text: a tagged block, or a line "Observation:" up to the next step (ReAct).
_INLINE = re.compile(
    rf"<({_RESULT_TAGS})>.*?(?:</\1>|(?=<answer>)|\Z)|^Observation(?: \d+)?:.*?(?=^(?:Thought|Action|Final Answer|Answer)\b|<answer>|\Z)",
    re.DOTALL | re.MULTILINE,
)
_OBSERVATION = re.compile(r"\AObservation(?: \d+)?:")
# A name after a tag, then the arguments, as XML or JSON, up to a closing tag: Qwen, GLM, MiniMax, DeepSeek, Kimi, Mistral, gpt-oss.
_NAMED = re.compile(
    r"(?:<(?:function=|invoke name=|tool_call>)|<[|\uff5c]tool.call.begin[|\uff5c]>(?:function<[^<>]*>)?|\[TOOL_CALLS\]|commentary to=)"
    r"\s*\"?([^\W\d][\w.-]*)(.*?)(?:</(?:function|invoke|tool_call)>|<[|\uff5c](?:tool.call.end|call)[|\uff5c]>|(?=\[TOOL_CALLS\])|\Z)",
    re.DOTALL,
)
_ARGUMENT = re.compile(
    r"<(?:parameter(?:=| name=)|arg_key>)\s*\"?([\w.-]+)\"?\s*(?:</arg_key>\s*<arg_value)?[^<>]*>(.*?)</(?:parameter|arg_value)>", re.DOTALL
)
_JSON_CALL = re.compile(r"(?:<\|\w+\|>|\[TOOL_CALLS\]|<(?:function|tool)_call>|functools|```\w*|\A)\s*(?=[\[{])")
# search(query="..."), as Llama, Gemma and others write it.
_PYTHON = re.compile(
    r"(?:\A|<\|python_(?:tag|start)\|>|```(?:tool_code|python)\s|<tool_call>)\s*\[?(?:print\()?([A-Za-z_][\w.]*)\((\w+)\s*=\s*([\"'])(.{0,2000}?)\3"
)
_HOLDERS = ("function", "functionCall", "function_call")  # of a call
_NAMES = ("name", "tool_name")
_ARGUMENTS = ("arguments", "parameters", "input", "args")
_REACT = re.compile(r"^Action(?: \d+)?:\s*(?:(\w+)\[(.*)\]\s*$|(\w+)\s*\nAction Input(?: \d+)?:\s*(.*)$)", re.MULTILINE)


def as_turns(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the messages in the roles and the order of ours; those of our own episodes are unchanged."""
    messages = [in_our_words(message) for message in messages]
    first = next((index for index, message in enumerate(messages) if message["role"] == "assistant"), len(messages))
    apart = any(_carries_result(message, False) for message in messages[first:])
    by_role = any(message["role"] in _RESULT_ROLES for message in messages[first:])  # then a turn of another role is none
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


def in_our_words(message: Message) -> Message:
    """Return the message with our names for its role and for the tags of queries and documents."""
    role = message["role"].strip().lower().replace("-", "_")
    role = _ROLES.get(role, role)
    text = message.get("content")
    ours = _DOCUMENTS.sub(r"<information>\1</information>", _QUERY.sub(r"<search>\1</search>", text)) if isinstance(text, str) else text
    return message if (role, ours) == (message["role"], text) else {**message, "role": role, "content": ours}


def _carries_result(message: Message, searching: bool) -> bool:
    if message["role"] in _RESULT_ROLES:
        return True
    if message["role"] == "assistant":
        return False
    return searching or bool(_result_parts(message)) or text_of(message).lstrip().startswith(_WRAPPERS)


def _result_parts(message: Message) -> list[dict[str, Any]]:
    """Return the results among the parts of a message of Anthropic or Gemini."""
    content = message.get("content")
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    named = (part.get("functionResponse") or (part if part.get("type") == "tool_result" else None) for part in parts)
    return [part for part in named if isinstance(part, dict)]


def _results(message: Message) -> Iterator[Message]:
    """Yield one message for each result; Qwen's template and Anthropic's format put all of a turn into one message."""
    if parts := _result_parts(message):
        for part in parts:
            text = json.dumps(part["response"], ensure_ascii=False) if "response" in part else text_of(part)
            name = part.get("tool_use_id") or part.get("id")
            yield _tool(text) | ({"tool_call_id": name} if name else {})
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
    """Return the text in `{"result": text}`, as verl's search tool writes it, or under another name."""
    held = load_json(text) if text.lstrip().startswith("{") else None
    values = list(held.values()) if isinstance(held, dict) else []
    return values[0] if len(values) == 1 and isinstance(values[0], str) else text


def _assistant(message: Message) -> Message:
    """Return the message with every call that is not in our notation under `tool_calls`."""
    if makes_call(message):
        return message
    text = text_of(message) or str(message.get("reasoning_content") or "")  # a server took the text out of the content, too
    content = message.get("content")
    beside = [*(message.get("tool_calls") or ()), message.get("function_call"), *(content if isinstance(content, list) else ())]
    calls = list(_calls(beside)) or list(_calls(_written(text)))
    if not calls and text == content:
        return message
    turn: Message = {"role": "assistant", "content": text}
    return {**turn, "tool_calls": calls} if calls else turn


def _calls(values: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Yield the calls among values, as OpenAI writes them; others put the arguments elsewhere (Llama 3, Anthropic, Gemini)."""
    for value in values:
        call = next((value[key] for key in _HOLDERS if value.get(key)), value) if isinstance(value, dict) else None
        called = next((call[key] for key in _NAMES if isinstance(call.get(key), str)), "") if isinstance(call, dict) else ""
        if isinstance(call, dict) and called:
            arguments = next((call[key] for key in _ARGUMENTS if call.get(key) is not None), None)
            name = {"id": value["id"]} if value.get("id") else {}
            if arguments is not None:
                yield {**name, "type": "function", "function": {"name": called, "arguments": arguments}}


def _written(text: str) -> Iterator[Any]:
    """Yield what may be a call in a text: a name before its arguments, a JSON value, a step of ReAct."""
    for name, body in _NAMED.findall(text):
        pairs = {key: value.strip() for key, value in _ARGUMENT.findall(body)}
        arguments = {key: (load_json(value) if value.startswith("[") else None) or value for key, value in pairs.items()}
        yield {"name": name, "arguments": arguments or _json_at(body, body.find("{"))}
    for start in _JSON_CALL.finditer(text):
        value = _json_at(text, start.end())
        yield from value if isinstance(value, list) else [value]
    for name, key, _, query in _PYTHON.findall(text):
        yield {"name": name, "arguments": {key: query}}
    for name, query, other, written in _REACT.findall(text):
        if (name or other).lower() not in ("finish", "answer"):
            yield {"name": name or other, "arguments": load_json(written) if written.startswith("{") else {"query": query or written}}


def _json_at(text: str, start: int) -> Any:
    """Return the JSON value that begins there, None where it is broken."""
    try:
        return json.JSONDecoder().raw_decode(text, start)[0] if start >= 0 else None
    except (ValueError, RecursionError):
        return None


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
