"""What the teacher of a round reads: the student's first messages with a privilege, inside the chat template."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from hiexp_verl.config import Budgets, HiExpConfig
from hiexp_verl.guide.episode import AsyncGuidedEpisode, Guidance
from hiexp_verl.guide.lookup import ExperienceRequest
from hiexp_verl.internalise.kinds import kinds_of
from hiexp_verl.internalise.pairs import pairs_of, students_of
from hiexp_verl.internalise.privilege import with_reference
from hiexp_verl.models.tokenizer import prompt_ids
from hiexp_verl.plugin.loop import Version
from hiexp_verl.plugin.retrieval import Retrieval
from hiexp_verl.types import Hit, Message, Trajectory


class Chosen(NamedTuple):
    """A rollout that learns, and the right one that its teacher reads."""

    student: Trajectory
    reference: Trajectory | None = None

    @property
    def opening(self) -> list[Message]:
        """Return the messages before the student's first turn."""
        turns = self.student.messages
        return list(turns[: next((i for i, message in enumerate(turns) if message.get("role") == "assistant"), len(turns))])


class Teacher:
    """The prompts of a policy with these settings; `retrieval` is asked where the privilege is a HEK's."""

    def __init__(self, settings: HiExpConfig, tokenizer: Any, retrieval: Retrieval | None, template_kwargs: Mapping[str, Any]) -> None:
        self._settings, self._tokenizer, self._retrieval = settings, tokenizer, retrieval
        self._template_kwargs = {str(key): value for key, value in template_kwargs.items()}

    def chosen(self, rollouts: Sequence[Trajectory]) -> tuple[list[Chosen], Counter[str]]:
        """Return which rollouts learn, and from which reference, where the privilege has one; and what was left out."""
        if self._settings.distil.privilege == "hek":
            students, left_out = students_of(rollouts, self._settings.distil.pairs)
            return [Chosen(student) for student in students], left_out
        pairs, left_out = pairs_of(rollouts, self._settings.distil.pairs)
        return [Chosen(pair.student, pair.reference) for pair in pairs], left_out

    def messages(self, chosen: Sequence[Chosen], version: Version | None = None) -> list[list[Message]]:
        """Return the first messages of each student with what the teacher may read; `version` of the HEK, None: that of the settings.

        A look-up that fails leaves a student without experience, as in an episode.
        """
        shown = [each.opening for each in chosen]
        if self._settings.distil.privilege in ("hek", "both"):
            shown = asyncio.run(self._with_experience(chosen, shown, version))
        references = [each.reference for each in chosen]
        if self._settings.distil.privilege == "hek":
            return shown
        return [with_reference(messages, r) if r is not None else messages for messages, r in zip(shown, references, strict=True)]

    async def _with_experience(
        self, chosen: Sequence[Chosen], shown: Sequence[list[Message]], version: Version | None
    ) -> list[list[Message]]:
        """Return the messages with E2 and E3, as a guided rollout of the question has them."""
        settings, retrieval = self._settings, self._retrieval
        assert retrieval is not None
        budgets = Budgets(settings.prompt, settings.tool)
        guidance = Guidance(budgets, "prompt", settings.leave_one_out, lambda text: len(self._tokenizer.encode(text)))

        async def look_up(request: ExperienceRequest) -> list[Hit]:
            return await retrieval.experience(replace(request, version=version))

        asking = [AsyncGuidedEpisode(guidance, look_up, each.student.question, each.student.question_id) for each in chosen]
        return list(await asyncio.gather(*(episode.system(messages) for episode, messages in zip(asking, shown, strict=True))))

    def ids(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
        """Return the token ids of a prompt."""
        return prompt_ids(self._tokenizer, messages, tools, **self._template_kwargs)

    def text(self, messages: Sequence[Message], opened: bool) -> str:
        """Return the text of messages; `opened` for the policy to go on."""
        return self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=opened, **self._template_kwargs)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text within a prompt."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def kinds(self, response: Sequence[int], mask: Sequence[int]) -> list[int]:
        """Return the kind of each token of a response, each turn by itself; 0 where the policy did not write it."""
        kinds, start = [0] * len(response), 0
        while start < len(response):
            end = next((i for i in range(start, len(response)) if mask[i] != mask[start]), len(response))
            if mask[start]:
                kinds[start:end] = kinds_of([self._tokenizer.decode([token], skip_special_tokens=False) for token in response[start:end]])
            start = end
        return kinds
