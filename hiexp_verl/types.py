"""The nouns: what a question, a passage, a trajectory and an experience entry are.

Everything else in the package passes these around. On disk each is one JSON line with the same field names.
"""

import hashlib
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

Level = Literal["e1", "e2", "e3"]
LEVELS: tuple[Level, ...] = ("e1", "e2", "e3")
Kind = Literal["guide", "pitfall"]
KINDS: tuple[Kind, ...] = ("guide", "pitfall")
MAX_TITLE_CHARS = 120
MAX_DESCRIPTION_CHARS = 320
Message = dict[str, Any]  # OpenAI style: {"role": ..., "content": ...}
TRAIN = "train"  # `split` of a training row (extra_info) and of an episode (extra); any other is validation
TRAJECTORY_KEY = "hiexp_trajectory"  # what our reward adds to every row of verl's dump: the trajectory, as JSON text


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
class Evidence:
    """Evidence of an entry: characters `start` to `end` of one message of a trajectory."""

    trajectory: str  # id
    message: int  # index into Trajectory.messages
    start: int
    end: int
    what: str  # a name in `domains.search.evidence`: where success and failure part, where the answer was, the end
    quote: str  # that text, shortened: to be read without the trajectory


@dataclass(frozen=True)
class Source:
    """The summary that a HEK keeps of a trajectory that it was distilled from."""

    id: str
    question_id: str
    question: str
    model: str
    prediction: str
    correct: bool
    queries: tuple[str, ...]


GIVEN, FOUND = "...", "the name found"  # in a plan: the name in the question, and one that a search found


@dataclass(frozen=True)
class Plan:
    """The searches of a success without its names, as a template for questions of its kind."""

    question: str  # the kind of question it answers
    searches: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """Return the plan as a sentence of an entry."""
        searches = ", then ".join(f'"{search}"' for search in self.searches)
        return f'For "{self.question}" these searches worked: {searches}.'

    def made_for(self, name: str) -> "Plan":
        """Return the plan for the question that has this name; its kind stays."""
        return Plan(self.question, tuple(search.replace(GIVEN, name) for search in self.searches))


@dataclass(frozen=True)
class Entry:
    """One piece of experience. The title is matched (child), the description is shown (parent).

    An entry made of several rollouts may have several findings, shapes and so on: the first is the main one.
    """

    id: str
    level: Level
    title: str  # when does this apply
    description: str  # what to do or avoid: imperative, short, no names, no answers
    kind: Kind = "guide"
    findings: tuple[str, ...] = ()  # what went wrong, see `Domain.meanings`
    shapes: tuple[str, ...] = ()  # of the questions, see `wording.Shape`
    asked_for: tuple[str, ...] = ()  # what the questions ask for: "capital", "date"
    bridges: tuple[str, ...] = ()  # what must be found first: "country"
    hops: tuple[int, ...] = ()  # number of searches of the plans
    plans: tuple[Plan, ...] = ()  # of an E1, and the one that an E2 shows
    tags: tuple[str, ...] = ()  # free text for people; no code reads it
    children: tuple[str, ...] = ()  # ids of the entries of the level below that it summarises
    questions: tuple[str, ...] = ()  # ids of the questions it was distilled from (for leave-one-out)
    sources: tuple[str, ...] = ()  # ids of the trajectories it was distilled from
    evidence: tuple[Evidence, ...] = ()  # the places in them that it points at
    counters: dict[str, int] = field(default_factory=dict)  # e.g. {"merged": 3}: near-duplicates united in it
    when: tuple[str, ...] = ()  # of an E1: preconditions of being shown, see `hek.preconditions`

    @cached_property
    def content_id(self) -> str:
        """Return the id of what the entry says: the same in every version, whatever its number there."""
        said = "\0".join((self.level, self.title, self.description))
        return hashlib.blake2b(said.encode("utf-8", "replace"), digest_size=8).hexdigest()

    @property
    def labels(self) -> tuple[str, ...]:
        """The computed fields and tags as short texts to show and filter by, such as "finding:no_answer"."""
        fields = {"finding": self.findings, "shape": self.shapes, "asked": self.asked_for, "bridge": self.bridges, "hops": self.hops}
        return (*(f"{name}:{value}" for name, values in fields.items() for value in values), *self.tags)


@dataclass(frozen=True)
class Hit:
    """An entry that retrieval found, with the cosine between the query and the entry's title."""

    entry: Entry
    score: float
    made_for: str = ""  # the name that its plans were made for, where they were
    stored: str = ""  # content id of the entry without that name; "": it is the entry's own
    value: float | None = None  # by which it was selected, where not by the cosine
    p: float = 1.0  # probability of that

    @property
    def content(self) -> str:
        """The content id by which the HEK knows the entry."""
        return self.stored or self.entry.content_id

    @property
    def rank(self) -> float:
        """The number by which hits are ordered, the highest first."""
        return self.score if self.value is None else self.value


def to_json(record: Question | Passage | Trajectory | Entry | Source) -> dict[str, Any]:
    """Return the record as the JSON object that is written to disk; an entry without preconditions has no `when`."""
    values = asdict(record)
    if not values.get("when", True):
        del values["when"]
    return values
