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

# What the place refuses, whoever writes; anything else is a fault of ours.
_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


_FULL = {errno.ENOSPC, errno.EDQUOT}
UNCHANGED = "nothing was changed"


@contextmanager
def writing(path: Path, so: str = "") -> Iterator[None]:
    """Say in one line when `path` cannot be written: a full disk, a quota, a lack of permission; `so` adds what that means.

    Raises:
        HiExpError: instead of the OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        fault = "disk full: " if error.errno in _FULL else ""
        why = f"{path} cannot be written ({error.strerror}){so and ', '}{so}"
        raise HiExpError(f"{fault}{why}; make room there or give another place, then run again") from error


def make_folder(path: Path) -> None:
    """Make a directory, with those above it, where there is none.

    Raises:
        HiExpError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HiExpError(f"the directory {path} cannot be made ({error.strerror}); give another one") from error


@contextmanager
def atomic_writer(path: Path) -> Iterator[TextIO]:
    """Write a text file in full or not at all (temporary file beside it, fsync, rename).

    Raises:
        HiExpError: the disk is full, or does not let us write.
    """
    with writing(path, UNCHANGED), _replacing(path) as file:
        yield file


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp makes files that nobody else can read
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_jsonl(path: Path, records: Iterable[Any]) -> int:
    """Write records (dicts or our dataclasses) as JSON lines, atomically; return how many."""
    count = 0
    with atomic_writer(path) as file:
        for record in records:
            row = record if isinstance(record, dict) else to_json(record)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def append_line(file: TextIO, row: Any) -> None:
    """Write one row and wait until it is on disk; the file is opened within `writing`, for on a full disk its closing fails as well."""
    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    file.flush()
    os.fsync(file.fileno())


def drop_torn_line(path: Path) -> None:
    """Cut off a last line that was not written in full, as a kill leaves it."""
    with path.open("rb+") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            logger.warning("%s: dropping %d bytes of a line that was not written in full", path, len(content) - end)
            file.truncate(end)


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
