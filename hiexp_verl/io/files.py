"""Atomic writers with one-line errors for a full or read-only disk, content hashes, and the locks of directories."""

import errno
import fcntl
import glob
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import IO, Any, Literal

from hiexp_verl.errors import HiExpError
from hiexp_verl.types import to_json

logger = logging.getLogger(__name__)

_FULL = {errno.ENOSPC, errno.EDQUOT}
# Faults of the place that the user can fix; any other OSError is a bug.
_REFUSALS = {*_FULL, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
_REFUSALS |= {errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG}
UNCHANGED = "nothing was changed"


@contextmanager
def writing(path: Path, consequence: str = "") -> Iterator[None]:
    """Turn a full disk, a quota or a missing permission into one line that names `path` and the `consequence`.

    Raises:
        HiExpError: instead of the OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        fault = "disk full: " if error.errno in _FULL else ""
        why = f"{path} cannot be written ({error.strerror}){consequence and ', '}{consequence}"
        raise HiExpError(f"{fault}{why}; make room there or give another place, then run again") from error


def make_folder(path: Path) -> None:
    """Make a directory and its parents, if missing.

    Raises:
        HiExpError: it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HiExpError(f"the directory {path} cannot be created ({error.strerror}); give another one") from error


@contextmanager
def atomic_writer(path: Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Yield a file that replaces `path` at the end, or not at all on an error (temporary file, fsync, rename).

    Raises:
        HiExpError: the disk is full or not writable.
    """
    with writing(path, UNCHANGED):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not (path.is_file() or path.is_dir()):  # renaming would replace a device or a pipe
            raise HiExpError(f"{path} is no plain file, {UNCHANGED}; give the path of a file")
        _clear_unfinished(path)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)  # until it is closed: this file has a writer
            with os.fdopen(handle, mode, encoding="utf-8" if mode == "w" else None) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                umask = os.umask(0)
                os.umask(umask)
                os.chmod(name, 0o666 & ~umask)  # mkstemp makes files that only the owner can read
                os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _clear_unfinished(path: Path) -> None:
    """Remove what killed writers of this file left beside it: no process holds its lock."""
    for unfinished in path.parent.glob(f".{glob.escape(path.name)}.????????"):
        try:
            with unfinished.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - unfinished.stat().st_mtime > _FRESH_SECONDS:
                    unfinished.unlink()
        except OSError:  # its writer is running, or it is gone
            continue


_FRESH_SECONDS = 10.0  # a writer locks its file right after making it


def write_jsonl(path: Path, records: Iterable[Any]) -> int:
    """Write records (dicts or our dataclasses) as JSON lines, atomically; return how many."""
    count = 0
    with atomic_writer(path) as file:
        for record in records:
            row = record if isinstance(record, dict) else to_json(record)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def append_lines(file: IO[str], *rows: Any) -> None:
    """Write rows and fsync them. Open the file within `writing`: on a full disk closing fails too."""
    file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    file.flush()
    os.fsync(file.fileno())


def add_lines(path: Path, *rows: Any) -> None:
    """Add rows to a file of JSON lines, all of them or none, after whole lines alone.

    Raises:
        HiExpError: the disk is full, or the place is not writable.
    """
    make_folder(path.parent)
    size = None
    try:
        with writing(path):
            if path.is_file():
                drop_torn_line(path)
            size = path.stat().st_size if path.is_file() else 0
            with path.open("a", encoding="utf-8") as file:
                append_lines(file, *rows)
    except HiExpError:
        if size is not None:
            with suppress(OSError):
                os.truncate(path, size)
        raise


def drop_torn_line(path: Path) -> None:
    """Remove a last line without a line end, as a killed writer or a full disk leaves it."""
    with path.open("rb+") as file:
        if not file.seek(0, os.SEEK_END) or (file.seek(-1, os.SEEK_END), file.read(1))[1] == b"\n":
            return
        file.seek(0)
        content = file.read()
        end = content.rfind(b"\n") + 1
        logger.warning("%s: dropping %d bytes of a line that was not written in full", path, len(content) - end)
        file.truncate(end)


def cache_dir() -> Path:
    """Return the cache directory: $HIEXP_CACHE, else ~/.cache/hiexp_verl."""
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
    """Return a hash of the size and of 256 evenly spaced pieces of a file, which identifies it without reading all of it.

    A training step changes only some weights, so the first and last bytes are not enough.
    """
    total = path.stat().st_size
    digest = hashlib.sha256(str(total).encode())
    with path.open("rb") as file:
        for start in range(0, total, max(1 << 16, total // 256)):
            file.seek(start)
            digest.update(file.read(1 << 16))
    return digest.hexdigest()


def digest_of(*parts: Any) -> bytes:
    """Return a 16-byte hash of JSON values, for large sets."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).digest()


@contextmanager
def only_one(out_dir: Path, name: str = "") -> Iterator[None]:
    """Hold an output folder for one run, or the file of that name in it where the folder has locks of its own.

    A folder that is made here, and is still empty when an error ends the run, is removed.

    Raises:
        HiExpError: another run holds it, or it is a file.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise HiExpError(f"{out_dir} is a file; give a directory")
    is_new = not out_dir.exists()
    make_folder(out_dir)
    with writing(out_dir):
        handle = os.open(out_dir / name, os.O_RDWR | os.O_CREAT, 0o666) if name else os.open(out_dir, os.O_RDONLY)
    try:
        _hold(handle, out_dir)
        yield
    except BaseException:
        if is_new:
            with suppress(OSError):  # what is not empty stays
                out_dir.rmdir()
        raise
    finally:
        os.close(handle)


def _hold(handle: int, out_dir: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise HiExpError(f"another run{_holder(handle)} is writing to {out_dir}; wait for it, or choose another directory") from error


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the write lock of `root`, and say so when it has to be waited for; remove unfinished files of killed writers."""
    handle = os.open(root, os.O_RDONLY)
    try:
        _wait_for(handle, root)
        # Versions, and the files beside them that are written under the lock.
        for unfinished in chain.from_iterable(map(root.glob, (".new-*", ".CURRENT.*", ".ENCODER.*", ".run.json.*"))):
            shutil.rmtree(unfinished) if unfinished.is_dir() and not unfinished.is_symlink() else unfinished.unlink()
        yield
    finally:
        os.close(handle)


def _wait_for(handle: int, root: Path) -> None:
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
    logger.warning("waiting for another process%s that writes to %s", _holder(handle), root)
    return fcntl.flock(handle, fcntl.LOCK_EX)


def _holder(handle: int) -> str:
    """Return " (pid N)" for the process that holds the lock of a file, "" where the system does not tell."""
    with suppress(OSError):
        inode = f":{os.fstat(handle).st_ino}"
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()
            if "->" not in fields and "FLOCK" in fields and fields[5].endswith(inode):
                return f" (pid {fields[4]})"
    return ""
