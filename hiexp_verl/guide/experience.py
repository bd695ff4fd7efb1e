"""Experience for rollouts without verl: a HEK's look-up and the guide, behind two awaitable questions."""

from collections.abc import Callable, Sequence
from typing import Any

from hiexp_verl.config import Arm, Budgets, Place, PromptConfig, ToolConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.guide import Guide, Shown, rough_tokens
from hiexp_verl.guide.lookup import ExperienceRequest, Lookup, LookupFailed
from hiexp_verl.hek import Retriever
from hiexp_verl.types import Hit, Message, Question

MAX_FAILURES_IN_A_ROW = 20  # more than one batch of a rollout's 16 episodes: a single fault does not end it


class Experience:
    """Show entries of one HEK to any number of concurrent episodes.

    Args:
        retriever: of the HEK, with its encoder.
        prompt: limits in the system prompt.
        tool: limits in tool responses; without a minimum score the one that the HEK was calibrated to holds.
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
        count_tokens: Callable[[str], int] = rough_tokens,
    ) -> None:
        self.budgets = Budgets(prompt or PromptConfig(), tool or ToolConfig())
        self.guide = Guide(self.budgets.prompt, self.budgets.tool, count_tokens)
        self.arm: Arm = arm
        self.content_hash = retriever.hek.header.content_hash
        self._lookup = Lookup(retriever, self.budgets.prompt, self.budgets.tool)
        self._leave_one_out = leave_one_out
        self._failures_in_a_row = 0

    def told(self) -> dict[str, Any]:
        """Return what tells this experience from another: two runs with the same are comparable."""
        return {"hek": self.content_hash, "arm": self.arm, **self.budgets.flat()}

    async def at_prompt(self, messages: Sequence[Message], question: Question) -> tuple[list[Message], Shown]:
        """Return the first messages with E3 and E2 added, and what was shown."""
        hits = await self._look_up(self._request("prompt", question.question, question))
        if hits is None:
            return list(messages), Shown(lookup_failures=1)
        return self.guide.at_prompt(messages, hits)

    async def at_tool(self, query: str, documents: str, question: Question, shown: Shown) -> tuple[str, Shown]:
        """Return the documents of a search with E1 beside them, and what was shown.

        `shown` is what the episode has been shown before; none of it is shown again.
        """
        hits = await self._look_up(self._request("tool", query, question, len(shown.ids)))
        if hits is None:
            return documents, Shown(lookup_failures=1)
        text, shown = self.guide.at_tool(hits, shown.ids)
        return self.guide.beside(documents, text), shown

    async def _look_up(self, request: ExperienceRequest) -> list[Hit] | None:
        """Return what was found, None where the look-up failed: the episode goes on without."""
        try:
            hits = await self._lookup(request)
        except LookupFailed as error:
            error.tell()
            self._failures_in_a_row += 1
            if self._failures_in_a_row == MAX_FAILURES_IN_A_ROW:
                raise HiExpError(
                    f"{MAX_FAILURES_IN_A_ROW} look-ups of experience failed in a row ({error.reason}: {error.detail}); "
                    "mend the encoder and start again, with --resume what is finished stays"
                ) from error
            return None
        self._failures_in_a_row = 0
        return hits

    def _request(self, place: Place, text: str, question: Question, beyond: int = 0) -> ExperienceRequest:
        own = (question.id, question.question) if self._leave_one_out else (None, "")
        return ExperienceRequest(place, text, *own, self.arm, beyond)
