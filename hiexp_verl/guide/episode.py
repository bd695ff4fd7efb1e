"""One guided episode: the experience shown, the queries, and the failures.

No entry is shown twice in an episode: a second search that finds the same E1 gets the next best. An episode whose look-up
fails goes on without experience and counts the failure.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from hiexp_verl.config import Arm, Budgets, Place, arm_named
from hiexp_verl.domains.domain import Domain
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.arms import levels_at
from hiexp_verl.guide.blocks import Block, CountTokens, add_to_system, beside_documents, distinct, fit_block, line_of, rough_tokens
from hiexp_verl.guide.following import followed
from hiexp_verl.guide.instantiate import made_for
from hiexp_verl.guide.lookup import ExperienceRequest, LookupFailed, text_at
from hiexp_verl.guide.mask import Mask
from hiexp_verl.guide.record import EpisodeRecord, Shown
from hiexp_verl.guide.steps import Stops, check_steps
from hiexp_verl.hek.preconditions import SearchState, hold
from hiexp_verl.text import repeated, same_query
from hiexp_verl.types import Hit, Level, Message, Plan

LookUp = Callable[[ExperienceRequest], Awaitable[list[Hit]]]  # raises LookupFailed
LookUpNow = Callable[[ExperienceRequest], list[Hit]]  # the same without waiting
Finder = TypeVar("Finder")  # one of both
Excess = Callable[[list[Message]], int]  # by how many tokens a prompt exceeds its room
_STEP_CHARS = 1000  # the end of a step, by which E1 are looked up


@dataclass(frozen=True)
class Guidance:
    """How experience is shown; the same for every episode of a run."""

    budgets: Budgets = field(default_factory=Budgets)
    arm: Arm = "full"
    leave_one_out: bool = True  # hide from a question what was distilled from it alone
    count_tokens: CountTokens = rough_tokens
    mask: Mask | None = None  # None: all that is found and fits is shown
    draw: str = ""  # names run and step, where selection by value explores; "": it does not
    hek: str | None = None  # content hash of the version that is asked
    domain: Domain = SEARCH

    def __post_init__(self) -> None:
        arm_named(self.arm)  # an unknown one would only fail at its first look-up
        check_steps(self.budgets.tool, self.domain)

    def levels_at(self, place: Place) -> tuple[Level, ...]:
        """Return the levels that are shown at a place."""
        return levels_at(self.arm, place, self.domain, self.budgets.tool.steps)

    def stops(self) -> Stops:
        """Return where a derivation stops for E1; nowhere where the arm has none to show, or the domain has a tool."""
        tool = self.budgets.tool
        return Stops(tool, tool.steps if self.domain.tool is None and self.levels_at("tool") else 0)


class Episode(Generic[Finder]):
    """The state of one guided episode. Single use; `GuidedEpisode` and `AsyncGuidedEpisode` add the look-ups."""

    def __init__(self, guidance: Guidance, look_up: Finder, question: str, question_id: str | None = None, sample: int = 0) -> None:
        self.question, self.question_id, self.sample = question, question_id, sample
        self.arm: Arm = guidance.arm
        self.shown: list[Shown] = []
        self.masked: list[Shown] = []
        self.unmet: list[tuple[int, str]] = []  # the search and the content id of an E1 whose preconditions did not hold
        self.blocks: list[tuple[int, str]] = []  # the search and the text that was added to its documents
        self.plans: list[Plan] = []  # that the system prompt shows
        self.dropped = 0  # entries found that the budgets had no room for
        self.repeats = 0  # E1 found again, and not shown again
        self.stops = guidance.stops()
        self.queries: list[str] = []
        self.failed_searches = 0
        self.lookups = 0
        self.lookup_failures = 0
        self._guidance = guidance
        self._look_up = look_up
        self._begun = False

    def search_failed(self, query: str) -> None:
        """Count a search that returned no documents."""
        self.queries.append(query)
        self.failed_searches += 1

    def forget_after(self, searches: int) -> None:
        """Remove what was shown at later searches: the policy did not read it."""
        self.shown, self.masked = ([row for row in rows if row.get("search", 0) <= searches] for rows in (self.shown, self.masked))
        self.unmet, self.blocks = ([pair for pair in pairs if pair[0] <= searches] for pairs in (self.unmet, self.blocks))

    def record(self, **more: Any) -> EpisodeRecord:
        """Return what has happened so far; `more` are fields that the caller knows."""
        return EpisodeRecord(
            question_id=self.question_id or "",
            question=self.question,
            sample=self.sample,
            arm=self.arm,
            domain=self._guidance.domain.mark.get("domain"),
            hek=self._guidance.hek,
            shown=tuple(self.shown),
            masked=tuple(self.masked),
            unmet=tuple(content for _, content in self.unmet) or None,
            dropped=self.dropped,
            e1_repeats=self.repeats,
            queries=tuple(self.queries),
            repeated_queries=repeated(self.queries),
            searches=len(self.queries),
            failed_searches=self.failed_searches,
            lookups=self.lookups,
            lookup_failures=self.lookup_failures,
            followed=any(followed(plan, self.queries) for plan in self.plans) if self.plans else None,
            **more,
        )

    def _request(self, place: Place, text: str, parallel: int = 1) -> ExperienceRequest | None:
        """Return the look-up to make, None where the arm shows nothing; `parallel` is how many searches may be under way."""
        if place == "prompt" and self._begun:
            raise HiExpError("system() was called before in this episode, which is for one rollout; begin another one")
        self._begun |= place == "prompt"
        if not self._guidance.levels_at(place):
            return None
        if place == "tool" and self._guidance.budgets.tool.match == "kind":
            text = text_at("prompt", self.question, self._guidance.domain)
        self.lookups += 1
        own = (self.question_id, self.question) if self._guidance.leave_one_out else (None, "")
        beyond = len(self.shown) + (parallel - 1) * self._guidance.budgets.tool.top_k if place == "tool" else 0
        draw = self._guidance.draw and f"{self._guidance.draw}/{self.question_id or self.question}"  # one for the rollouts of a group
        return ExperienceRequest(place, text, *own, self.arm, beyond, draw)

    def _step_query(self, written: str) -> str:
        """Return the question and the end of a step, both without names and numbers, as titles of E1 are."""
        domain, end = self._guidance.domain, written[-_STEP_CHARS:]
        return f"{text_at('prompt', self.question, domain)} {domain.kind_of(end) or end}"

    def _failed(self, failure: LookupFailed) -> list[Hit]:
        self.lookup_failures += 1
        failure.warn_once()
        return []

    def _show_prompt(self, messages: Sequence[Message], hits: Sequence[Hit], excess: Excess | None = None) -> list[Message]:
        budget, count_tokens = self._guidance.budgets.prompt.max_tokens, self._guidance.count_tokens
        if self._guidance.budgets.prompt.instantiate and self.arm != "constitution":  # that text is the same for every question
            hits = made_for(self._guidance.domain.name_of(self.question), hits)
        block = fit_block("prompt", hits, budget, count_tokens)
        guided = add_to_system(messages, block)
        while excess is not None and block.entries and (over := excess(guided)) > 0:
            block = fit_block("prompt", hits, sum(row["tokens"] for row in block.entries) - over, count_tokens)
            guided = add_to_system(messages, block)
        shown = self._note("prompt", block, hits)
        ids = {row["entry"] for row in shown.entries}
        plans = [(hit.made_for, plan) for hit in hits if hit.entry.id in ids for plan in hit.entry.plans]
        self.plans = [plan.made_for(name) if name else plan for name, plan in plans]
        return guided if shown is block else add_to_system(messages, shown)

    def show_tool(self, documents: str, hits: Sequence[Hit], search: int, max_tokens: int | None = None) -> str:
        """Return the documents with what is shown of these hits, and note it."""
        tool = self._guidance.budgets.tool
        seen = {row["entry"] for row in self.shown}
        hits = self._with_preconditions_met(hits, documents, search, seen)
        self.repeats += sum(hit.entry.id in seen for hit in distinct(hits)[: tool.top_k])
        read = {line_of(hit) for hit in hits if hit.entry.id in seen}
        fresh = distinct([hit for hit in hits if line_of(hit) not in read])[: tool.top_k]
        budget = tool.max_tokens if max_tokens is None else min(tool.max_tokens, max_tokens)
        block = fit_block("tool", fresh, budget, self._guidance.count_tokens)
        block = self._note("tool", block, fresh, search)
        before, after = beside_documents(block, tool.position if self._guidance.domain.tool is not None else "before")
        if block.text:
            self.blocks.append((search, before or after))
        return before + documents + after

    def _with_preconditions_met(self, hits: Sequence[Hit], documents: str, search: int, seen: Collection[str]) -> list[Hit]:
        """Return the hits whose preconditions hold at this search, and note the others that were not shown before."""
        if not any(hit.entry.when for hit in hits):
            return list(hits)
        *earlier, query = self.queries[:search]
        tool = self._guidance.domain.tool
        empty = tool is not None and tool.found_nothing(documents)
        state = SearchState(search, empty, any(same_query(query, each) for each in earlier))
        unmet = {hit.entry.id for hit in hits if not hold(hit.entry.when, state)}
        self.unmet += [(search, hit.entry.content_id) for hit in hits if hit.entry.id in unmet.difference(seen)]
        return [hit for hit in hits if hit.entry.id not in unmet]

    def _note(self, place: Place, block: Block, hits: Sequence[Hit], search: int | None = None) -> Block:
        """Note what a block of these hits shows; return the block without what is masked, in whose room nothing else comes."""
        self.dropped += block.dropped
        mask, episode = self._guidance.mask, f"{self.question_id or self.question}/{self.sample}"
        masked = [row for row in block.entries if mask is not None and mask.hides(row["content"], episode, search)]
        if masked:
            kept = {row["entry"] for row in block.entries if row not in masked}
            block = fit_block(place, [hit for hit in hits if hit.entry.id in kept], sys.maxsize, self._guidance.count_tokens)
        for noted, rows in ((self.masked, masked), (self.shown, block.entries)):
            noted += [row if search is None else {**row, "search": search} for row in rows]
        return block


class GuidedEpisode(Episode[LookUpNow]):
    """An episode of a synchronous agent (`Guide.begin`)."""

    def system(self, messages: Sequence[Message]) -> list[Message]:
        """Return the first messages with E3 and E2 in the system prompt; the given ones are not changed."""
        return self._show_prompt(messages, self._find(self._request("prompt", self.question)))

    def tool(self, query: str, documents: str) -> str:
        """Return the documents of a search with E1 beside them."""
        hits = self._find(self._request("tool", query))
        self.queries.append(query)
        return self.show_tool(documents, hits, len(self.queries))

    def step(self, written: str) -> str:
        """Return what is shown after a step of a derivation, "" for nothing; `stops` says where to stop."""
        return self.tool(self._step_query(written), "")

    def _find(self, request: ExperienceRequest | None) -> list[Hit]:
        try:
            return self._look_up(request) if request is not None else []
        except LookupFailed as failure:
            return self._failed(failure)


class AsyncGuidedEpisode(Episode[LookUp]):
    """An episode of an asynchronous agent (`Guide.abegin`), of our rollouts and of verl's agent loop."""

    async def system(self, messages: Sequence[Message], excess: Excess | None = None) -> list[Message]:
        """Return the first messages with E3 and E2 in the system prompt; the given ones are not changed.

        With `excess`, entries are dropped until the prompt fits.
        """
        return self._show_prompt(messages, await self._find(self._request("prompt", self.question)), excess)

    async def tool(self, query: str, documents: str) -> str:
        """Return the documents of a search with E1 beside them."""
        return await self.begin_search(query).documents_with_experience(documents)

    async def step(self, written: str, max_tokens: int | None = None) -> str:
        """Return what is shown after a step of a derivation, "" for nothing; `stops` says where to stop."""
        return await self.begin_search(self._step_query(written)).documents_with_experience("", max_tokens)

    def begin_search(self, query: str | None, parallel: int = 1) -> "GuidedSearch":
        """Number a search and start its look-up, which takes about as long as the search and does not wait for it.

        `query` is None for a call without one; `parallel` is how many calls may be under way at a time.
        """
        self.queries.append(query or "")  # now, in the order of the calls: parallel ones return in any order
        request = self._request("tool", query, parallel) if query else None
        return GuidedSearch(self, len(self.queries), asyncio.ensure_future(self._find(request)) if request is not None else None)

    async def _find(self, request: ExperienceRequest | None) -> list[Hit]:
        try:
            return await self._look_up(request) if request is not None else []
        except LookupFailed as failure:
            return self._failed(failure)


class GuidedSearch:
    """One search under way, with its look-up."""

    def __init__(self, episode: AsyncGuidedEpisode, number: int, hits: "asyncio.Future[list[Hit]] | None") -> None:
        self._episode, self.number, self._hits = episode, number, hits

    def ran(self, query: str) -> None:
        """Note the query that was searched for, where it is not the one of the call."""
        self._episode.queries[self.number - 1] = query

    def failed(self) -> None:
        """Count the search as failed: it gets no experience."""
        self._episode.failed_searches += 1
        if self._hits is not None:
            self._hits.cancel()

    async def documents_with_experience(self, documents: str, max_tokens: int | None = None) -> str:
        """Return the documents with E1 beside them; `max_tokens` lowers the budget, for a response that has less room."""
        if self._hits is None:
            return documents
        return self._episode.show_tool(documents, await self._hits, self.number, max_tokens)
