"""Rows of JSON-lines, JSON and parquet files, and checked fields of a row; a fault of a row is a `BadRow`."""

import csv
import gzip
import io
import json
import math
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from reprlib import repr as brief
from typing import IO, Any, Literal

from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.types import Message

MAX_LINE_BYTES = 64 << 20  # far above any transcript; bounds the memory for a file without line ends
Row = Mapping[str, Any]


class BadRow(Exception):
    """A row that cannot be used: `wrong` is the reason (without data, so that reasons can be counted), `found` the data."""

    def __init__(self, wrong: str, found: str = "") -> None:
        super().__init__(f"{wrong} ({found})" if found else wrong)
        self.wrong, self.found = wrong, found


def read_rows(path: Path, surrogates: bool = False) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """Yield (line number, object or fault) of each line that is not blank.

    A damaged gzip file yields the lines before the damage, then one fault. A lone surrogate (JSON can escape it, UTF-8 cannot
    encode it) is a fault, unless `surrogates` are wanted.

    Raises:
        HiExpError: the file does not open, or the disk fails.
    """
    try:
        with _opened(path) as file:
            for number, line in enumerate(_lines(file), start=1):
                if isinstance(line, BadRow):
                    yield number, line
                elif line.strip():
                    yield number, _parsed(line, number == 1, surrogates)
    except OSError as error:
        raise HiExpError(f"{path} cannot be read ({error.strerror or error}); check the path and its permissions") from error


def read_any(path: Path) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """Yield (line or row number, object or fault) of a file of any of the formats; see `read_rows` and `read_table`."""
    return read_rows(path) if file_kind(path) == "lines" else read_table(path)


def read_table(path: Path) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """Yield (row number from 0, object) of a parquet file, a JSON file that holds one list, also under "data", or a table.

    Null fields are left out. A damaged gzip of a table yields the rows before the damage, then one fault.

    Raises:
        HiExpError: it is none of them, or pyarrow is missing.
    """
    read, called = _READERS[file_kind(path)]
    try:
        rows = read(path)
    except (ValueError, RecursionError, EOFError, zlib.error, OSError) as error:
        raise HiExpError(f"{path} is not {called} ({first_line(error)}); give {KINDS}") from error
    for number, row in enumerate(rows):
        if isinstance(row, dict):
            yield number, {key: value for key, value in row.items() if value is not None}
        else:
            yield number, row if isinstance(row, BadRow) else BadRow("not a JSON object", f"found {type(row).__name__}")


FileKind = Literal["lines", "list", "parquet", "tabs", "commas"]
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error)  # of a compressed file
_DAMAGED = "the file is damaged from here on"
KINDS = "JSON lines, a JSON list, parquet, .tsv or .csv"
_LIST = re.compile(rb'\[|\{\s*(?:"version"\s*:\s*"[^"]*"\s*,\s*)?"data"\s*:\s*\[')


# How files of other formats begin.
_OTHERS = {
    b"PK\x03\x04": "a zip archive or an .xlsx table",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"\x80\x04\x95": "a pickle",
    b"ARROW1": "an Arrow file",
    b"SQLite": "an SQLite data base",
    b"<": "XML or HTML",
    b"- ": "YAML",
}


def file_kind(path: Path) -> FileKind:
    """Return the format of a file by its content, not its name; only `.parquet` must be parquet.

    Raises:
        HiExpError: it is of a format that is not read.
    """
    with _opened(path) as file:
        try:
            start = file.read(256)
        except (EOFError, zlib.error, OSError):
            start = b""
    if start.startswith(b"PAR1") or path.suffix == ".parquet":
        return "parquet"
    if other := next((name for mark, name in _OTHERS.items() if start.startswith(mark)), ""):
        raise HiExpError(f"{path} is {other}; convert it to {KINDS}")
    if b"\0" in start:
        return "lines"  # not UTF-8
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    names = b"" if start.startswith((b"{", b"[", b"\xff", b"\xfe")) else start.partition(b"\n")[0]
    if b"\t" in names or b"," in names:
        return "tabs" if b"\t" in names else "commas"
    return "list" if _LIST.match(start) else "lines"


def _list_rows(path: Path) -> list[Any]:
    with _opened(path) as file:
        rows = parse_json(file.read().decode("utf-8-sig"))
    rows = rows["data"] if isinstance(rows, dict) else rows
    return [row if _is_text(row) else BadRow("half a character (a lone surrogate)") for row in rows]


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table as read_parquet
    except ImportError as error:
        raise HiExpError(f"{path} needs pyarrow, which is not installed; install it (verl has it), or give JSON lines") from error
    try:
        return read_parquet(path).to_pylist()
    except ArrowException as error:
        raise ValueError(first_line(error)) from error


def _table_rows(path: Path, delimiter: str) -> list[dict[str, Any] | BadRow]:
    """Return the rows of a table whose first line names the columns, as DPR writes its passages: quotes are doubled inside quotes."""
    with _opened(path) as file:
        lines = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), delimiter=delimiter, strict=True)
        rows: list[dict[str, Any] | BadRow] = []
        try:
            rows.extend(BadRow("more columns than the first line names") if None in row else row for row in lines)
        except csv.Error as error:
            raise ValueError(f"line {lines.line_num}: {error}") from error
        except _DAMAGE as error:
            rows.append(BadRow(_DAMAGED, str(error)))
        return rows


