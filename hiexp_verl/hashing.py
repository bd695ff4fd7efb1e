"""Content hashes: of files, and of what JSON can hold."""

import hashlib
import json
from pathlib import Path
from typing import Any


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
