"""What experience is shown, where, and within which budget. Text in, text out; retrieval happens elsewhere.

Prompt: E3, then E2, once, at the end of the system message. Tool: E1, before the documents of a search or after them (the
paper's place; a policy that was not trained on E1 takes it for its task).
No entry is shown twice in an episode: a second search that finds the same E1 gets the next best.
"""

import copy
import logging
import math
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from hiexp_verl.config import Place, PromptConfig, ToolConfig
from hiexp_verl.text import sanitise
from hiexp_verl.types import Hit, Level, Message

logger = logging.getLogger(__name__)

# The most general first: it frames what follows.
LEVELS_OF: dict[Place, tuple[Level, ...]] = {"prompt": ("e3", "e2"), "tool": ("e1",)}

EXPERIENCE_OPEN, EXPERIENCE_CLOSE = "<experience>", "</experience>"
_BETWEEN: dict[Place, str] = {"prompt": "\n\n", "tool": "\n"}  # what parts a block from the text that it is added to
PROMPT_INTRODUCTION = "Lessons from earlier questions:"


@dataclass(frozen=True)
class Shown:
    """What a place, or an episode so far, was shown."""

    # {"entry", "level", "score", "place", "tokens"} each, and "search" from the first on. The tokens of all are those that were
    # added: the first entry of a block has those of its tags and introduction, too.
    entries: tuple[dict[str, Any], ...] = ()
    dropped: int = 0  # entries that were found and that the budget had no room for
    repeats: int = 0  # E1 found again, and not shown again
    lookup_failures: int = 0

    @property
    def ids(self) -> set[str]:
        """The entries, by id."""
        return {row["entry"] for row in self.entries}

    def then(self, other: "Shown", search: int | None = None) -> "Shown":
        """Return both together; `search` is the number of the search, from 1, that the other was shown at."""
        marked = other.entries if search is None else tuple({**row, "search": search} for row in other.entries)
        failures = self.lookup_failures + other.lookup_failures
        return Shown(self.entries + marked, self.dropped + other.dropped, self.repeats + other.repeats, failures)

    def up_to(self, search: int) -> "Shown":
        """Return this without the entries of later searches."""
        return replace(self, entries=tuple(row for row in self.entries if row.get("search", 0) <= search))

    def to_json(self) -> dict[str, Any]:
        """Return what a trajectory keeps of it."""
        return {"shown": list(self.entries), "dropped": self.dropped, "e1_repeats": self.repeats}


