"""verl's dumps (`trainer.rollout_data_dir`, `trainer.validation_data_dir`): decoded text, split into messages.

Rows of our reward hold the trajectory itself. In others the chat template is ChatML (Qwen, SmolLM), with its special tokens
or, as verl writes them, without: then only the role is left, on its own line.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hiexp_verl.importers.openai import scored
from hiexp_verl.io.datasets import question_in, trajectory_of
from hiexp_verl.io.rows import BadRow, required, text_field
from hiexp_verl.types import TRAJECTORY_KEY, Message, Trajectory

_KNOWN = {"input", "output", "gts", "score"}
_CHATML = re.compile(r"<\|im_start\|>(\w+)\n(.*?)(?:<\|im_end\|>|(?=<\|im_start\|>)|\Z)", re.DOTALL)
_ROLE_LINE = re.compile(r"^(system|user|assistant|tool)\n", re.MULTILINE)
_PADDING = "<|endoftext|>"
# Tool text in a decoded response: from a role line (right after a call or right before a block) to the next role line of the
# assistant, or, without roles, a block. A block is tool text everywhere, as it is when answers are scored.
_TOOL_TEXT = re.compile(
    r"(?:(?:(?<=</search>)|(?<=</tool_call>))\n?(?:user|tool)\n|\b(?:user|tool)\n(?=<(?:information|tool_response)>))"
    r"(?P<turn>.*?)(?:\nassistant\n|\Z)"
    r"|(?P<block>(?:<experience>(?:(?!</experience>).)*</experience>\s*(?=<(?:information|tool_response)>))?"
    r"<(?P<tag>information|tool_response)>.*?(?:</(?P=tag)>|\Z)(?:\s*<experience>.*?(?:</experience>|\Z))?)",
    re.DOTALL,
)
_RESULT = re.compile(r"<tool_response>(.*?)(?:</tool_response>|\Z)", re.DOTALL)
_NEXT_RESULT = re.compile(r"\n(?:user|tool)\n")


def from_verl_dump(row: dict[str, Any]) -> Trajectory:
    """Return the trajectory of a row with `input`, `output`, `gts` and `score`; fields added by the reward go to `extra`.

    A trajectory written by our reward is exact; verl's step is added to its id, since a question is played at many steps. In
    other rows the question is the last user message and `correct` is scored.

    Raises:
        BadRow: a field, the question or the answer is missing, or a field has the wrong type.
    """
    if row.get(TRAJECTORY_KEY) is not None:
        return _exact(row)
    prompt = text_field(row, "input").replace(_PADDING, "").lstrip() + "\n"  # it ends in "assistant\n"
    has_tokens = prompt.startswith("<|im_start|>")  # at the start only: a document or question may contain one
    messages = _prompt(prompt, has_tokens)
    question = question_in(messages, {})
    if not question:
        raise BadRow("no question", "'input' has no user message")
    begun = messages.pop()["content"] if messages[-1]["role"] == "assistant" else ""
    messages += _response(begun + str(required(row, "output")).replace(_PADDING, ""), has_tokens)
    own = {"answers": row.get("gts"), "score": required(row, "score"), "model": "policy"}
    trajectory = scored(own, messages, question)
    # NaN and infinity: a metric that is undefined for this row.
    extra = {key: value for key, value in row.items() if key not in _KNOWN and not (isinstance(value, float) and not math.isfinite(value))}
    return replace(trajectory, extra=extra)


def _exact(row: dict[str, Any]) -> Trajectory:
    try:
        inner = json.loads(text_field(row, TRAJECTORY_KEY))
    except (ValueError, RecursionError) as error:
        raise BadRow(f"{TRAJECTORY_KEY!r} is not JSON", str(error)) from error
    if not isinstance(inner, dict):
        raise BadRow(f"{TRAJECTORY_KEY!r} is not a JSON object", f"found {type(inner).__name__}")
    trajectory = trajectory_of(inner)
    step = row.get("step")
    if step is None:
        return trajectory
    extra = {**trajectory.extra, "step": step}
    return replace(trajectory, id=f"{trajectory.id}@{step}" if trajectory.id else "", extra=extra)


def _prompt(text: str, has_tokens: bool) -> list[Message]:
    """Return the messages of a decoded prompt; the last one is the assistant's, with the start of the template's generation prompt."""
    if has_tokens:
        turns: list[tuple[str, str]] = _CHATML.findall(text)
    else:
        before, *parts = _ROLE_LINE.split(text)
        # No role at the start: the prompt of a base model, without a template.
        turns = [("user", text)] if before or not parts else list(zip(parts[::2], parts[1::2], strict=True))
    return [{"role": role, "content": content if role == "assistant" else content.strip()} for role, content in turns]


def _response(text: str, has_tokens: bool) -> list[Message]:
    """Return the messages of a decoded response, at least one."""
    turns: list[tuple[str, str]] = _CHATML.findall(f"<|im_start|>assistant\n{text}") if has_tokens else [("assistant", text)]
    messages = [m for role, content in turns for m in (_assistant_turns(content) if role == "assistant" else _results(content))]
    return messages or [{"role": "assistant", "content": ""}]


def _assistant_turns(text: str) -> Iterator[Message]:
    end = 0
    for match in _TOOL_TEXT.finditer(text):
        yield from _message("assistant", text[end : match.start()])
        yield from _results(match["turn"] if match["block"] is None else match["block"])
        end = match.end()
    yield from _message("assistant", text[end:])


def _results(text: str) -> Iterator[Message]:
    """Yield a message for each result; Qwen's template puts all results into one turn."""
    for result in _RESULT.findall(text) or _NEXT_RESULT.split(text):
        yield from _message("tool", result)


def _message(role: str, text: str) -> Iterator[Message]:
    if text.strip():
        yield {"role": role, "content": text.strip()}