_READERS: dict[FileKind, tuple[Callable[[Path], list[Any]], str]] = {
    "parquet": (_parquet_rows, "a parquet file"),
    "list": (_list_rows, "a JSON list"),
    "tabs": (partial(_table_rows, delimiter="\t"), "a table with tabs between its columns"),
    "commas": (partial(_table_rows, delimiter=","), "a table with commas between its columns"),
}


def _opened(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"  # by content, not by name
    return gzip.open(path, "rb") if is_gzip else path.open("rb")  # type: ignore[return-value]


def _lines(file: IO[bytes]) -> Iterator[bytes | BadRow]:
    try:
        while line := file.readline(MAX_LINE_BYTES + 1):
            if len(line) <= MAX_LINE_BYTES:
                yield line
                continue
            while line and not line.endswith(b"\n"):
                line = file.readline(1 << 20)
            yield BadRow(f"the line is longer than {MAX_LINE_BYTES >> 20} MiB")
    except _DAMAGE as error:
        yield BadRow(_DAMAGED, str(error))


_UTF_16 = "the file is UTF-16 or UTF-32; convert it to UTF-8"


def _parsed(line: bytes, first: bool, surrogates: bool) -> dict[str, Any] | BadRow:
    try:
        row = parse_json(line.decode("utf-8-sig" if first else "utf-8"))
    except UnicodeDecodeError as error:
        if first and line.startswith((b"\xff\xfe", b"\xfe\xff")):
            return BadRow(_UTF_16)
        return BadRow("not UTF-8", f"byte {error.start} is {line[error.start]:#04x}")
    except RecursionError:
        return BadRow("nested too deeply")
    except ValueError as error:
        return BadRow(_UTF_16) if first and b"\0" in line else BadRow("not JSON", str(error))
    if not surrogates and b"\\ud" in line.lower() and not _is_text(row):
        return BadRow("half a character (a lone surrogate)")
    return row if isinstance(row, dict) else BadRow("not a JSON object", f"found {type(row).__name__}")


def _is_text(row: object) -> bool:
    """Return whether every string of the row can be encoded."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def required(row: Row, key: str) -> Any:
    """Return the value of a key that must not be missing or null."""
    if row.get(key) is None:
        raise BadRow(f"the field {key!r} is null" if key in row else f"no field {key!r}", f"found {brief(sorted(row))}")
    return row[key]


def _field(row: Row, key: str, fits: Callable[[Any], bool], expected: str) -> Any:
    value = required(row, key)
    if not fits(value):
        raise BadRow(f"{key!r} must be {expected}", f"found {brief(value)}")
    return value


def text_field(row: Row, key: str) -> str:
    """Return a text that is not blank, stripped."""
    value = _field(row, key, lambda value: isinstance(value, str), "a text").strip()
    if not value:
        raise BadRow(f"the {key} is empty")
    return value


def number_field(row: Row, key: str) -> float:
    """Return a finite number."""
    return float(_field(row, key, lambda value: as_number(value) is not None, "a number"))


def id_field(row: Row, key: str) -> str:
    """Return an id as text: a text or a number that is not blank."""
    return str(_field(row, key, lambda value: not isinstance(value, bool | dict | list) and bool(str(value).strip()), "a text or a number"))


def bool_field(row: Row, key: str) -> bool:
    """Return a boolean, also one written as 1 or 0, or as a word (`_BOOLEANS`)."""
    value = _field(row, key, lambda value: str(value).strip().lower() in _BOOLEANS, "true or false")
    return _BOOLEANS[str(value).strip().lower()]


_TRUE, _FALSE = ("true", "1", "1.0", "yes", "correct", "right"), ("false", "0", "0.0", "no", "incorrect", "wrong")
_BOOLEANS = {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}


def object_field(row: Row, key: str) -> dict[str, Any]:
    """Return a copy of an object, empty if it is missing."""
    return dict(_field({key: row.get(key) or {}}, key, lambda value: isinstance(value, dict), "an object"))


def messages_field(row: Row) -> tuple[Message, ...]:
    """Return `messages`: objects with a role, whose content is a text, a list of parts, or null with tool calls."""
    expected = "a list of objects with 'role' and 'content'"
    return tuple(_field(row, "messages", lambda value: isinstance(value, list) and all(map(_is_message, value)), expected))


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("role"), str)
        and isinstance(value.get("content"), str | list | None)
        and isinstance(value.get("tool_calls"), list | None)
    )


def parse_json(text: str) -> Any:
    """Return the value of a JSON text; an integer that no float can hold is refused, since what adds and divides it would fail.

    Raises:
        ValueError: the text is not JSON, or has such an integer.
    """
    return json.loads(text, parse_int=_bounded)


def _bounded(digits: str) -> int:
    if len(digits) > sys.float_info.max_10_exp:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def as_number(value: Any) -> float | None:
    """Return a finite number as a float, None for anything else (verl's logger writes NaN and infinity as null)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        return None
    return float(value)


def number_or_nan(value: Any) -> float:
    """Return a finite number as a float, NaN for anything else."""
    number = as_number(value)
    return math.nan if number is None else number
