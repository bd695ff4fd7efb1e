"""What a domain is: how its episodes are written, read and scored, how a failure is diagnosed, how names are masked, and its texts.

Everything else in the package takes a `Domain` and asks it. What is not given has a default for single-turn episodes whose answers
are compared as words.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hiexp_verl import masking, scoring
from hiexp_verl.config import RewardKind, SearchConfig
from hiexp_verl.domains.diagnosis import Contrast, Diagnosis
from hiexp_verl.models.encoder import Encoder
from hiexp_verl.protocol import FORMATS, Format, first_messages
from hiexp_verl.scoring import Score, own_words, strip_tool_text
from hiexp_verl.search import SearchFailed
from hiexp_verl.text import text_of
from hiexp_verl.types import Message, Plan, Question, Trajectory

UNMARKED = "search"  # the domain of HEKs, trajectories and runs that name none
ToolFailed = SearchFailed  # what a tool raises that could not be run: counted, and answered by `Tool.failed`; the episode goes on


@dataclass(frozen=True)
class Use:
    """One call of a tool: what is asked of it, in which episode, and what the tool runs on."""

    call: str
    question: Question
    format: Format
    engine: Any  # what `Tool.open` returned
    reading: SearchConfig  # how much of a result the model reads


@dataclass(frozen=True, kw_only=True)
class Tool:
    """The tool of a domain: a call stands between two tags in the text of the model, its answer is the next message.

    A domain whose calls look the same in every dialect ignores `format`.
    """

    tags: Callable[[Format], tuple[str, str]]  # opening and closing tag of a call; the closing one ends a turn
    call_in: Callable[[str, Format], str | None]  # the first call in a text that is run, None without one
    write_call: Callable[[str, Format], str]
    answer: Callable[[Use], str]  # what the model reads, in a thread; raises ToolFailed
    failed: Callable[[str, Format], str]  # what it reads instead, by the reason
    open: Callable[[SearchConfig, Encoder | None], tuple[Any, str]]  # the engine, and its identity: a resumed run must have the same
    found_nothing: Callable[[str], bool] = lambda answer: not answer.strip()  # a precondition of E1 asks it


def _none(_: Any) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Domain:
    """A kind of task. All that is of a domain is a field here."""

    name: str  # kept in HEKs, trajectories and checkpoints
    # How an episode is written and read.
    system_prompt: Callable[[Format], str]
    answer_in: Callable[[str], str | None] = scoring.extract_answer  # the final answer in the model's own words, None without one
    actions: Callable[[Sequence[Message]], Sequence[str]] = lambda messages: ()  # searches, statements or steps of an episode, in order
    action: tuple[str, str] = ("step", "steps")  # what one is called, and several
    tool: Tool | None = None  # None: an episode is one turn, and experience has no place beside a tool's answer
    # How it is scored.
    score: Callable[[str | None, Sequence[str], RewardKind, str], Score] = scoring.score  # answer, gold answers, measure, question
    score_blocks: bool = False  # scoring may take seconds: it is done in a thread
    check: Callable[[], None] = lambda: None  # before a run: raises HiExpError where scoring lacks what it needs
    normalise: Callable[[str], str] = scoring.normalise  # answers that are equal by this are the same answer
    # A text without the answers, which the question does not give; what it changes gives an answer away.
    redact: Callable[[str, Sequence[str], str], str] = masking.redact
    # How experience is matched: names and numbers masked.
    kind_of: Callable[[str], str] = masking.kind_of  # a question as others of its kind are asked; "": no kind
    name_of: Callable[[str], str] = masking.name_of  # the one name in it that a plan is made for, ""
    # What went wrong, and what is advised; used by the builder alone.
    diagnose: Callable[[Contrast, int], list[Diagnosis]]  # at most so many diagnoses with different findings
    plan_of: Callable[[Diagnosis], Plan | None] = _none  # what a success did, as a template
    plan_in: Callable[[Trajectory], tuple[str, ...] | None] = _none  # the actions of an episode, as such a template
    meanings: Mapping[str, str]  # of each finding, in words for a distiller
    texts: Mapping[str, str] = field(repr=False)  # rules_e1.jsonl and so on, by file name; see `hiexp_verl/prompts`

    @property
    def mark(self) -> dict[str, str]:
        """What a trajectory, a header or a manifest of this domain says of it; the search domain, which was the only one, is not named."""
        return {} if self.name == UNMARKED else {"domain": self.name}

    def first_messages(self, question: str, format: Format, instructions: str = "") -> list[Message]:
        """Return a fresh [system, user] pair; the user message is the bare question. `instructions` replace the domain's own."""
        return first_messages(question, format, instructions or self.system_prompt(format))

    def answering_text(self, turns: Sequence[str], *formats: str) -> str:
        """Return the text in which an answer counts: the last turn's own words, none of them if that turn calls the tool.

        An answer beside a call is a guess before the evidence. Only calls of these dialects are recognised. Without a tool a turn may
        hold experience between its steps, which are one text.
        """
        dialects: list[Format] = [format for format in FORMATS if format in formats]
        if not turns or (self.tool is not None and any(self.tool.call_in(turns[-1], format) is not None for format in dialects)):
            return ""
        return strip_tool_text(turns[-1])

    def last_turn(self, *texts: str) -> str:
        """Return the text in which the answer of an episode in whatever dialect counts; a text may hold several turns."""
        turns = [turn for text in texts for turn in (own_words(text) if self.tool is not None else [text]) if turn.strip()]
        return self.answering_text(turns, *FORMATS)

    def final_answer(self, messages: Sequence[Message]) -> str:
        """Return the answer of an episode in whatever dialect, "" where there is none; a message may hold several turns."""
        written = [message for message in messages if message.get("role") == "assistant"]
        if written and written[-1].get("tool_calls"):
            return ""
        return self.answer_in(self.last_turn(*map(text_of, written))) or ""


def texts_in(folder: Path) -> dict[str, str]:
    """Return the texts of the files of a folder, by name."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.iterdir()) if path.is_file()}
