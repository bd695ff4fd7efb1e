"""OpenAI-style message lists: `{"messages": [...], "answer": ...}`."""

import re
from collections.abc import Sequence
from typing import Any

from hiexp_verl.domains.domain import Domain
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.importers.turns import as_turns, in_our_words
from hiexp_verl.io.questions import ANSWER_FIELDS, answers_of, bare_question, question_id_of, unwrapped
from hiexp_verl.io.rows import BadRow, Row, bool_field, messages_field, number_field, text_field
from hiexp_verl.protocol import makes_call
from hiexp_verl.scoring import without_sources
from hiexp_verl.text import text_of
from hiexp_verl.types import Message, Trajectory

_KNOWN = {*ANSWER_FIELDS, "messages", "question", "question_id", "prediction", "score", "correct", "model", "id"}


def from_messages(row: dict[str, Any], domain: Domain = SEARCH) -> Trajectory:
    """Return the trajectory of a row with `messages` and `answer` or `answers`; other fields go to `extra`.

    Optional: `question` (else the first user message), `question_id`, `id`, `model`, `prediction` (else the last answer
    in the messages), `score` and `correct` (else the prediction is scored).

    Raises:
        BadRow: a message, the question or the answer is missing, or a field has the wrong type.
    """
    messages = [_of_gemini(message) if "parts" in message else message for message in messages_field(row)]
    messages = [*map(in_our_words, messages)]
    if not any(message["role"] == "assistant" for message in messages):
        raise BadRow("no assistant message")
    asked = (bare_question(text_of(message)) for message in messages if message["role"] == "user")
    question = unwrapped(text_field(row, "question")) if row.get("question") is not None else next(asked, "")
    if not question:
        raise BadRow("no question", "give 'question', or a user message")
    return scored(row, messages, question, domain)


def _of_gemini(message: Message) -> Message:
    return {"role": "assistant" if message["role"] == "model" else message["role"], "content": message["parts"]}


def scored(row: Row, messages: Sequence[Message], question: str, domain: Domain = SEARCH) -> Trajectory:
    """Return the trajectory of the messages; answers, prediction, label and ids are those of the row, see `from_messages`."""
    answers, messages = answers_of(row), as_turns(messages)
    written = str(row.get("prediction") or "").strip()
    prediction = text_field(row, "prediction") if written else domain.final_answer(messages) or untagged_answer(messages, domain)
    label = domain.score(prediction, answers, "concise", question)
    correct = bool_field(row, "correct") if row.get("correct") is not None else None
    reward = label.reward if correct is None else float(correct)
    return Trajectory(
        question_id=str(row.get("question_id") or question_id_of(question)),
        question=question,
        answers=answers,
        messages=messages,
        prediction=prediction,
        score=number_field(row, "score") if row.get("score") is not None else reward,
        correct=label.correct if correct is None else correct,
        model=str(row.get("model") or ""),
        id=str(row.get("id") or ""),
        extra={key: value for key, value in row.items() if key not in _KNOWN} | domain.mark,
    )


_UNTAGGED = re.compile(
    r"<final_answer>(?s:(.*?))(?:</final_answer>|\Z)|\b(?:final )?answer(?:\W{0,6}[:=]| is:?)\W*(\S.*)|\bFinish\[(.*)\]"
    r"|^[#*_ \t]*(?:\d+[.)]\s*)?(?:the )?(?:final |short )?answer[#*_ \t]*\n\W*(\S.*)",  # a heading
    re.IGNORECASE | re.MULTILINE,
)

_AROUND = ' *`"}'  # of an untagged answer


def untagged_answer(messages: Sequence[Message], domain: Domain) -> str:
    """Return the answer that the last turn gives without our tags: "Final Answer: Sava", "Finish[Sava]"; "" where there is none."""
    if not messages or messages[-1]["role"] != "assistant" or makes_call(messages[-1]):
        return ""
    found = _UNTAGGED.findall(domain.last_turn(text_of(messages[-1])))
    return next((answer for each in found[-1] if (answer := _bare(without_sources(each)))), "") if found else ""


def _bare(answer: str) -> str:
    return answer.strip(_AROUND).removesuffix(".").strip(_AROUND)
