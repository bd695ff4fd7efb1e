"""The end of an assistant's turn in a chat template, where the policy or verl leaves a part of it out."""

from collections.abc import Sequence
from typing import Any

_WORD = "assistant-content"


def closing_ids(tokenizer: Any, **template_kwargs: Any) -> list[int]:
    """Return the tokens between an assistant's words and the next message: `<|im_end|>` and a newline in ChatML."""
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _WORD}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, **template_kwargs)
    return list(tokenizer.encode(text.rpartition(_WORD)[2], add_special_tokens=False))


def missing_ids(ids: Sequence[int], closing: Sequence[int]) -> list[int]:
    """Return what of the closing does not yet stand at the end of the ids."""
    written = max(n for n in range(min(len(ids), len(closing)) + 1) if list(ids[len(ids) - n :]) == list(closing[:n]))
    return list(closing[written:])