class Guide:
    """Turns hits into the text that the policy reads. Stateless: one may serve any number of episodes.

    Of the hits of a place's levels, those below `min_score` and beyond `top_k` are left out. If the whole block is longer
    than `max_tokens`, whole entries are dropped until it fits: the lowest score first; of equal scores the more specific
    level first, then the higher id.
    """

    def __init__(self, prompt: PromptConfig, tool: ToolConfig, count_tokens: Callable[[str], int]) -> None:
        self._limits: dict[Place, PromptConfig | ToolConfig] = {"prompt": prompt, "tool": tool}
        self._after_documents = tool.position == "after"
        self._count_tokens = count_tokens

    def at_prompt(self, messages: Sequence[Message], hits: Sequence[Hit], max_tokens: int | None = None) -> tuple[list[Message], Shown]:
        """Return a deep copy of the messages with E3 and E2 in the system message (made if there is none), and what was shown.

        `max_tokens` lowers the budget of the place, for a prompt that has less room.
        """
        guided = copy.deepcopy(list(messages))
        block, shown = self._block("prompt", hits, max_tokens)
        if block:
            if not guided or guided[0].get("role") != "system":
                guided.insert(0, {"role": "system", "content": ""})
            guided[0]["content"] = _append(guided[0].get("content") or "", block)
        return guided, shown

    def at_tool(self, hits: Sequence[Hit], seen: Collection[str] = (), max_tokens: int | None = None) -> tuple[str, Shown]:
        """Return the text that `beside` adds to the documents ("" when nothing fits), and what was shown.

        `max_tokens` lowers the budget of the place, for a response that has less room.
        `seen` are the ids of entries that the episode has been shown: they are left out, and so is what says the same. Repeats
        are those of them that would have been shown again; the hits have to reach that far beyond the top k for others to
        take their place.
        """
        repeats = sum(hit.entry.id in seen for hit in _ranked("tool", hits, self._limits["tool"]))
        told = {_line(hit) for hit in hits if hit.entry.id in seen}
        block, shown = self._block("tool", [hit for hit in hits if _line(hit) not in told], max_tokens)
        if block:
            block = _BETWEEN["tool"] + block if self._after_documents else block + _BETWEEN["tool"]
        return block, replace(shown, repeats=repeats)

    def beside(self, documents: str, text: str) -> str:
        """Return the documents of a search with what `at_tool` returned."""
        return documents + text if self._after_documents else text + documents

    def _block(self, place: Place, hits: Sequence[Hit], max_tokens: int | None = None) -> tuple[str, Shown]:
        limits = self._limits[place]
        budget, tokens = limits.max_tokens if max_tokens is None else min(limits.max_tokens, max_tokens), 0
        ranked = _ranked(place, hits, limits)
        kept = list(ranked)
        while kept and (tokens := self._count_tokens(_BETWEEN[place] + _render(place, kept))) > budget:
            kept.pop()
        if len(kept) < len(ranked):
            logger.info("%d of %d entries do not fit the %s budget of %d tokens", len(ranked) - len(kept), len(ranked), place, budget)
        entries = [self._record(place, hit) for hit in _displayed(place, kept)]
        if entries:
            entries[0]["tokens"] += tokens - sum(entry["tokens"] for entry in entries)
        return (_render(place, kept) if kept else ""), Shown(tuple(entries), dropped=len(ranked) - len(kept))

    def _record(self, place: Place, hit: Hit) -> dict[str, Any]:
        tokens = self._count_tokens(_line(hit) + "\n")
        return {"entry": hit.entry.id, "level": hit.entry.level, "score": round(hit.score, 4), "place": place, "tokens": tokens}


def rough_tokens(text: str) -> int:
    """Estimate tokens where no tokenizer is at hand; on the high side for English (about 4 characters a token)."""
    return math.ceil(len(text) / 3.5)


def _ranked(place: Place, hits: Sequence[Hit], limits: PromptConfig | ToolConfig) -> list[Hit]:
    """Return what may be shown, best first; an entry without text or with the text of a better one is left out."""
    levels = LEVELS_OF[place]
    allowed = [hit for hit in hits if hit.entry.level in levels and (limits.min_score is None or hit.score >= limits.min_score)]
    allowed.sort(key=lambda hit: (-hit.score, levels.index(hit.entry.level), hit.entry.id))
    by_text: dict[str, Hit] = {}
    for hit in allowed:
        by_text.setdefault(_line(hit), hit)
    by_text.pop("- ", None)
    return list(by_text.values())[: max(limits.top_k, 0)]


def _displayed(place: Place, hits: Sequence[Hit]) -> list[Hit]:
    return sorted(hits, key=lambda hit: LEVELS_OF[place].index(hit.entry.level))  # stable: by score within a level


def _render(place: Place, hits: Sequence[Hit]) -> str:
    introduction = [PROMPT_INTRODUCTION] if place == "prompt" else []
    return "\n".join([EXPERIENCE_OPEN, *introduction, *(_line(hit) for hit in _displayed(place, hits)), EXPERIENCE_CLOSE])


def _line(hit: Hit) -> str:
    return _line_of(hit.entry.description)


@lru_cache(maxsize=1 << 14)  # the same entries are shown again and again
def _line_of(description: str) -> str:
    # Entries were sanitised when they were written; a file can be edited by hand.
    return f"- {sanitise(description, sys.maxsize)}"  # what is longer than the budget is dropped whole, never cut


def _append(content: Any, block: str) -> Any:
    if isinstance(content, list):  # OpenAI style parts
        return [*content, {"type": "text", "text": block}]
    return f"{content}{_BETWEEN['prompt']}{block}" if content else block
