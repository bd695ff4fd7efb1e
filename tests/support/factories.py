"""Small records for tests; give only what the test is about."""

from collections.abc import Sequence
from typing import Any

from hiexp_verl.hek import HEK, Header
from hiexp_verl.models.encoder import Encoder
from hiexp_verl.types import Entry, Hit, Level, Passage, Question, Trajectory


def question(
    id: str = "q1", question: str = "What is the capital of France?", answers: tuple[str, ...] = ("Paris",), **meta: Any
) -> Question:
    return Question(id, question, answers, meta)


def passage(id: str = "p1", title: str = "Paris", text: str = "Paris is the capital of France.") -> Passage:
    return Passage(id, title, text)


def trajectory(question_id: str = "q1", correct: bool = True, messages: tuple[dict[str, Any], ...] = (), **fields: Any) -> Trajectory:
    values: dict[str, Any] = {
        "question": "What is the capital of France?",
        "answers": ("Paris",),
        "prediction": "Paris" if correct else "Rome",
        "score": 1.0 if correct else 0.1,
        "model": "test",
        "id": f"{question_id}#0",
    }
    return Trajectory(question_id=question_id, correct=correct, messages=messages, **(values | fields))


def entry(
    id: str = "e1-a",
    level: Level = "e1",
    title: str = "capital of a country",
    description: str = "Search the country first.",
    **fields: Any,
) -> Entry:
    return Entry(id, level, title, description, **fields)


def hit(id: str = "e1-a", score: float = 0.9, level: Level = "e1", description: str = "", **fields: Any) -> Hit:
    return Hit(entry(id, level, description=description or f"Do {id}.", **fields), score)


def hek_of(entries: Sequence[Entry], encoder: Encoder) -> HEK:
    """A HEK whose vectors are the encoder's for the titles."""
    return HEK(Header(encoder.identity), tuple(entries), encoder.encode_passages([each.title for each in entries]))
