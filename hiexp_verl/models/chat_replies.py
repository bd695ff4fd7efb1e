"""What OpenAI-compatible servers answer, read without trust: the client library checks no types."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hiexp_verl.errors import HiExpError
from hiexp_verl.models.http import may_pass


@dataclass(frozen=True)
class Reply:
    """One answer of a model. `text` holds the stop string that ended it, where the server returns it."""

    text: str
    finish_reason: str  # "stop", "length" or another value of the server
    completion_tokens: int  # 0 if the server does not report it
    prompt_tokens: int = 0
    calls: str = ""  # the end of `text`: calls that the server took out of what the model wrote, in the notation of Qwen


# Words of errors that may pass, where a server sends no number.
_PASSING = (
    "rate_limit",
    "rate limit",
    "overloaded",
    "server_error",
    "unavailable",
    "timeout",
    "timed out",
    "is loading",
    "too many requests",
)


class PassingError(Exception):
    """An error that a server sends as an answer, and that may pass."""


def reply_of(response: object, stop: Sequence[str], base_url: str) -> Reply:
    """Return the answer in a response.

    Raises:
        PassingError: the response is an error of the moment.
        HiExpError: it is another error, or no answer.
    """
    from openai.types.chat import ChatCompletion

    choices: Any = getattr(response, "choices", None) if isinstance(response, ChatCompletion) else None
    choice: Any = choices[0] if isinstance(choices, list) and choices else None
    if error := getattr(response, "error", None) or getattr(choice, "error", None):  # with status 200, as some routers send it
        code, message = (error.get("code") or error.get("type"), error.get("message")) if isinstance(error, dict) else (None, error)
        message = " ".join(str(message or error).split())[:200]
        if (str(code).isdecimal() and may_pass(int(str(code)[:9]))) or any(word in f"{code} {message}".lower() for word in _PASSING):
            raise PassingError(f"error {code}: {message}" if code else message)
        raise HiExpError(f"the server {base_url} refuses the request ({message}); see the log of the server")
    if not hasattr(getattr(choice, "message", None), "content"):
        raise no_chat_server(base_url, f"got {_shown(response)!r}")
    calls = _calls_of(choice.message)
    text = _text_of(choice.message) + calls
    # vLLM names the string that stopped it; restore it when the server left it out.
    reason = getattr(choice, "stop_reason", None)
    if isinstance(reason, str) and reason in stop and not text.endswith(reason):
        text += reason
    usage = getattr(response, "usage", None)
    tokens = (getattr(usage, f"{kind}_tokens", 0) for kind in ("completion", "prompt"))
    written, read = (count if isinstance(count, int) else 0 for count in tokens)
    return Reply(_whole(text), str(choice.finish_reason or ""), written, read, _whole(calls))


def _whole(text: str) -> str:
    """Return the text with a mark for each half of a character, which JSON can escape and no file can hold."""
    return text.encode("utf-8", "replace").decode()


def _shown(response: Any) -> str:
    """Return the start of a response: what the server sent, without the fields that the client library adds."""
    sent = response.model_dump(exclude_none=True, warnings=False) if hasattr(response, "model_dump") else response
    return " ".join(str(sent).split())[:80]


_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "reasoning_details", "refusal")


def _text_of(message: Any) -> str:
    """Return what the model wrote, its thoughts where the server took all out of it."""
    written = (_joined(value) for value in (message.content, *(getattr(message, name, None) for name in _THOUGHTS)))
    return next((text for text in written if text.strip()), "")


def _joined(content: Any) -> str:
    """Return a text, or the texts of chunks, as Mistral sends them."""
    if isinstance(content, dict):
        return _joined(content.get("text"))
    if isinstance(content, list):
        return "".join(map(_joined, content))
    return content if isinstance(content, str) else ""


def _calls_of(message: Any) -> str:
    """Return the calls that the server took out of what the model wrote, in the notation of Qwen."""
    text, calls = "", getattr(message, "tool_calls", None)
    functions = [getattr(call, "function", None) for call in calls] if isinstance(calls, list) else []
    for function in functions or [getattr(message, "function_call", None)]:
        try:
            arguments = function.arguments  # type: ignore[union-attr]
            arguments = arguments if isinstance(arguments, dict) else json.loads(arguments)
        except (AttributeError, TypeError, ValueError):
            continue
        text += f"\n<tool_call>\n{json.dumps({'name': str(function.name), 'arguments': arguments}, ensure_ascii=False)}\n</tool_call>"  # type: ignore[union-attr]
    return text


def names_in(listed: object, base_url: str) -> list[str]:
    """Return the names in a list of models, as OpenAI or Ollama sends it, or a bare list."""
    rows: Any = listed
    if isinstance(listed, dict):
        rows = listed.get("data") if listed.get("data") is not None else listed.get("models")
    if not isinstance(rows, list):
        raise no_chat_server(base_url, f"its list of models is {' '.join(str(listed).split())[:80]!r}")
    named = [next((row[key] for key in ("id", "model", "name") if row.get(key)), None) if isinstance(row, dict) else row for row in rows]
    return [_whole(name) for name in named if isinstance(name, str)]


def no_chat_server(base_url: str, found: str) -> HiExpError:
    """Return the error for an address at which something else answers."""
    return HiExpError(f"{base_url} answers, but not as an OpenAI-compatible server ({found}); correct the address (it usually ends in /v1)")
