"""Experience for agents without verl: a HEK, its look-up and how entries are shown."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hiexp_verl.config import Arm, Budgets, PromptConfig, ToolConfig
from hiexp_verl.domains import domain_for
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.blocks import CountTokens, rough_tokens
from hiexp_verl.guide.constitution import constitution_for
from hiexp_verl.guide.episode import AsyncGuidedEpisode, Guidance, GuidedEpisode
from hiexp_verl.guide.lookup import ExperienceRequest, Lookup, LookupFailed
from hiexp_verl.guide.select import Values, values_for
from hiexp_verl.hek.opening import open_encoder
from hiexp_verl.hek.retrieve import Retriever
from hiexp_verl.hek.store import HEK
from hiexp_verl.types import Hit

MAX_FAILURES_IN_A_ROW = 20  # more than one batch of a rollout's 16 episodes: a single fault does not end it


class Guide:
    """Shows entries of one HEK to any number of episodes.

    Without a minimum score for tool responses, the HEK's calibrated one applies. `values` are for selection by value,
    `constitution` is what its arm shows.
    """

    def __init__(
        self, retriever: Retriever, guidance: Guidance | None = None, values: Values | None = None, constitution: Sequence[str] = ()
    ) -> None:
        self.content_hash = retriever.hek.header.content_hash
        self.guidance = replace(guidance or Guidance(), hek=self.content_hash)
        budgets = self.guidance.budgets
        self._lookup = Lookup(
            retriever, budgets.prompt, budgets.tool, values=values, constitution=constitution, domain=self.guidance.domain
        )
        self._constitution = list(constitution)
        self._failures_in_a_row = 0

    @classmethod
    def open(
        cls,
        hek: str | Path,
        encoder: str | None = None,
        *,
        domain: str | None = None,
        arm: Arm = "full",
        prompt: PromptConfig | None = None,
        tool: ToolConfig | None = None,
        count_tokens: CountTokens = rough_tokens,
    ) -> "Guide":
        """Return the guide of the HEK in a directory; `encoder` is the directory or name of its encoder, if it has moved.

        `domain` is that of the questions, by name or as package.module:NAME; None: that of the HEK. `count_tokens` is that of the
        policy's tokenizer; without one, tokens are estimated.

        Raises:
            HiExpError: there is no HEK, or its encoder cannot be found, or it has no constitution for that arm.
        """
        path = Path(hek)
        loaded = HEK.load(path)
        budgets = Budgets(prompt or PromptConfig(), tool or ToolConfig())
        values = values_for(path, loaded.header.content_hash, budgets)
        fixed = constitution_for(path, loaded.header.content_hash, [arm])
        asked = domain_for(loaded.header.domain, domain)
        guidance = Guidance(budgets, arm, count_tokens=count_tokens, domain=asked)
        return cls(Retriever(loaded, open_encoder(loaded, path, encoder)), guidance, values, fixed)

    def begin(self, question: str, id: str | None = None, sample: int = 0) -> GuidedEpisode:
        """Return a new episode, which plays the question for the `sample`-th time; its `system`, `tool` and `step` are synchronous."""
        return GuidedEpisode(self.guidance, self._find_now, question, id, sample)

    async def abegin(self, question: str, id: str | None = None, sample: int = 0) -> AsyncGuidedEpisode:
        """Return a new episode whose `system`, `tool` and `step` are awaited; concurrent look-ups share encoder calls."""
        return AsyncGuidedEpisode(self.guidance, self._find, question, id, sample)

    def settings(self) -> dict[str, Any]:
        """Return what distinguishes this guide: two runs with equal settings are comparable."""
        fixed = {"constitution": self._constitution} if self._constitution else {}
        return {"hek": self.content_hash, "arm": self.guidance.arm, **self.guidance.budgets.flat(), **fixed}

    async def _find(self, request: ExperienceRequest) -> list[Hit]:
        with self._limited():
            return await self._lookup(request)

    def _find_now(self, request: ExperienceRequest) -> list[Hit]:
        with self._limited():
            return self._lookup.now(request)

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """Raise a `HiExpError` when many look-ups fail in a row: episodes would silently be unguided."""
        try:
            yield
        except LookupFailed as error:
            self._failures_in_a_row += 1
            if self._failures_in_a_row == MAX_FAILURES_IN_A_ROW:
                raise HiExpError(
                    f"{MAX_FAILURES_IN_A_ROW} look-ups of experience failed in a row ({error.reason}: {error.detail}); check the encoder"
                ) from error
            raise
        self._failures_in_a_row = 0
