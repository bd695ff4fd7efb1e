"""The nouns: what a question, a passage, a trajectory and an experience entry are.

Everything else in the package passes these around. On disk each is one JSON line with the same field names.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Level = Literal["e1", "e2", "e3"]
LEVELS: tuple[Level, ...] = ("e1", "e2", "e3")
Kind = Literal["guide", "pitfall"]
Message = dict[str, Any]  # OpenAI style: {"role": ..., "content": ...}


@dataclass(frozen=True)
class Question:
    """A question with every answer that counts as right."""

    id: str
    question: str
    answers: tuple[str, ...]
    meta: dict[str, Any] = field(default_factory=dict)  # e.g. {"family": ..., "hops": [...], "split": "train"}


@dataclass(frozen=True)
class Passage:
    """A unit of the corpus, as the search tool returns it."""

    id: str
    title: str
    text: str


@dataclass(frozen=True)
class Trajectory:
    """One episode of the search agent on one question, with its outcome."""

    question_id: str
    question: str
    answers: tuple[str, ...]
    messages: tuple[Message, ...]  # system, user, then assistant and tool in turn
    prediction: str  # "" when no answer was given
    score: float  # the reward, 0 to 1
    correct: bool
    model: str
    id: str = ""  # "<question_id>#<sample>" when the writer knows it
    extra: dict[str, Any] = field(default_factory=dict)  # e.g. experience shown, failed searches, stop reason


@dataclass(frozen=True)
class Entry:
    """One piece of experience. The title is matched (child), the description is shown (parent)."""

    id: str
    level: Level
    title: str  # when does this apply
    description: str  # what to do or avoid: imperative, short, no names, no answers
    kind: Kind = "guide"
    tags: tuple[str, ...] = ()
    children: tuple[str, ...] = ()  # ids of the entries of the level below that it summarises
    questions: tuple[str, ...] = ()  # ids of the questions it was distilled from (for leave-one-out)
    sources: tuple[str, ...] = ()  # ids of the trajectories it was distilled from


@dataclass(frozen=True)
class Hit:
    """An entry that retrieval found, with the cosine between the query and the entry's title."""

    entry: Entry
    score: float


def to_json(record: Question | Passage | Trajectory | Entry) -> dict[str, Any]:
    """Return the record as the JSON object that is written to disk."""
    return asdict(record)
