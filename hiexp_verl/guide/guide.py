"""Experience for agents without verl: a HEK, its look-up and how entries are shown."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hiexp_verl.config import Arm, Budgets, PromptConfig, ToolConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.blocks import CountTokens, rough_tokens
from hiexp_verl.guide.episode import AsyncGuidedEpisode, Guidance, GuidedEpisode
from hiexp_verl.guide.lookup import ExperienceRequest, Lookup, LookupFailed
from hiexp_verl.hek.opening import open_encoder
from hiexp_verl.hek.retrieve import Retriever
from hiexp_verl.hek.store import HEK
from hiexp_verl.types import Hit

MAX_FAILURES_IN_A_ROW = 20  # more than one batch of a rollout's 16 episodes: a single fault does not end it


class Guide:
    """Shows entries of one HEK to any number of episodes.

    Args:
        retriever: of the HEK, with its encoder.
        prompt: limits in the system prompt.
        tool: limits in tool responses; without a minimum score, the HEK's calibrated one applies.
        leave_one_out: hide from a question what was distilled from it alone (for training questions).
        arm: which experience is shown (`guide.arms`).
        count_tokens: of the policy's tokenizer; without one, an estimate.
    """

    def __init__(
        self,
        retriever: Retriever,
        prompt: PromptConfig | None = None,
        tool: ToolConfig | None = None,
        leave_one_out: bool = True,
        arm: Arm = "full",
        count_tokens: CountTokens = rough_tokens,
    ) -> None:
        budgets = Budgets(prompt or PromptConfig(), tool or ToolConfig())
        self.guidance = Guidance(budgets, arm, leave_one_out, count_tokens)
        self.content_hash = retriever.hek.header.content_hash
        self._lookup = Lookup(retriever, budgets.prompt, budgets.tool)
        self._failures_in_a_row = 0

    @classmethod
    def open(
        cls,
        hek: str | Path,
        encoder: str | None = None,
        arm: Arm = "full",
        prompt: PromptConfig | None = None,
        tool: ToolConfig | None = None,
        count_tokens: CountTokens = rough_tokens,
    ) -> "Guide":
        """Return the guide of the HEK in a directory; `encoder` is the directory or name of its encoder, if it has moved.

        Raises:
            HiExpError: there is no HEK, or its encoder cannot be found.
        """
        path = Path(hek)
        loaded = HEK.load(path)
        return cls(Retriever(loaded, open_encoder(loaded, path, encoder)), prompt, tool, arm=arm, count_tokens=count_tokens)

    def begin(self, question: str, id: str | None = None) -> GuidedEpisode:
        """Return a new episode; its `system` and `tool` are synchronous."""
        return GuidedEpisode(self.guidance, self._find_now, question, id)

    async def abegin(self, question: str, id: str | None = None) -> AsyncGuidedEpisode:
        """Return a new episode whose `system` and `tool` are awaited; concurrent look-ups share encoder calls."""
        return AsyncGuidedEpisode(self.guidance, self._find, question, id)

    def settings(self) -> dict[str, Any]:
        """Return what distinguishes this guide: two runs with equal settings are comparable."""
        return {"hek": self.content_hash, "arm": self.guidance.arm, **self.guidance.budgets.flat()}

    async def _find(self, request: ExperienceRequest) -> list[Hit]:
        with self._limited():
            return await self._lookup(request)

    def _find_now(self, request: ExperienceRequest) -> list[Hit]:
        with self._limited():
            return self._lookup.now(request)

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """Stop when every look-up fails: episodes would be unguided without anybody noticing."""
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
