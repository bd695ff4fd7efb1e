"""Look experience up for concurrent episodes: one encoder call and one matrix product answer many of them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hiexp_verl.config import Arm, Match, Place, PromptConfig, Select, ToolConfig
from hiexp_verl.domains.domain import Domain
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.guide.arms import CREDITED, levels_at, random_entries, shuffled
from hiexp_verl.guide.blocks import LEVELS_OF
from hiexp_verl.guide.constitution import ARM as CONSTITUTION
from hiexp_verl.guide.constitution import ordered
from hiexp_verl.guide.select import SHORTLIST, Model, Values, choose
from hiexp_verl.hek.retrieve import Retriever
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.questions import bare_question
from hiexp_verl.models.batching import MicroBatcher
from hiexp_verl.models.encoder import QueryVectors, Vectors
from hiexp_verl.types import Hit

logger = logging.getLogger(__name__)

LOOKUP_SECONDS = 60.0  # for one batch: a thousand times what an encoder needs, so one that takes longer hangs
_warned: set[str] = set()  # reasons of failures


@dataclass(frozen=True)
class ExperienceRequest:
    """One look-up in the HEK."""

    place: Place
    text: str  # the question (prompt), the search query (tool)
    exclude_question: str | None = None  # hide what was distilled from this question alone, known by its id
    exclude_text: str = ""  # or by its text, where the row has no id that the HEK knows
    arm: Arm = "full"  # which experience is wanted
    beyond: int = 0  # extra hits beyond top k: the next best, where the episode has already seen the best
    draw: str = ""  # names the step and the question in training, where selection explores; "": elsewhere
    version: tuple[str, str] | None = None  # directory and content hash of a version of the HEK; None: the one of the settings


class LookupFailed(Exception):
    """A failed look-up. Not a `HiExpError`: the episode goes on without experience and counts the failure."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)  # both in args, so that it survives pickling between processes
        self.reason = reason  # "encoder failed", "encoder hangs", "no direction in the vector", "retrieval died"
        self.detail = detail

    def warn_once(self) -> None:
        """Log a warning, the first time for this reason in this process."""
        if self.reason not in _warned:
            _warned.add(self.reason)
            logger.warning("a look-up of experience failed (%s: %s); from here on only counted", self.reason, self.detail)


def text_at(place: Place, text: str, domain: Domain, match: Match = "kind") -> str:
    """Return what is encoded of a question (prompt) or a query (tool); see `PromptConfig.match`."""
    return (domain.kind_of(bare_question(text)) or text) if place == "prompt" and match == "kind" else text


def min_scores(hek: HEK, prompt: PromptConfig, tool: ToolConfig) -> dict[Place, float | None]:
    """Return the minimum score at each place, None without one; that of the tool is the calibrated one where none is set."""
    calibrated = hek.header.thresholds.get("tool_min_score")
    return {"prompt": prompt.min_score, "tool": tool.min_score if tool.min_score is not None else calibrated}


