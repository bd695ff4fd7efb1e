"""verl's dumps (`trainer.rollout_data_dir`, `trainer.validation_data_dir`): decoded text, split into messages.

Rows of our reward hold the trajectory itself. In others the chat template is one of `_TEMPLATES`, with its special tokens or, as
verl writes them, without: then only the role is left, on its own line.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from hiexp_verl.domains.domain import Domain
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.importers.openai import scored
from hiexp_verl.io.datasets import trajectory_of
from hiexp_verl.io.questions import question_in
from hiexp_verl.io.rows import BadRow, parse_json, required, text_field
from hiexp_verl.types import TRAJECTORY_KEY, Message, Trajectory

_KNOWN = {"input", "output", "gts", "score"}


class Template(NamedTuple):
    """How a chat template writes a turn: what begins it, the pattern of (role, content), what begins one of the assistant."""

    begins: str
    turn: re.Pattern[str]
    assistant: str


def _template(begins: str, role: str, ends: str, assistant: str) -> Template:
    return Template(begins, re.compile(rf"{role}(.*?)(?:{ends}|(?={re.escape(begins)})|\Z)", re.DOTALL), assistant)


_TEMPLATES = {
    "ChatML": _template("<|im_start|>", r"<\|im_start\|>(\w+)\n", r"<\|im_end\|>", "<|im_start|>assistant\n"),
    "Llama 3": _template(
        "<|start_header_id|>",
        r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\n\n",
        r"<\|eo[tm]_id\|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "Gemma": _template("<start_of_turn>", r"<start_of_turn>(\w+)\n", r"<end_of_turn>", "<start_of_turn>model\n"),
}
_ROLES = {"model": "assistant", "ipython": "tool", "function": "tool", "observation": "tool"}
_BEGIN = re.compile(r"^(?:\s|<\|begin_of_text\|>|<bos>|<pad>|<s>|\[gMASK\]|<sop>)+")
_UNKNOWN = re.compile(r"<\|[^<>|\n]{1,40}\|>|<\uff5c[^<>\uff5c\n]{1,40}\uff5c>|\[/?INST\]")
_ROLE_LINE = re.compile(r"^(system|user|assistant|tool)\n", re.MULTILINE)
_ROLE_WORD = re.compile(r"(?:\A|(?<=[^\w\s])|(?<=\n))(system|user|assistant|ipython|tool)\n\n")  # Llama 3 without its tokens
_PADDING = "<|endoftext|>"
# Tool text in a decoded response: from a role line (right after a call or right before a block) to the next role line of the
# assistant, or, without roles, a block. A block is tool text everywhere, as it is when answers are scored.
_TOOL_TEXT = re.compile(
    r"(?:(?:(?<=</search>)|(?<=</tool_call>))\n?(?:user|tool|ipython)\n|\b(?:user|tool|ipython)\n+(?=<(?:information|tool_response)>))"
    r"(?P<turn>.*?)(?:\nassistant\n|(?<=>)assistant\n\n|\Z)"
    r"|(?P<block>(?:<experience>(?:(?!</experience>).)*</experience>\s*(?=<(?:information|tool_response)>))?"
    r"<(?P<tag>information|tool_response)>.*?(?:</(?P=tag)>|\Z)(?:\s*<experience>.*?(?:</experience>|\Z))?)",
    re.DOTALL,
)
_RESULT = re.compile(r"<tool_response>(.*?)(?:</tool_response>|\Z)", re.DOTALL)
_NEXT_RESULT = re.compile(r"\n(?:user|tool)\n")


def from_verl_dump(row: dict[str, Any], domain: Domain = SEARCH) -> Trajectory:
    """Return the trajectory of a row with `input`, `output`, `gts` and `score`; fields added by the reward go to `extra`.

    A trajectory written by our reward is exact; verl's step is added to its id, since a question is played at many steps. In
    other rows the question is the last user message and `correct` is scored.

    Raises:
        BadRow: a field, the question or the answer is missing, or a field has the wrong type.
    """
    if row.get(TRAJECTORY_KEY) is not None:
        return _exact(row)
    prompt = _BEGIN.sub("", text_field(row, "input").replace(_PADDING, "") + "\n")  # it ends in "assistant\n"
    # At the start only: a document or a question may contain one.
    template = next((each for each in _TEMPLATES.values() if prompt.startswith(each.begins)), None)
    if template is None and (unknown := _UNKNOWN.match(prompt)):
        raise BadRow(f"a chat template that is not read; {', '.join(_TEMPLATES)} are", f"'input' begins with {unknown[0]}")
    messages = _prompt(prompt, template)
    question = question_in(messages, {})
    if not question:
        raise BadRow("no question", "'input' has no user message")
    begun = messages.pop()["content"] if messages[-1]["role"] == "assistant" else ""
    messages += _response(begun + str(required(row, "output")).replace(_PADDING, ""), template)
    own = {"answers": row.get("gts"), "score": required(row, "score"), "model": "policy"}
    trajectory = scored(own, messages, question, domain)
    # NaN and infinity: a metric that is undefined for this row.
    extra = {key: value for key, value in row.items() if key not in _KNOWN and not (isinstance(value, float) and not math.isfinite(value))}
    return replace(trajectory, extra=extra | domain.mark)


def _exact(row: dict[str, Any]) -> Trajectory:
    try:
        inner = parse_json(text_field(row, TRAJECTORY_KEY))
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


def _prompt(text: str, template: Template | None) -> list[Message]:
    """Return the messages of a decoded prompt; the last one is the assistant's, with the start of the template's generation prompt."""
    if template is not None:
        turns: list[tuple[str, str]] = template.turn.findall(text)
    else:
        before, *parts = _ROLE_WORD.split(text + "\n") if _ROLE_WORD.match(text) else _ROLE_LINE.split(text)
        # No role at the start: the prompt of a base model, without a template.
        turns = [("user", text)] if before or not parts else list(zip(parts[::2], parts[1::2], strict=True))
    named = [(_ROLES.get(role, role), content) for role, content in turns]
    return [{"role": role, "content": content if role == "assistant" else content.strip()} for role, content in named]


def _response(text: str, template: Template | None) -> list[Message]:
    """Return the messages of a decoded response, at least one."""
    turns: list[tuple[str, str]] = template.turn.findall(f"{template.assistant}{text}") if template else [("assistant", text)]
    named = [(_ROLES.get(role, role), content) for role, content in turns]
    messages = [m for role, content in named for m in (_assistant_turns(content) if role == "assistant" else _results(content))]
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
