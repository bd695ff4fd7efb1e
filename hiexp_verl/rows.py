"""Rows of a JSON-lines file, plain or gzip: what cannot be read is named and passed, memory holds one line."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from hiexp_verl.errors import HiExpError

MAX_LINE_BYTES = 64 << 20  # far above any transcript; a file without line ends must not fill the memory
_GZIP = b"\x1f\x8b"


class BadRow(Exception):
    """A row that cannot be used: `wrong` says why, in words that hold no data and so can be counted; `found` is the data."""

    def __init__(self, wrong: str, found: str = "") -> None:
        super().__init__(f"{wrong} ({found})" if found else wrong)
        self.wrong, self.found = wrong, found


def read_rows(path: Path, halves: bool = False) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """Yield (line number, object) of each line that is not blank, or the fault of a line that cannot be read.

    A damaged gzip file yields the lines before the damage, then one fault. Half a character (JSON can escape one; UTF-8
    has no bytes for it) is a fault, unless `halves` are wanted as they are.

    Raises:
        HiExpError: the file does not open, or the disk fails.
    """
    try:
        with _opened(path) as file:
            for number, line in enumerate(_lines(file), start=1):
                if isinstance(line, BadRow):
                    yield number, line
                elif line.strip():
                    yield number, _parsed(line, number == 1, halves)
    except OSError as error:
        raise HiExpError(f"{path} cannot be read ({error.strerror or error}); check the path and its permissions") from error


def _opened(path: Path) -> IO[bytes]:
    file = path.open("rb")
    start = file.peek(2)[:2]  # the content decides, not the name
    file.close()
    return gzip.open(path, "rb") if start == _GZIP else path.open("rb")  # type: ignore[return-value]


def _lines(file: IO[bytes]) -> Iterator[bytes | BadRow]:
    try:
        while line := file.readline(MAX_LINE_BYTES + 1):
            if len(line) <= MAX_LINE_BYTES:
                yield line
                continue
            while line and not line.endswith(b"\n"):
                line = file.readline(1 << 20)
            yield BadRow(f"the line is longer than {MAX_LINE_BYTES >> 20} MiB")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        yield BadRow("the file is damaged from here on", str(error))


def _parsed(line: bytes, first: bool, halves: bool) -> dict[str, Any] | BadRow:
    try:
        row = json.loads(line.decode("utf-8-sig" if first else "utf-8"))
    except UnicodeDecodeError as error:
        return BadRow("not UTF-8", f"byte {error.start} is {line[error.start]:#04x}")
    except RecursionError:
        return BadRow("nested too deeply")
    except ValueError as error:
        return BadRow("not JSON", str(error))
    if not halves and b"\\ud" in line.lower() and not _is_text(row):
        return BadRow("half a character (a lone surrogate)")
    return row if isinstance(row, dict) else BadRow("not a JSON object", f"found {type(row).__name__}")


def _is_text(row: object) -> bool:
    """Whether every string of the row can be written."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
