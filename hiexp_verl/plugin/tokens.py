"""Token edits of an episode: remove experience (`hiexp.group.strip`), and complete the end of an assistant's turn.

Experience is removed only where the rest is exactly what the tokenizer makes of the same text without it.
"""

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any


def kept_tokens(
    ids: Sequence[int], mask: Sequence[int], blocks: Sequence[str], tokenizer: Any
) -> tuple[list[int], list[int | None]] | None:
    """Return the response without the blocks, and the old position of each token left (None: tokenised anew).

    Only tool responses (mask 0) are edited. Returns None when a block is not found, or a tool response does not round-trip
    through the tokenizer, since the tokens of the block are then unknown.

    Args:
        ids: (response length,) token ids.
        mask: (response length,) 1 on tokens that the policy wrote.
        blocks: the texts to remove, each once, in order.
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
    """Return the forms in which a chat template may write a text: plain, or as JSON (Llama 3)."""
    return block, json.dumps(block, ensure_ascii=False)[1:-1], json.dumps(block)[1:-1]


_WORD = "assistant-content"


def closing_ids(tokenizer: Any, **template_kwargs: Any) -> list[int]:
    """Return the turn terminator: the tokens between an assistant's text and the next message (ChatML: `<|im_end|>`, newline)."""
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _WORD}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, **template_kwargs)
    return list(tokenizer.encode(text.rpartition(_WORD)[2], add_special_tokens=False))


def missing_ids(ids: Sequence[int], closing: Sequence[int]) -> list[int]:
    """Return the part of the turn terminator that `ids` lacks."""
    written = max(n for n in range(min(len(ids), len(closing)) + 1) if list(ids[len(ids) - n :]) == list(closing[:n]))
    return list(closing[written:])
