"""Reads questions, passages and trajectories from files; one function per kind converts a row of any known format."""

import hashlib
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from reprlib import repr as brief
from typing import Any, TypeVar

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.questions import ID_FIELDS, answers_of, is_answerable, question_id_of, question_of, unwrapped
from hiexp_verl.io.rows import (
    KINDS,
    BadRow,
    Row,
    bool_field,
    file_kind,
    messages_field,
    number_field,
    object_field,
    read_rows,
    read_table,
    required,
)
from hiexp_verl.types import Passage, Question, Trajectory

MAX_TITLE_CHARS = 200  # of a title in `contents`; a longer first line is text
logger = logging.getLogger(__name__)

Converted = TypeVar("Converted")


def read_records(path: Path, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, row) of a file of JSON lines (plain or gzip), a JSON file with one list, a parquet file, or a table.

    Raises:
        HiExpError: the file is missing, empty or damaged, or a row is not an object.
    """
    if not path.is_file():
        raise HiExpError(f"{what} {path} does not exist; give the path of a file of {KINDS}")
    if file_kind(path) == "lines":
        rows = ((f"{path}:{number}", row) for number, row in read_rows(path))
    else:
        rows = ((f"{path}, row {number}", row) for number, row in read_table(path))
    yield from _usable(rows, path, what, f"; give {KINDS}")


def read_jsonl(path: Path, what: str, surrogates: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, row) of a file of JSON lines, plain or gzip; lone surrogates are a fault, unless `surrogates` are wanted.

    Raises:
        HiExpError: the file is missing, empty or damaged, or a line is not a JSON object.
    """
    if not path.is_file():
        raise HiExpError(f"{what} {path} does not exist; give the path of a JSON-lines file")
    if (kind := file_kind(path)) in ("parquet", "list"):
        raise HiExpError(f"{what} {path} is {'a parquet file' if kind == 'parquet' else 'one JSON list'}; give JSON lines")
    yield from _usable(((f"{path}:{number}", row) for number, row in read_rows(path, surrogates)), path, what)


