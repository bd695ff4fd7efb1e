"""JSON lines in and out: read with line numbers in every error, written atomically.

Question files of either kind: JSON lines, or the parquet that verl and Search-R1 train on."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.io import rows as fields
from hiexp_verl.io.rows import BadRow, read_rows
from hiexp_verl.types import Passage, Question, Trajectory

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


def read_question_file(path: Path) -> list[Question]:
    """Read questions from JSON lines (see `jsonl.read_questions`) or parquet.

    A parquet row has `question` or verl's `prompt`, its answers as there or in verl's `reward_model.ground_truth`, its id in `id` or
    `extra_info`; without one it is numbered.

    Raises:
        HiExpError: missing or empty file, malformed row, missing field, duplicate id.
    """
    if path.suffix != ".parquet":
        return read_questions(path)
    questions: dict[str, Question] = {}
    for number, row in enumerate(_parquet_rows(path)):
        try:
            question = _parquet_question(row, number)
        except BadRow as error:
            raise HiExpError(f"{path}, row {number}: {error}") from error
        if question.id in questions:
            raise HiExpError(f"{path}, row {number}: the id {question.id!r} occurs twice; ids must be unique")
        questions[question.id] = question
    if not questions:
        raise HiExpError(f"question file {path} is empty; it needs at least one row")
    return list(questions.values())


def without_instructions(text: str) -> str:
    """Return what follows the last "Question:", where other preprocessors (Search-R1's) put it; a bare question as it is."""
    return text.rpartition("Question:")[2].strip()


def asked_twice(questions: Sequence[Question]) -> list[list[str]]:
    """Return the ids of questions that have the same words."""
    ids: dict[str, list[str]] = defaultdict(list)
    for question in questions:
        ids[" ".join(question.question.casefold().split())].append(question.id)
    return [same for same in ids.values() if len(same) > 1]


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise HiExpError(f"question file {path} does not exist; give the path of a JSON-lines or parquet file")
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError as error:
        raise HiExpError(f"{path} needs pyarrow, which is not installed; install it (verl has it), or give JSON lines") from error
    try:
        return read_table(path).to_pylist()
    except (ArrowException, OSError) as error:
        raise HiExpError(f"{path} is no parquet file ({first_line(error)}); give the path of a JSON-lines or parquet file") from error


def _parquet_question(row: Mapping[str, Any], number: int) -> Question:
    row = {key: value for key, value in row.items() if value is not None}  # a table has every column in every row
    extra = fields.block(row, "extra_info")
    name = next((v for v in (row.get("id"), extra.get("question_id"), extra.get("index")) if v is not None), number)
    if "question" not in row:
        asked = [m["content"] for m in row.get("prompt") or () if isinstance(m, dict) and m.get("role") == "user" and m.get("content")]
        if found := extra.get("question") or (without_instructions(asked[-1]) if asked else None):
            row["question"] = found
    meta = {"split": extra["split"]} if extra.get("split") else {}
    return Question(fields.name({"id": name}, "id"), fields.text(row, "question"), answers_of(row), meta)


def answers_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the answers of a parquet row.

    Raises:
        BadRow: there are none.
    """
    truth = fields.block(row, "reward_model").get("ground_truth")
    truth = truth.get("target") if isinstance(truth, dict) else truth
    return fields.answers({**row, "answer": row["answer"] if fields.filled(row.get("answer")) else truth})
