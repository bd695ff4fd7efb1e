"""The text of experience: `<experience>` blocks within a token budget, in the system prompt or beside documents.

Prompt: E3, then E2, at the end of the system message. Tool: E1, before the documents of a search or after them.
"""

import copy
import logging
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from hiexp_verl.config import Place
from hiexp_verl.guide.record import Shown
from hiexp_verl.text import sanitise
from hiexp_verl.types import LEVELS, Hit, Level, Message

logger = logging.getLogger(__name__)

# The most general first: it frames what follows. Without a tool the prompt shows an E1, too (`arms.levels_at`).
LEVELS_OF: dict[Place, tuple[Level, ...]] = {"prompt": ("e3", "e2"), "tool": ("e1",)}

EXPERIENCE_OPEN, EXPERIENCE_CLOSE = "<experience>", "</experience>"
SEPARATORS: dict[Place, str] = {"prompt": "\n\n", "tool": "\n"}  # between a block and the text that it is added to
PROMPT_INTRODUCTION = "Lessons from earlier questions:"

CountTokens = Callable[[str], int]


@dataclass(frozen=True)
class Block:
    """A block of experience; empty where nothing is found or nothing fits."""

    text: str = ""
    # The first has the tokens of the tags and the introduction, too: all together are those that the block adds to the context.
    entries: tuple[Shown, ...] = ()
    dropped: int = 0  # entries that the budget has no room for


def fit_block(place: Place, hits: Sequence[Hit], max_tokens: int, count_tokens: CountTokens) -> Block:
    """Return the block of these entries within a budget.

    Whole entries are dropped until the block fits: the lowest score first; of equal scores the more specific level, then the
    higher id. An entry without text, or with the text of a better one, is left out.
    """
    ranked = distinct(hits)
    kept, tokens = list(ranked), 0
    while kept and (tokens := count_tokens(SEPARATORS[place] + _render(place, kept))) > max_tokens:
        kept.pop()
    dropped = len(ranked) - len(kept)
    if dropped:
        logger.info("%d of %d entries do not fit the %s budget of %d tokens", dropped, len(ranked), place, max_tokens)
    if not kept:
        return Block(dropped=dropped)
    entries: list[Shown] = []
    for hit in _displayed(kept):
        entry, score = hit.entry, round(hit.score, 4) + 0.0  # never -0.0, which batches of another size give
        own = count_tokens(line_of(hit) + "\n")
        entries.append(Shown(entry=entry.id, content=hit.content, level=entry.level, score=score, place=place, tokens=own))
        if hit.made_for:
            entries[-1]["made_for"] = hit.made_for
        if hit.value is not None:
            entries[-1]["p"] = round(hit.p, 4)
    entries[0]["tokens"] += tokens - sum(entry["tokens"] for entry in entries)
    return Block(_render(place, kept), tuple(entries), dropped)


def add_to_system(messages: Sequence[Message], block: Block) -> list[Message]:
    """Return a deep copy of the messages with the block in the system message, which is made if there is none."""
    guided = copy.deepcopy(list(messages))
    if block.text:
        if not guided or guided[0].get("role") != "system":
            guided.insert(0, {"role": "system", "content": ""})
        content = guided[0].get("content") or ""
        if isinstance(content, list):  # OpenAI style parts
            content.append({"type": "text", "text": block.text})
        else:
            guided[0]["content"] = f"{content}{SEPARATORS['prompt']}{block.text}" if content else block.text
    return guided


def beside_documents(block: Block, position: Literal["before", "after"]) -> tuple[str, str]:
    """Return the text before the documents of a search and the text after them; one of both is empty."""
    if not block.text:
        return "", ""
    separator = SEPARATORS["tool"]
    return ("", separator + block.text) if position == "after" else (block.text + separator, "")


def line_of(hit: Hit) -> str:
    """Return the line that shows an entry."""
    return _line_of(hit.entry.description)


def rough_tokens(text: str) -> int:
    """Estimate tokens where no tokenizer is at hand; on the high side for English (about 4 characters a token)."""
    return math.ceil(len(text) / 3.5)


def distinct(hits: Sequence[Hit]) -> list[Hit]:
    """Return the hits best first, each text once and none without text."""
    by_text: dict[str, Hit] = {}
    for hit in sorted(hits, key=lambda hit: (-hit.rank, -LEVELS.index(hit.entry.level), hit.entry.id)):
        by_text.setdefault(line_of(hit), hit)
    by_text.pop("- ", None)
    return list(by_text.values())


def _displayed(hits: Sequence[Hit]) -> list[Hit]:
    return sorted(hits, key=lambda hit: -LEVELS.index(hit.entry.level))  # stable: by score within a level


def _render(place: Place, hits: Sequence[Hit]) -> str:
    introduction = [PROMPT_INTRODUCTION] if place == "prompt" else []
    return "\n".join([EXPERIENCE_OPEN, *introduction, *(line_of(hit) for hit in _displayed(hits)), EXPERIENCE_CLOSE])


@lru_cache(maxsize=1 << 14)  # the same entries are shown again and again
def _line_of(description: str) -> str:
    # Entries were sanitised when they were written; a file can be edited by hand.
    return f"- {sanitise(description, sys.maxsize)}"  # what is longer than the budget is dropped whole, never cut
