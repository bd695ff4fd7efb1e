"""Files written in full or not at all, and clear words where the disk refuses."""

import errno
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from hiexp_verl.errors import HiExpError
from hiexp_verl.types import to_json

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


def cache_dir() -> Path:
    """Return the directory of what can be fetched or computed again: $HIEXP_CACHE, else ~/.cache/hiexp_verl."""
    return Path(os.environ.get("HIEXP_CACHE") or Path.home() / ".cache" / "hiexp_verl")