class Lookup:
    """Finds entries for a place: its levels, at least its minimum score, its top k. Concurrent calls are micro-batched.

    Without a minimum score for tool responses, the HEK's calibrated one applies. `values` are those of the HEK, for selection by value;
    `constitution` has the content ids that its arm shows.
    """

    def __init__(
        self,
        retriever: Retriever,
        prompt: PromptConfig,
        tool: ToolConfig,
        timeout: float = LOOKUP_SECONDS,
        values: Values | None = None,
        constitution: Sequence[str] = (),
        domain: Domain = SEARCH,
    ) -> None:
        # Rollouts of a group share their question, which is also compared with those of the HEK: each is encoded once.
        encoder = QueryVectors(retriever.encoder)
        self._retriever = Retriever(retriever.hek, encoder)
        self._match: Match = prompt.match
        self._domain, self._steps = domain, tool.steps
        self.top_k: dict[Place, int] = {"prompt": prompt.top_k, "tool": tool.top_k}
        self.min_score = min_scores(retriever.hek, prompt, tool)
        self._select: dict[Place, Select] = {"prompt": prompt.select, "tool": tool.select}
        self._values = values
        self._constitution = tuple(constitution)
        self._conditional = min(SHORTLIST, sum(bool(entry.when) for entry in retriever.hek.entries))
        self._batched = MicroBatcher[ExperienceRequest, list[Hit] | LookupFailed](self._answer, timeout=timeout)

    @cached_property
    def _shuffled(self) -> Retriever:
        return Retriever(shuffled(self._retriever.hek), self._retriever.encoder)

    async def __call__(self, request: ExperienceRequest) -> list[Hit]:
        """Return the entries found, best first.

        Raises:
            LookupFailed: the encoder raised, hung, or gave no direction.
        """
        try:
            found = await self._batched(request)
        except TimeoutError as error:
            raise LookupFailed("encoder hangs", str(error)) from error
        return _raised(found)

    def now(self, request: ExperienceRequest) -> list[Hit]:
        """Return the same for synchronous code: without batches and without a time limit."""
        return _raised(self._answer([request])[0])

    def _answer(self, requests: list[ExperienceRequest]) -> list[list[Hit] | LookupFailed]:
        try:
            queries_N_D = self._retriever.encoder.encode_queries([text_at(r.place, r.text, self._domain, self._match) for r in requests])
            own = self._own(requests)
        except Exception as error:  # an encoder may raise anything; the caller counts and reports it
            if len(requests) > 1:  # one text that the encoder cannot digest must not fail those that share its batch
                return [answer for request in requests for answer in self._answer([request])]
            return [LookupFailed("encoder failed", f"{type(error).__name__}: {str(error)[:200]}")]
        hits = self._find(requests, queries_N_D, own)
        broken = LookupFailed("no direction in the vector", "NaN, infinity or nothing but zeros: the encoder is broken")
        return [found if np.isfinite(query_D).all() and query_D.any() else broken for found, query_D in zip(hits, queries_N_D, strict=True)]

    def _find(self, requests: list[ExperienceRequest], queries_N_D: Vectors, own: list[frozenset[str] | None]) -> list[list[Hit]]:
        answers: list[list[Hit]] = [[] for _ in requests]
        asked: set[tuple[Place, Arm]] = {(r.place, r.arm) for r in requests}
        for place, arm in asked:
            rows = [i for i, r in enumerate(requests) if (r.place, r.arm) == (place, arm)]
            levels = levels_at(arm, place, self._domain, self._steps)
            if not levels:
                continue
            if arm == CONSTITUTION:
                for i in rows:
                    answers[i] = self._fixed(queries_N_D[i], own[i])
                continue
            retriever = self._shuffled if arm == "shuffled" else self._retriever
            model, hidden = self._model(place, arm), [own[i] for i in rows]
            hits = retriever.retrieve(
                queries_N_D[rows],
                levels=[level for level in levels if level in LEVELS_OF[place]],
                top_k=max(
                    self.top_k[place] + max(requests[i].beyond for i in rows) + self._conditional, SHORTLIST if model is not None else 0
                ),
                min_score=self.min_score[place],
                exclude_questions=hidden,
            )
            beside = set(levels).difference(LEVELS_OF[place])  # E1, of a domain without a tool
            cases = self._cases(retriever, queries_N_D[rows], hidden) if beside else [[]] * len(rows)
            for i, found, case in zip(rows, hits, cases, strict=True):
                if model is not None and self._values is not None:
                    threshold, draw = self.min_score[place] or 0.0, requests[i].draw and f"{requests[i].draw}/{place}"
                    found = choose(found, self._select[place], model, self._values.known, self.top_k[place], threshold, draw)
                answers[i] = self._for_arm(_best(found, self.top_k[place] + requests[i].beyond) + case, requests[i], own[i])
        return answers

    def _cases(self, retriever: Retriever, queries_N_D: Vectors, hidden: list[frozenset[str] | None]) -> list[list[Hit]]:
        """Return the best E1 for each question of a domain without a tool; preconditions are tested at a search alone."""
        found = retriever.retrieve(queries_N_D, ("e1",), 1 + self._conditional, self.min_score["tool"], hidden)
        return [[hit for hit in hits if not hit.entry.when][:1] for hits in found]

    def _fixed(self, query_D: Vectors, own: frozenset[str] | None) -> list[Hit]:
        """Return the entries of the constitution, without what leave-one-out hides."""
        hek = self._retriever.hek
        hidden = self._retriever.hidden_rows(own) if own is not None else set()
        rows = {entry.content_id: row for row, entry in enumerate(hek.entries) if row not in hidden}
        found = [rows[content] for content in self._constitution if content in rows]
        return ordered([Hit(hek.entries[row], float(query_D @ hek.vectors_E_D[row])) for row in found])

    def _model(self, place: Place, arm: Arm) -> Model | None:
        """Return what the entries of a place are selected by, None: the cosine."""
        if self._values is None or self._select[place] == "cosine" or arm not in CREDITED:
            return None
        return self._values.places.get(place)

    def _for_arm(self, hits: list[Hit], request: ExperienceRequest, own: frozenset[str] | None) -> list[Hit]:
        if request.arm != "random":
            return hits
        hidden = self._retriever.hidden_rows(own) if own is not None else set()
        return random_entries(hits, request.text, [entry for row, entry in enumerate(self._retriever.hek.entries) if row not in hidden])

    def _own(self, requests: list[ExperienceRequest]) -> list[frozenset[str] | None]:
        """Return the questions whose entries are hidden from each request; None: nothing is hidden."""
        own: list[frozenset[str] | None] = [None] * len(requests)
        guarded = [i for i, r in enumerate(requests) if r.arm != "own-question" and (r.exclude_question is not None or r.exclude_text)]
        asked = [(requests[i].exclude_question, requests[i].exclude_text) for i in guarded]
        for i, known in zip(guarded, self._retriever.known_questions(asked), strict=True):
            own[i] = known
        return own


def _best(hits: list[Hit], count: int) -> list[Hit]:
    """Return the best hits, so many of them without preconditions: the episode may not show one that has some."""
    free = 0
    for place, hit in enumerate(hits):
        if free == count:
            return hits[:place]
        free += not hit.entry.when
    return hits


def _raised(found: list[Hit] | LookupFailed) -> list[Hit]:
    if isinstance(found, LookupFailed):
        raise found
    return found
