"""Files written in full or not at all, and clear words where the disk refuses.

Content hashes: of files, and of what JSON can hold.

One writer at a time below a HEK's directory."""

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
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


def sha256_of(*paths: Path) -> str:
    """Return the hex SHA-256 of the files' bytes, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def fingerprint(path: Path) -> str:
    """Return what tells a file from another of its kind without reading all of it: its size, its first and its last MiB, hashed."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(1 << 20))
        file.seek(max(0, size - (1 << 20)))
        digest.update(file.read())
    return digest.hexdigest()[:16]


def sample_of(path: Path, pieces: int = 256, size: int = 1 << 16) -> str:
    """Return what tells weights from others of their shape without reading all: the size and pieces from end to end, hashed.

    Of a step of training some weights move and others do not, so the ends alone are not enough.
    """
    total = path.stat().st_size
    digest = hashlib.sha256(str(total).encode())
    with path.open("rb") as file:
        for start in range(0, total, max(size, total // pieces)):
            file.seek(start)
            digest.update(file.read(size))
    return digest.hexdigest()


def digest_of(*parts: Any) -> bytes:
    """Return 16 bytes that tell parts (whatever JSON can hold) from other parts, for sets that must stay small."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).digest()


BESIDE = ("CURRENT", "ENCODER", "run.json")  # files beside the versions, written only by who holds the lock


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Wait to be the only writer below `root`; clear away the unfinished files of writers that were killed."""
    handle = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        for left in chain(root.glob(".new-*"), *(root.glob(f".{name}.*") for name in BESIDE)):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield
    finally:
        os.close(handle)
