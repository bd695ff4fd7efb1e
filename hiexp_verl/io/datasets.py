"""Reads questions, passages and trajectories from files; one function per kind converts a row of any known format."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from reprlib import repr as brief
from typing import Any, TypeVar

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.rows import (
    BadRow,
    Row,
    bool_field,
    file_kind,
    id_field,
    messages_field,
    number_field,
    object_field,
    read_rows,
    read_table,
    required,
    text_field,
)
from hiexp_verl.scoring import em, normalise
from hiexp_verl.text import text_of
from hiexp_verl.types import Message, Passage, Question, Trajectory

Converted = TypeVar("Converted")
ANSWER_FIELDS = ("answers", "golden_answers", "answer")  # the first that is not blank counts
_ALIASES = "answer_aliases"  # further answers, beside any of them
_ID_FIELDS = ("id", "_id")
# Columns that `question_of` or verl reads; the others are kept as `meta`.
_READ = {*_ID_FIELDS, "question", "meta", *ANSWER_FIELDS, _ALIASES, "prompt", "reward_model", "extra_info", "ability"}


def read_records(path: Path, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, row) of a file of JSON lines (plain or gzip), a JSON file with one list, or a parquet file.

    Raises:
        HiExpError: the file is missing, empty or damaged, or a row is not an object.
    """
    if not path.is_file():
        raise HiExpError(f"{what} {path} does not exist; give the path of a JSON-lines, JSON or parquet file")
    if file_kind(path) == "lines":
        yield from read_jsonl(path, what)
    else:
        yield from _usable(((f"{path}, row {number}", row) for number, row in read_table(path)), path, what)


def read_jsonl(path: Path, what: str, surrogates: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, row) of a file of JSON lines, plain or gzip; lone surrogates are a fault, unless `surrogates` are wanted.

    Raises:
        HiExpError: the file is missing, empty or damaged, or a line is not a JSON object.
    """
    if not path.is_file():
        raise HiExpError(f"{what} {path} does not exist; give the path of a JSON-lines file")
    yield from _usable(((f"{path}:{number}", row) for number, row in read_rows(path, surrogates)), path, what)


def _usable(rows: Iterable[tuple[str, dict[str, Any] | BadRow]], path: Path, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    empty = True
    for place, row in rows:
        empty = False
        if isinstance(row, BadRow):
            raise HiExpError(f"{place}: {row}") from row
        yield place, row
    if empty:
        raise HiExpError(f"{what} {path} is empty; it needs at least one row")


def _at(place: str, convert: Callable[..., Converted], *arguments: Any) -> Converted:
    try:
        return convert(*arguments)
    except BadRow as error:
        raise HiExpError(f"{place}: {error}") from error


def read_questions(path: str | Path) -> list[Question]:
    """Return the questions of a file of JSON lines, a JSON list or parquet; see `question_of` for the fields.

    Raises:
        HiExpError: missing or empty file, malformed row, missing field, duplicate id.
    """
    questions: dict[str, Question] = {}
    for place, row in read_records(Path(path), "question file"):
        question = _at(place, question_of, row)
        if question.id in questions:
            raise HiExpError(f"{place}: the id {question.id!r} occurs twice; ids must be unique")
        questions[question.id] = question
    return list(questions.values())


def question_of(row: Row) -> Question:
    """Return the question of a row of ours, of Search-R1 or of verl; files and training read it alike.

    - text: `question`, else that of `extra_info`, else the bare question of verl's `prompt`, which must ask the same
    - answers: `answers`, `golden_answers` or `answer`, else the `answers` of `extra_info`, else verl's
      `reward_model.ground_truth`, which must share one with them; `answer_aliases` are added
    - id: `id` or `_id`, else the `question_id` of `extra_info`, else made of the text

    Raises:
        BadRow: a field is missing, of the wrong type, or contradicts another.
    """
    name, text = asked_in(row)
    meta = object_field(row, "meta") | {key: value for key, value in row.items() if key not in _READ}
    split = object_field(row, "extra_info").get("split")
    return Question(name, text, answers_of(row), meta | ({"split": split} if split else {}))


def asked_in(row: Row) -> tuple[str, str]:
    """Return the id and the text of the question of a row; see `question_of` for the fields.

    Raises:
        BadRow: there is no question, it is not a text, or the prompt asks another.
    """
    extra, prompt = object_field(row, "extra_info"), row.get("prompt")
    text = row.get("question") or question_in(prompt, extra)
    text = text_field({**row, "question": text} if text else row, "question")
    asked = "\n".join(map(text_of, _users(prompt)))
    if asked and text not in asked and normalise(text) not in normalise(asked):
        raise BadRow("the prompt does not hold the row's question", f"found {brief(asked)} and {brief(text)}")
    names = (*(row.get(key) for key in _ID_FIELDS), *_filled(extra.get("question_id")), question_id_of(text))
    return id_field({"id": next(name for name in names if name is not None)}, "id"), text


def answers_of(row: Row) -> tuple[str, ...]:
    """Return the gold answers of a row; see `question_of` for the fields.

    Raises:
        BadRow: there is none, one is neither a text nor a number, or verl's ground truth is another.
    """
    answers, truth = gold_answers(answers_in(row)), _truth(row)
    if truth and not any(em(each, answers) for each in gold_answers(truth)):
        raise BadRow("reward_model.ground_truth and the row's answers have none in common", f"found {brief(truth)} and {brief(answers)}")
    return answers


def answers_in(row: Row) -> list[Any]:
    """Return the answers of a row as they are written, unchecked; none where there are none."""
    values = (*(row.get(key) for key in ANSWER_FIELDS), object_field(row, "extra_info").get("answers"), _truth(row))
    return _filled([next((value for value in values if _filled(value)), None), row.get(_ALIASES)])


def _truth(row: Row) -> list[Any]:
    return _filled(object_field(row, "reward_model").get("ground_truth"))


def gold_answers(value: Any) -> tuple[str, ...]:
    """Return the answers in a value: a text, a number, Search-R1's `{"target": ...}`, or a list of such; each once, stripped.

    Raises:
        BadRow: there is none, or one is neither a text nor a number.
    """
    values = _filled(value)
    if odd := [v for v in values if isinstance(v, bool | Mapping) or (isinstance(v, float) and not math.isfinite(v))]:
        raise BadRow("an answer must be a text or a number", f"found {brief(odd[0])}")
    if not values:
        raise BadRow("no answer", "give 'answer' (text) or 'answers' (a list)")
    # A column of numbers comes as floats: 1889.0 is the year that a policy writes as 1889.
    whole = [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
    return tuple(dict.fromkeys(str(v).strip() for v in whole))


def _filled(value: Any) -> list[Any]:
    """Return the values that are not blank, lists flattened."""
    if isinstance(value, Mapping) and "target" in value:
        value = value["target"]
    value = getattr(value, "tolist", lambda: value)()  # numpy arrays of verl
    if isinstance(value, list | tuple):
        return [one for each in value for one in _filled(each)]
    return [] if value is None or not str(value).strip() else [value]


def question_in(prompt: Any, extra_info: Row) -> str:
    """Return the question of verl's row: that of `extra_info`, else the bare one of the last user message, else ""."""
    if extra_info.get("question"):
        return str(extra_info["question"])
    return bare_question(text_of(users[-1])) if (users := _users(prompt)) else ""


