"""What happened in an episode with search and experience, and what several episodes add up to."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from typing_extensions import NotRequired, TypedDict

from hiexp_verl.config import Place
from hiexp_verl.scoring import Score
from hiexp_verl.settings import parse_block
from hiexp_verl.types import LEVELS, Level, Message, Trajectory

Whole = Annotated[int, Field(ge=0, le=2**53)]  # a count; what adds and divides it gets a float


class Shown(TypedDict):
    """An entry that an episode was shown, or would have been."""

    __pydantic_config__ = ConfigDict(extra="allow", allow_inf_nan=False)  # pyright: ignore[reportGeneralTypeIssues]

    entry: str  # its id
    content: str  # its `content_id`
    level: Level
    score: float  # cosine of its title with the question or the query
    place: Place
    tokens: Whole  # that it takes in the context
    search: NotRequired[Whole]  # number of the search in whose response it stood, from 1
    made_for: NotRequired[str]  # the name that stands in its plan
    p: NotRequired[float]  # probability that it was selected, where not by the cosine


@dataclass(frozen=True)
class EpisodeRecord:
    """One episode. verl's loop hands it to the reward as JSON; a trajectory keeps it in `extra`."""

    __pydantic_config__ = ConfigDict(allow_inf_nan=False)

    question_id: str
    question: str
    sample: Whole = 0
    arm: str = "none"
    domain: str | None = None  # None: search
    split: str | None = None  # None where it is not known, as everywhere below
    messages: tuple[Message, ...] = ()  # as the policy read and wrote them
    answer_text: str = ""  # the text in which an answer counts
    hek: str | None = None  # content hash of the version that was asked
    shown: tuple[Shown, ...] = ()
    masked: tuple[Shown, ...] = ()  # left out by chance, to measure what they do (`ledger.credit`)
    unmet: tuple[str, ...] | None = None  # content ids of E1 that were found where their preconditions do not hold; None: none
    dropped: Whole = 0  # entries found that the token budgets had no room for
    e1_repeats: Whole = 0  # E1 found again, and not shown again
    queries: tuple[str, ...] = ()
    repeated_queries: Whole = 0
    searches: Whole = 0
    failed_searches: Whole = 0
    lookups: Whole = 0
    lookup_failures: Whole = 0
    followed: bool | None = None  # whether the searches of a plan in the system prompt were made; None: it showed none
    states: tuple[str, ...] | None = None  # what each turn searched for and found, as `plugin.turns` names it; None: not asked for
    stripped: bool | None = None  # whether the experience was removed from the trained tokens; None: not asked for
    stop: str | None = None  # why the episode ended: "answer", "no_answer", "length", "search_limit", "prompt_too_long"
    completion_tokens: Whole | None = None  # that the policy wrote
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON object, without what is not known."""
        known = {name: value for name, value in vars(self).items() if value is not None}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in known.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "EpisodeRecord":
        """Return the record that `to_json` wrote."""
        found: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return cls(**found)

    def extra(self) -> dict[str, Any]:
        """Return what a trajectory keeps in `extra`: all that it has not itself."""
        return {name: value for name, value in self.to_json().items() if name not in _OF_TRAJECTORY}

    def trajectory(self, answers: tuple[str, ...], prediction: str | None, score: Score, model: str) -> Trajectory:
        """Return the trajectory of the episode."""
        return Trajectory(
            question_id=self.question_id,
            question=self.question,
            answers=answers,
            messages=self.messages,
            prediction=prediction or "",
            score=score.reward,
            correct=score.correct,
            model=model,
            id=f"{self.question_id}#{self.sample}",
            extra=self.extra(),
        )

    @classmethod
    def of(cls, t: Trajectory) -> "EpisodeRecord":
        """Return the record of a trajectory; what its `extra` lacks has the default.

        Raises:
            HiExpError: a field of `extra` is of the wrong type.
        """
        known = {name: value for name, value in t.extra.items() if name in _NAMES}  # the scores stand there, too
        found = {"question_id": t.question_id, "question": t.question, **known}
        return replace(parse_block(cls, found, f"episode {t.id}", "field"), messages=t.messages)


_OF_TRAJECTORY = ("question_id", "question", "messages", "answer_text")
_NAMES = {each.name for each in fields(EpisodeRecord)}


@dataclass(frozen=True)
class Totals:
    """Sums over episodes."""

    episodes: int = 0
    searches: int = 0
    failed_searches: int = 0
    repeated_queries: int = 0
    lookups: int = 0
    lookup_failures: int = 0
    dropped: int = 0
    e1_repeats: int = 0
    completion_tokens: int = 0
    experience_tokens: int = 0
    e1_fired: int = 0  # searches with E1 beside their documents
    prompt_entries: int = 0  # E2 and E3 shown
    searched: int = 0  # episodes with a search
    answered_search: int = 0  # episodes with a search that did not fail
    guided: int = 0  # episodes that were shown experience
    prompt_hits: int = 0  # episodes that were shown experience in the system prompt
    level_hits: Mapping[Level, int] = field(default_factory=dict)  # episodes that were shown an entry of the level
    stops: Mapping[str, int] = field(default_factory=dict)

    def mean(self, name: str) -> float:
        """Return a sum per episode."""
        return share(getattr(self, name), self.episodes)


def aggregate(records: Iterable[EpisodeRecord]) -> Totals:
    """Return the sums over these episodes."""
    episodes = list(records)
    shown = [row for r in episodes for row in r.shown]
    summed = {name: sum(getattr(r, name) or 0 for r in episodes) for name in _SUMMED}
    return Totals(
        episodes=len(episodes),
        **summed,
        experience_tokens=sum(row["tokens"] for row in shown),
        e1_fired=sum(len({row.get("search") for row in r.shown if row["place"] == "tool"}) for r in episodes),
        prompt_entries=sum(row["place"] == "prompt" for row in shown),
        searched=sum(r.searches > 0 for r in episodes),
        answered_search=sum(r.searches > r.failed_searches for r in episodes),
        guided=sum(bool(r.shown) for r in episodes),
        prompt_hits=sum(any(row["place"] == "prompt" for row in r.shown) for r in episodes),
        level_hits=Counter[Level](level for r in episodes for level in LEVELS if any(row["level"] == level for row in r.shown)),
        stops=Counter(r.stop or "" for r in episodes),
    )


_SUMMED = (
    *("searches", "failed_searches", "repeated_queries", "lookups", "lookup_failures"),
    *("dropped", "e1_repeats", "completion_tokens"),
)


def share(part: float, whole: float) -> float:
    """Return a share, 0 of nothing."""
    return part / whole if whole else 0.0
