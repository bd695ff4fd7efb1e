"""Take experience out of an episode's tokens, so that the policy is trained without what guided it.

What is left must be what the tokenizer makes of the same text without the experience, or nothing is taken out at all.

The end of an assistant's turn in a chat template, where the policy or verl leaves a part of it out."""

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any


def kept_tokens(
    ids: Sequence[int], mask: Sequence[int], blocks: Sequence[str], tokenizer: Any
) -> tuple[list[int], list[int | None]] | None:
    """Return the response without the blocks, and for each of its tokens where it stood before (None: tokenised anew).

    Only stretches of mask 0 (tool responses) are touched. None when such a stretch is not what the tokenizer makes of its own
    text, or when a block is not found: then it is unknown exactly which tokens are its.

    Args:
        ids: (response length,) token ids.
        mask: (response length,) 1 on tokens that the policy wrote.
        blocks: the texts to take out, each once, in order.
    """
    kept: list[int] = []
    origin: list[int | None] = []
    left = list(blocks)
    for written, stretch in groupby(range(len(ids)), key=lambda i: bool(mask[i])):
        positions = list(stretch)
        before = [ids[i] for i in positions]
        after = before
        if not written:
            text = whole = tokenizer.decode(before, skip_special_tokens=False)
            while left and (found := next((form for form in _forms(left[0]) if form in text), None)) is not None:
                text = text.replace(found, "", 1)
                left.pop(0)
            if text != whole:
                if tokenizer.encode(whole, add_special_tokens=False) != before:
                    return None
                after = tokenizer.encode(text, add_special_tokens=False)
        kept += after
        origin += positions if after is before else [None] * len(after)
    return None if left else (kept, origin)


def _forms(block: str) -> tuple[str, ...]:
    """Return how a chat template may write a text: as it is, or as JSON (Llama 3)."""
    return block, json.dumps(block, ensure_ascii=False)[1:-1], json.dumps(block)[1:-1]


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
