"""A second kind of question in the world of peaks, a policy that some advice misleads there, and distillers that write it."""

import random
from dataclasses import replace

from hiexp_verl.distil.rules import RulesDistiller
from hiexp_verl.errors import HiExpError
from hiexp_verl.models.chat import Reply
from hiexp_verl.types import GIVEN, Question
from tests.support.factories import entry, hek_of
from tests.support.peaks import CITIES, ENCODER, PEAKS, QUESTIONS, Follower

CITY_KIND = f"What is the largest city of the country whose highest point is {GIVEN}?"
CITY_QUESTIONS = [Question(f"c{i:02d}", CITY_KIND.replace(GIVEN, peak), (CITIES[c],)) for i, (peak, c) in enumerate(PEAKS.items())]
BOTH = [question for pair in zip(QUESTIONS[:24], CITY_QUESTIONS[24:], strict=True) for question in pair]
MISLEADING = "Stop at the first passage."


def empty():
    """A HEK that says nothing about either kind."""
    other = entry("e2-0001", "e2", "films by their director", "Search the film.", counters={"right": 1, "wrong": 3})
    return hek_of([entry("e1-0001", title="a case", description="Look twice."), other], ENCODER)


class Misled(Follower):
    """Follows plans for capitals; a question for the largest city it answers in 6 of 10 episodes, and never with `spoilt` in its context.

    `everywhere`: capitals neither.
    """

    def __init__(self, spoilt, everywhere=False, stop_after=None):
        super().__init__(stop_after)
        self.spoilt, self.everywhere = spoilt, everywhere

    async def chat(self, messages, *, seed=None, **more):
        text = "\n".join(m["content"] for m in messages if m["role"] != "assistant")
        question = messages[1]["content"]
        wrong = Reply("<answer>Nowhere</answer>", "stop", 5)
        if "largest city" not in question:
            return wrong if self.everywhere and self.spoilt in text else await super().chat(messages, seed=seed, **more)
        peak = next(peak for peak in PEAKS if peak in question)
        self.calls += 1
        if self.stop_after is not None and self.calls > self.stop_after:
            raise HiExpError("the server has stopped")
        turns = sum(m["role"] == "assistant" for m in messages)
        searches = (f"where {peak} stands", f"largest city of {PEAKS[peak]}")
        if turns < len(searches):
            return Reply(f"<search>{searches[turns]}</search>", "stop", 5)
        right = self.spoilt not in text and random.Random(seed).random() < 0.6
        return Reply(f"<answer>{CITIES[PEAKS[peak]]}</answer>", "stop", 5) if right else wrong


class Writing(RulesDistiller):
    """Writes by rules; `misleads(draft, diagnosis)` says which E1 end with misleading advice. Rewrites as `better`, where it is given."""

    name = "scripted"

    def __init__(self, misleads, better=None, draft=0):
        self.misleads, self.better, self.draft, self.revised = misleads, better, draft, []

    def reflect(self, diagnoses):
        drafts = super().reflect(diagnoses)
        return [
            replace(draft, description=f"{draft.description} {MISLEADING}") if self.misleads(self.draft, d) else draft
            for draft, d in zip(drafts, diagnoses, strict=True)
        ]

    def revise(self, pairs):
        self.revised += pairs
        return [self.better] * len(pairs)

    def again(self, draft):
        return Writing(self.misleads, self.better, draft)
