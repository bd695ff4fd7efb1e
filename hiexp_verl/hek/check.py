"""Nothing enters a HEK unchecked: from disk or from a build, each fault is one line that says what is wrong."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from hiexp_verl.encoder import Vectors
from hiexp_verl.errors import HiExpError
from hiexp_verl.types import LEVELS, Entry

_TUPLES = ("tags", "children", "questions", "sources")
_NORM_TOLERANCE = 1e-3


def check_contents(entries: Sequence[Entry], vectors_E_D: Vectors, dimensions: int) -> None:
    """Check that entries and vectors fit together.

    Raises:
        HiExpError: no entries; wrong shape, NaN or norm; duplicate ids; unknown levels; empty texts; dangling children.
    """
    if not entries:
        raise HiExpError("it holds no entries; build it from trajectories with successes and failures of the same questions")
    if vectors_E_D.shape != (len(entries), dimensions):
        raise HiExpError(f"vectors have the shape {vectors_E_D.shape}, expected {(len(entries), dimensions)}; build it again")
    norms_E = np.linalg.norm(vectors_E_D, axis=1)
    # A NaN fails the comparison too.
    bad = np.flatnonzero(~(np.abs(norms_E - 1) <= _NORM_TOLERANCE))
    if len(bad):
        raise HiExpError(f"the vector of entry {entries[bad[0]].id} has the norm {norms_E[bad[0]]:.3f}, not 1; build it again")
    levels: dict[str, str] = {}
    for entry in entries:
        if entry.id in levels:
            raise HiExpError(f"the entry id {entry.id!r} occurs twice; ids must be unique")
        if entry.level not in LEVELS:
            raise HiExpError(f"entry {entry.id} has the level {entry.level!r}; use one of {', '.join(LEVELS)}")
        if entry.kind not in ("guide", "pitfall"):
            raise HiExpError(f"entry {entry.id} has the kind {entry.kind!r}; use guide or pitfall")
        if not entry.title.strip() or not entry.description.strip():
            raise HiExpError(f"entry {entry.id} has an empty title or description; write both")
        levels[entry.id] = entry.level
    for entry in entries:
        for child in entry.children:
            if child not in levels:
                raise HiExpError(f"entry {entry.id} has the child {child!r}, which does not exist; remove the link")
            if LEVELS.index(levels[child]) + 1 != LEVELS.index(entry.level):  # pyright: ignore[reportArgumentType]
                raise HiExpError(f"entry {entry.id} ({entry.level}) has the child {child} ({levels[child]}); children are one level below")


def read_vectors(path: Path) -> Vectors:
    """Read vectors.npy as float32 (never as a pickle).

    Raises:
        HiExpError: missing, damaged, or not a float32 matrix.
    """
    try:
        vectors_E_D = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise HiExpError(f"{path.name} does not exist; the HEK is incomplete, build it again") from error
    except (ValueError, EOFError, OSError) as error:
        raise HiExpError(f"{path.name} is damaged ({error}); restore it or build the HEK again") from error
    if not isinstance(vectors_E_D, np.ndarray) or vectors_E_D.ndim != 2 or vectors_E_D.dtype != np.float32:
        raise HiExpError(f"{path.name} is no float32 matrix; restore it or build the HEK again")
    return vectors_E_D


def entry_of(row: dict[str, Any], where: str) -> Entry:
    """Make an entry of one line of entries.jsonl.

    Raises:
        HiExpError: a field is missing, unknown or of the wrong type.
    """
    names = {f.name for f in fields(Entry)}
    if set(row) != names:
        odd = sorted(set(row) ^ names)
        raise HiExpError(f"{where}: missing or unknown fields {odd}; an entry has {sorted(names)}")
    for name in names:
        value, is_list = row[name], name in _TUPLES
        good = isinstance(value, list) and all(isinstance(v, str) for v in value) if is_list else isinstance(value, str)
        if not good:
            expected = "a list of texts" if is_list else "a text"
            raise HiExpError(f"{where}: the field {name!r} holds {type(value).__name__}; expected {expected}")
    values: dict[str, Any] = {name: tuple(row[name]) if name in _TUPLES else row[name] for name in names}
    return Entry(**values)
