"""JSON lines in and out: read with line numbers in every error, written atomically."""

import errno
import gzip
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from hiexp_verl.errors import HiExpError
from hiexp_verl.types import Passage, Question, Trajectory, to_json

# What the place refuses, whoever writes; anything else is a fault of ours.
_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line when `path` cannot be written: a full disk, a quota, a lack of permission.

    Raises:
        HiExpError: instead of the OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        raise HiExpError(f"{path} cannot be written ({error.strerror}); make room there or give another place, then run again") from error


@contextmanager
def atomic_writer(path: Path) -> Iterator[TextIO]:
    """Write a text file in full or not at all (temporary file beside it, fsync, rename).

    Raises:
        HiExpError: the disk is full, or does not let us write.
    """
    with writing(path), _replacing(path) as file:
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


def read_jsonl(path: Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) of a .jsonl or .jsonl.gz file.

    Raises:
        HiExpError: the file is missing, empty, or a line is not a JSON object.
    """
    if not path.is_file():
        raise HiExpError(f"{what} {path} does not exist; give the path of a JSON-lines file")
    empty = True
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                empty = False
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise HiExpError(f"{path}:{number}: not JSON ({error}); every line must be one object") from error
                if not isinstance(row, dict):
                    raise HiExpError(f"{path}:{number}: found {type(row).__name__}; every line must be a JSON object")
                yield number, row
    except (EOFError, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise HiExpError(f"{path}: the file is damaged ({error}); write or download it again") from error
    if empty:
        raise HiExpError(f"{what} {path} is empty; it needs at least one line")


def _field(row: dict[str, Any], key: str, where: str) -> Any:
    if key not in row or row[key] is None:
        raise HiExpError(f"{where}: no field {key!r}; found {sorted(row)}")
    return row[key]


def _number(row: dict[str, Any], key: str, where: str) -> float:
    value = _field(row, key, where)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise HiExpError(f"{where}: {key!r} must be a number, found {value!r}")
    return float(value)


def _flag(row: dict[str, Any], key: str, where: str) -> bool:
    value = _field(row, key, where)
    if not isinstance(value, bool):
        raise HiExpError(f"{where}: {key!r} must be true or false, found {value!r}")
    return value


def _block(row: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    value = row.get(key) or {}
    if not isinstance(value, dict):
        raise HiExpError(f"{where}: {key!r} must be an object, found {value!r}")
    return dict(value)


def _answers(row: dict[str, Any], where: str) -> tuple[str, ...]:
    value = row.get("answers", row.get("answer"))
    values = value if isinstance(value, list) else [value]
    answers = tuple(str(v).strip() for v in values if v is not None and str(v).strip())
    if not answers:
        raise HiExpError(f"{where}: no answer; give 'answer' (text) or 'answers' (a list)")
    return answers


def read_questions(path: Path) -> list[Question]:
    """Read questions: JSON lines with `id`, `question` and `answer` or `answers`.

    Raises:
        HiExpError: missing or empty file, malformed line, missing field, duplicate id.
    """
    questions: dict[str, Question] = {}
    for number, row in read_jsonl(path, "question file"):
        where = f"{path}:{number}"
        question_id = str(_field(row, "id", where))
        if question_id in questions:
            raise HiExpError(f"{where}: the id {question_id!r} occurs twice; ids must be unique")
        text = str(_field(row, "question", where)).strip()
        if not text:
            raise HiExpError(f"{where}: the question is empty")
        meta = _block(row, "meta", where)
        meta |= {k: v for k, v in row.items() if k not in ("id", "question", "answer", "answers", "meta")}
        questions[question_id] = Question(question_id, text, _answers(row, where), meta)
    return list(questions.values())


def read_corpus(path: Path) -> list[Passage]:
    """Read a corpus: JSON lines (or .gz) with `id`, `title`, `text`.

    Raises:
        HiExpError: missing or empty file, malformed line, missing field.
    """
    passages = []
    for number, row in read_jsonl(path, "corpus"):
        where = f"{path}:{number}"
        text = str(_field(row, "text", where))
        passages.append(Passage(str(_field(row, "id", where)), str(row.get("title") or ""), text))
    return passages


def read_trajectories(path: Path) -> Iterator[Trajectory]:
    """Yield trajectories, one JSON line each (see `Trajectory` for the fields).

    Raises:
        HiExpError: missing or empty file, malformed line, missing field.
    """
    seen: dict[str, int] = {}
    for number, row in read_jsonl(path, "trajectory file"):
        where = f"{path}:{number}"
        messages = _field(row, "messages", where)
        if not isinstance(messages, list) or not all(isinstance(m, dict) and "role" in m for m in messages):
            raise HiExpError(f"{where}: 'messages' must be a list of objects with 'role' and 'content'")
        question_id = str(_field(row, "question_id", where))
        sample = seen[question_id] = seen.get(question_id, -1) + 1
        yield Trajectory(
            question_id=question_id,
            question=str(_field(row, "question", where)),
            answers=_answers(row, where),
            messages=tuple(messages),
            prediction=str(row.get("prediction") or ""),
            score=_number(row, "score", where),
            correct=_flag(row, "correct", where),
            model=str(row.get("model") or ""),
            id=str(row.get("id") or f"{question_id}#{sample}"),
            extra=_block(row, "extra", where),
        )
