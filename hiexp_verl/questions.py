"""Question files of either kind: JSON lines, or the parquet that verl and Search-R1 train on."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hiexp_verl import fields
from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.jsonl import read_questions
from hiexp_verl.rows import BadRow
from hiexp_verl.types import Question


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
    for number, row in enumerate(_rows(path)):
        try:
            question = _question_of(row, number)
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


def _rows(path: Path) -> list[dict[str, Any]]:
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


def _question_of(row: Mapping[str, Any], number: int) -> Question:
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
