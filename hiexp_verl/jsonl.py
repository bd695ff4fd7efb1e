"""JSON lines in and out: read with line numbers in every error, written atomically."""

import errno
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from hiexp_verl import fields
from hiexp_verl.errors import HiExpError
from hiexp_verl.rows import BadRow, read_rows
from hiexp_verl.types import Passage, Question, Trajectory, to_json

logger = logging.getLogger(__name__)

def read_jsonl(path: Path, what: str, halves: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) of a .jsonl or .jsonl.gz file; `halves` of characters are kept, or a fault.

    Raises:
        HiExpError: the file is missing, empty or damaged, or a line is not a JSON object.
    """
    if not path.is_file():
        raise HiExpError(f"{what} {path} does not exist; give the path of a JSON-lines file")
    empty = True
    for number, row in read_rows(path, halves):
        empty = False
        with _line(path, number):
            if isinstance(row, BadRow):
                raise row
        yield number, row
    if empty:
        raise HiExpError(f"{what} {path} is empty; it needs at least one line")


@contextmanager
def _line(path: Path, number: int) -> Iterator[None]:
    try:
        yield
    except BadRow as error:
        raise HiExpError(f"{path}:{number}: {error}") from error


def read_questions(path: Path) -> list[Question]:
    """Read questions: JSON lines with `id`, `question`, and `answer` or `answers` (or `golden_answers`), `answer_aliases` beside them.

    Raises:
        HiExpError: missing or empty file, malformed line, missing field, duplicate id.
    """
    questions: dict[str, Question] = {}
    for number, row in read_jsonl(path, "question file"):
        with _line(path, number):
            question = _question_of(row)
            if question.id in questions:
                raise BadRow(f"the id {question.id!r} occurs twice; ids must be unique")
        questions[question.id] = question
    return list(questions.values())


def _question_of(row: dict[str, Any]) -> Question:
    meta = fields.block(row, "meta")
    meta |= {k: v for k, v in row.items() if k not in ("id", "question", "meta", *fields.ANSWERS, fields.ALIASES)}
    return Question(fields.name(row, "id"), fields.text(row, "question"), fields.answers(row), meta)


def read_corpus(path: Path) -> list[Passage]:
    """Read a corpus: JSON lines (or .gz) with `id`, `title`, `text`.

    Raises:
        HiExpError: missing or empty file, malformed line, missing field.
    """
    passages = []
    for number, row in read_jsonl(path, "corpus"):
        with _line(path, number):
            text = str(fields.required(row, "text"))
            passages.append(Passage(str(fields.required(row, "id")), str(row.get("title") or ""), text))
    return passages


def read_trajectories(*paths: Path) -> Iterator[Trajectory]:
    """Yield trajectories, one JSON line each (see `Trajectory` for the fields); one without an id is numbered, across all files.

    Raises:
        HiExpError: missing or empty file, malformed line, missing field.
    """
    seen: dict[str, int] = {}
    for path in paths:
        for number, row in read_jsonl(path, "trajectory file"):
            with _line(path, number):
                trajectory = trajectory_of(row)
            sample = seen[trajectory.question_id] = seen.get(trajectory.question_id, -1) + 1
            yield replace(trajectory, id=trajectory.id or f"{trajectory.question_id}#{sample}")


def trajectory_of(row: dict[str, Any]) -> Trajectory:
    """Return the trajectory that a row holds; its id is "" when the row has none.

    Raises:
        BadRow: a field is missing or of the wrong type, or the question's id is empty.
    """
    messages = fields.messages(row)
    question_id = str(fields.required(row, "question_id"))
    if not question_id.strip():
        raise BadRow("the question_id is empty")  # trajectories of all such questions would pass for one question's
    return Trajectory(
        question_id=question_id,
        question=str(fields.required(row, "question")),
        answers=fields.answers(row),
        messages=messages,
        prediction=str(row.get("prediction") or ""),
        score=fields.number(row, "score"),
        correct=fields.flag(row, "correct"),
        model=str(row.get("model") or ""),
        id=str(row.get("id") or ""),
        extra=fields.block(row, "extra"),
    )
