"""What a failure is held against, and what is found wrong with it: `Domain.diagnose` makes the one of the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from hiexp_verl.types import Evidence, Trajectory


@dataclass(frozen=True)
class Contrast:
    """All trajectories of one question, split by outcome; without a success, there is an answer."""

    question_id: str
    question: str
    answers: tuple[str, ...]  # the gold answers
    successes: tuple[Trajectory, ...]
    failures: tuple[Trajectory, ...]
    spellings: tuple[str, ...] = ()  # accepted predictions in other words, which give the answer away as well

    @property
    def all_answers(self) -> tuple[str, ...]:
        """What must not be in an entry: gold answers first, then the other spellings."""
        return (*self.answers, *self.spellings)


class Masking(Protocol):
    """Masks the names and numbers of one episode, as `masking.Masker`."""

    def mask(self, text: str) -> str: ...  # a question or an action, every name and number replaced; names of no kind become X, Y, Z, W
    def mask_known(self, text: str) -> str: ...  # prose that a model wrote, without what the episode names
    def names(self, text: str) -> list[str]: ...  # in order, each once


@dataclass(frozen=True)
class Side:
    """What one trajectory did, as far as it can be computed."""

    trajectory_id: str
    queries: tuple[str, ...]  # its actions (`Domain.actions`)
    prediction: str
    saw_answer: bool | None = None  # a passage held the answer; None when that says nothing (yes, no, very short answers)
    bridge: str = ""  # the intermediate thing it found and searched for by name


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """One failure explained by one success of the same question."""

    question_id: str
    question: str
    answers: tuple[str, ...]  # all that must not stand in an entry, the gold answers first
    finding: str
    also: tuple[str, ...] = ()  # what else holds, in order
    shape: str = "direct"  # of the question; the templates of E2 and E3 have a rule for each
    asked_for: str = "answer"
    bridge_kind: str = ""  # "country": what the success had to find first
    part_at: int = 0  # number of leading actions that both made alike
    failed: Side
    succeeded: Side | None  # None for a question without successes
    masker: Masking
    evidence: tuple[Evidence, ...] = ()  # where one can see it
    ways: tuple[tuple[str, ...], ...] = ()  # the actions of each success, the best first

    @cached_property
    def kind_of_question(self) -> str:
        """The question without names and numbers; asked for by every stage that writes or judges a title."""
        return self.masker.mask(self.question)


def most_frequent(diagnoses: Sequence[Diagnosis], most: int) -> list[Diagnosis]:
    """Return one diagnosis of each of the `most` most frequent findings: the one whose actions part last."""
    by_finding: dict[str, list[Diagnosis]] = {}
    for each in diagnoses:
        by_finding.setdefault(each.finding, []).append(each)
    # sorted() is stable: equally frequent findings keep their order of appearance.
    groups = sorted(by_finding.values(), key=len, reverse=True)
    return [max(group, key=lambda d: d.part_at) for group in groups[:most]]
