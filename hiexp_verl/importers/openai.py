"""OpenAI-style message lists: `{"messages": [...], "answer": ...}`."""

from collections.abc import Sequence
from typing import Any

from hiexp_verl.io.datasets import ANSWER_FIELDS, answers_of, bare_question, question_id_of
from hiexp_verl.io.rows import BadRow, Row, bool_field, messages_field, number_field, text_field
from hiexp_verl.protocol import final_answer
from hiexp_verl.scoring import score
from hiexp_verl.text import text_of
from hiexp_verl.types import Message, Trajectory

_KNOWN = {*ANSWER_FIELDS, "messages", "question", "question_id", "prediction", "score", "correct", "model", "id"}


def from_messages(row: dict[str, Any]) -> Trajectory:
    """Return the trajectory of a row with `messages` and `answer` or `answers`; other fields go to `extra`.

    Optional: `question` (else the first user message), `question_id`, `id`, `model`, `prediction` (else the last answer
    in the messages), `score` and `correct` (else the prediction is scored).

    Raises:
        BadRow: a message, the question or the answer is missing, or a field has the wrong type.
    """
    messages = messages_field(row)
    if not any(message["role"] == "assistant" for message in messages):
        raise BadRow("no assistant message")
    asked = (bare_question(text_of(message)) for message in messages if message["role"] == "user")
    question = text_field(row, "question") if row.get("question") is not None else next(asked, "")
    if not question:
        raise BadRow("no question", "give 'question', or a user message")
    return scored(row, messages, question)


def scored(row: Row, messages: Sequence[Message], question: str) -> Trajectory:
    """Return the trajectory of the messages; answers, prediction, label and ids are those of the row, see `from_messages`."""
    answers = answers_of(row)
    prediction = text_field(row, "prediction") if str(row.get("prediction") or "").strip() else final_answer(messages)
    label = score(prediction, answers, question=question)
    correct = bool_field(row, "correct") if row.get("correct") is not None else None
    reward = label.reward if correct is None else float(correct)
    return Trajectory(
        question_id=str(row.get("question_id") or question_id_of(question)),
        question=question,
        answers=answers,
        messages=tuple(messages),
        prediction=prediction,
        score=number_field(row, "score") if row.get("score") is not None else reward,
        correct=label.correct if correct is None else correct,
        model=str(row.get("model") or ""),
        id=str(row.get("id") or ""),
        extra={key: value for key, value in row.items() if key not in _KNOWN},
    )
