"""One writer at a time below a HEK's directory."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

BESIDE = ("CURRENT", "ENCODER", "build.json")  # files beside the versions, written only by who holds the lock


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