def _users(prompt: Any) -> list[Message]:
    return [m for m in (prompt if isinstance(prompt, list | tuple) else ()) if isinstance(m, dict) and m.get("role") == "user"]


def bare_question(text: str) -> str:
    """Return the text after the last "Question:" (the prompt of Search-R1's preprocessor), or all of it."""
    return text.rpartition("Question:")[2].strip()


def question_id_of(question: str) -> str:
    """Return an id made of the question's text, for questions without an id; equal texts get equal ids."""
    return f"q-{hashlib.sha256(' '.join(question.split()).encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def repeated_questions(questions: Sequence[Question]) -> list[list[str]]:
    """Return the groups of ids whose questions have the same words."""
    ids: dict[str, list[str]] = defaultdict(list)
    for question in questions:
        ids[" ".join(question.question.casefold().split())].append(question.id)
    return [same for same in ids.values() if len(same) > 1]


def read_corpus(path: Path) -> list[Passage]:
    """Return the passages of a file of JSON lines (or .gz), a JSON list or parquet; see `passage_of` for the fields.

    Raises:
        HiExpError: missing or empty file, malformed row, missing field.
    """
    return [_at(place, passage_of, row) for place, row in read_records(path, "corpus")]


def passage_of(row: Row) -> Passage:
    """Return the passage of a row of a corpus or of a retrieval server.

    It has `text` (and `title`), or Search-R1's `contents`: the title in quotes, a line break, the text. Its id is `id` or
    `_id`, else made of its content.

    Raises:
        BadRow: there is no text.
    """
    if isinstance(row.get("text"), str):
        title, text = str(row.get("title") or ""), row["text"]
    elif isinstance(row.get("contents"), str):
        title, _, text = row["contents"].partition("\n")
        title = title.strip()
        title = title[1:-1] if len(title) > 1 and title[0] == title[-1] == '"' else title  # inner quotes belong to the title
    else:
        raise BadRow("no field 'text' or 'contents' with a text", f"found {brief(sorted(row))}")
    name = next((row[key] for key in _ID_FIELDS if row.get(key) is not None), None)
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
        question=str(required(row, "question")),
        answers=answers_of(row),
        messages=messages,
        prediction=str(row.get("prediction") or ""),
        score=number_field(row, "score"),
        correct=bool_field(row, "correct"),
        model=str(row.get("model") or ""),
        id=str(row.get("id") or ""),
        extra=object_field(row, "extra"),
    )