def _usable(
    rows: Iterable[tuple[str, dict[str, Any] | BadRow]], path: Path, what: str, kinds: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, row); `kinds` is what to give instead of a file whose first row is not JSON."""
    empty = True
    for place, row in rows:
        if isinstance(row, BadRow):
            raise HiExpError(f"{place}: {row}{kinds if empty and row.wrong == 'not JSON' else ''}") from row
        empty = False
        yield place, row
    if empty:
        raise HiExpError(f"{what} {path} is empty; it needs at least one row")


def _at(place: str, convert: Callable[..., Converted], *arguments: Any) -> Converted:
    try:
        return convert(*arguments)
    except BadRow as error:
        raise HiExpError(f"{place}: {error}") from error


def read_questions(path: str | Path) -> list[Question]:
    """Return the questions of a file of JSON lines, a JSON list, parquet or a table; see `question_of` for the fields.

    Rows marked as questions without an answer are left out and counted.

    Raises:
        HiExpError: missing or empty file, malformed row, missing field, duplicate id.
    """
    questions: dict[str, Question] = {}
    left_out = 0
    for place, row in read_records(Path(path), "question file"):
        if not _at(place, is_answerable, row):
            left_out += 1
            continue
        question = _at(place, question_of, row)
        if question.id in questions:
            if question.id == question_id_of(question.question):
                raise HiExpError(f"{place}: has no id, and asks what an earlier row asks; remove it, or give all rows ids")
            raise HiExpError(f"{place}: the id {question.id!r} occurs twice; ids must be unique")
        questions[question.id] = question
    if left_out:
        logger.warning("%s: %d rows are marked as questions without an answer; they are left out", path, left_out)
    if not questions:
        raise HiExpError(f"{path} has no question with an answer; it needs at least one")
    return list(questions.values())


def repeated_questions(questions: Sequence[Question]) -> list[list[str]]:
    """Return the groups of ids whose questions have the same words."""
    ids: dict[str, list[str]] = defaultdict(list)
    for question in questions:
        ids[" ".join(question.question.casefold().split())].append(question.id)
    return [same for same in ids.values() if len(same) > 1]


def read_corpus(path: Path, most: int | None = None) -> list[Passage]:
    """Return the passages of a file of JSON lines (or .gz), a JSON list, parquet or a table; see `passage_of` for the fields.

    With `most`, only so many are read.

    Raises:
        HiExpError: missing or empty file, malformed row, missing field.
    """
    return [_at(place, passage_of, row) for place, row in islice(read_records(path, "corpus"), most)]


def _joined(value: Any) -> str | None:
    """Return a text, or the texts of a list of paragraphs or sentences as one; None for anything else."""
    if isinstance(value, list) and value and all(parts := [_joined(each) for each in value]):
        return " ".join(part.strip() for part in parts if part)
    return value if isinstance(value, str) else None


_TWO_QUOTED = re.compile(r'"[^"]*[^"\s]"(?:\s.*)?\s"[^"\s][^"]*"', re.DOTALL)  # '"Heroes" and "Low"': no quotes around a title


def _unquoted(title: str) -> str:
    """Return a title without the quotes around it; inner quotes belong to it."""
    wrapped = len(title) > 1 and title[0] == title[-1] == '"' and not _TWO_QUOTED.fullmatch(title)
    return title[1:-1] if wrapped else title


def passage_of(row: Row) -> Passage:
    """Return the passage of a row of a corpus or of a retrieval server.

    It has `text`, also as a list of paragraphs (and `title`), or Search-R1's `contents` (some of its servers write `content`): the
    title in quotes, a line break, the text. Its id is `id` or `_id`, else made of its content.

    Raises:
        BadRow: there is no text.
    """
    title = str(row.get("title") or "").strip()
    title = _unquoted(title) if title.startswith('""') else title  # else the quotes may be its own
    contents = next((row[key] for key in ("contents", "content") if isinstance(row.get(key), str)), None)
    if (own := _joined(row.get("text"))) is not None:
        text = own
    elif contents is not None:
        first, ends, text = contents.partition("\n")
        if not ends or len(first) > MAX_TITLE_CHARS:  # one line, or a first line too long for a title
            first, text = "", contents
        first = _unquoted(first.strip())
        title, text = (title, contents) if title and title != first else (first, text)
    else:
        raise BadRow("no field 'text' or 'contents' with a text", f"found {brief(sorted(row))}")
    name = next((row[key] for key in ID_FIELDS if row.get(key) is not None), None)
    if name is None:
        name = hashlib.sha256(f"{title}\n{text}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return Passage(str(name), title, text)


def read_trajectories(*paths: str | Path) -> Iterator[Trajectory]:
    """Yield trajectories, one JSON line each (see `Trajectory` for the fields); missing ids are numbered per question, across files.

    Raises:
        HiExpError: missing or empty file, malformed line, missing field.
    """
    seen: dict[str, int] = {}
    for path in map(Path, paths):
        for place, row in read_jsonl(path, "trajectory file"):
            trajectory = _at(place, trajectory_of, row)
            sample = seen[trajectory.question_id] = seen.get(trajectory.question_id, -1) + 1
            yield replace(trajectory, id=trajectory.id or f"{trajectory.question_id}#{sample}")


def trajectory_of(row: dict[str, Any]) -> Trajectory:
    """Return the trajectory that a row holds; its id is "" when the row has none.

    Raises:
        BadRow: a field is missing or of the wrong type, or the question's id is empty.
    """
    messages = messages_field(row)
    question_id = str(required(row, "question_id"))
    if not question_id.strip():
        raise BadRow("the question_id is empty")  # all such questions would count as one
    return Trajectory(
        question_id=question_id,
        question=unwrapped(str(required(row, "question"))),
        answers=answers_of(row),
        messages=messages,
        prediction=str(row.get("prediction") or ""),
        score=number_field(row, "score"),
        correct=bool_field(row, "correct"),
        model=str(row.get("model") or ""),
        id=str(row.get("id") or ""),
        extra=object_field(row, "extra"),
    )
