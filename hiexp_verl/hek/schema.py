"""The schema of a HEK's files: the header, and the checks of everything that enters, each fault in one line."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from hiexp_verl.errors import HiExpError
from hiexp_verl.models.encoder import EncoderIdentity, Vectors
from hiexp_verl.types import KINDS, LEVELS, Entry

FORMAT = 3
_MOST_BYTES = 1 << 26  # of header.json


@dataclass(frozen=True)
class Header:
    """Where a HEK comes from and which encoder and thresholds it needs."""

    encoder: EncoderIdentity
    thresholds: dict[str, float] = field(default_factory=dict)  # cosines and heights valid for this encoder only; see `calibrate`
    distiller: str = ""  # "rules", or the model that wrote the entries
    models: tuple[str, ...] = ()  # the policies whose trajectories were distilled
    prompts: dict[str, str] = field(default_factory=dict)  # prompt file -> sha256
    counts: dict[str, int] = field(default_factory=dict)  # what the build used and left out; keys as in `distil.counts.TEXTS`
    near_duplicates: dict[str, tuple[str, ...]] = field(default_factory=dict)  # question id -> ids of questions that ask the same
    parents: tuple[str, ...] = ()  # content hashes of the versions that this one was made from
    reason: str = ""  # why it was made from them: the edit, the removal, the merge
    format: int = FORMAT
    content_hash: str = ""  # set by `save`, checked by `load`


def header_text(header: Header) -> str:
    """Return the header as it stands in header.json."""
    return json.dumps(asdict(header), ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def read_header(folder: Path) -> Header:
    """Read header.json.

    Raises:
        HiExpError: missing, too large, not JSON, of another format version, or a key is missing, unknown or of the wrong type.
    """
    path = folder / "header.json"
    try:
        if (size := path.stat().st_size) > _MOST_BYTES:
            raise HiExpError(f"{path} has {size:,} bytes, a header has at most {_MOST_BYTES:,}; restore it or build the HEK again")
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise HiExpError(f"{path} does not exist; the HEK is incomplete, build it again") from error
    except (ValueError, RecursionError) as error:
        raise HiExpError(f"{path} is damaged ({error}); restore it or build the HEK again") from error
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        raise HiExpError(f"{path}: HEK format {found!r} was found, this version reads {FORMAT}; build it again")
    return record_of(Header, values, str(path))


Record = TypeVar("Record")
_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
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
        if entry.kind not in KINDS:
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
    except Exception as error:  # numpy parses the head of the file as Python and lets that parser's errors through
        raise HiExpError(f"{path.name} is damaged ({error}); restore it or build the HEK again") from error
    if not isinstance(vectors_E_D, np.ndarray) or vectors_E_D.ndim != 2 or vectors_E_D.dtype != np.float32:
        raise HiExpError(f"{path.name} is not a float32 matrix; restore it or build the HEK again")
    return vectors_E_D


def record_of(cls: type[Record], row: Any, where: str) -> Record:
    """Return the header, entry, evidence or source that a JSON object holds, such as one line of entries.jsonl.

    Raises:
        HiExpError: it is no object, or a field is missing, unknown or of the wrong type.
    """
    kinds = _kinds_of(cls)
    if not isinstance(row, dict):
        raise HiExpError(f"{where}: found {type(row).__name__}; expected an object with {sorted(kinds)}")
    if odd := [name for name in row if name not in kinds]:
        near = get_close_matches(odd[0], kinds, 1)
        raise HiExpError(f"{where}: unknown field {odd[0]!r}; {f'did you mean {near[0]!r}?' if near else f'it has {sorted(kinds)}'}")
    if missing := [name for name in kinds if name not in row]:
        raise HiExpError(f"{where}: the field {missing[0]!r} is missing; it needs {sorted(kinds)}")
    return cls(**{name: _value(kinds[name], row[name], f"{where}: the field {name!r}") for name in kinds})


@cache
def _kinds_of(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)  # evaluates the annotations: a quarter of the time of a load when asked for every record


def _value(kind: Any, value: Any, where: str) -> Any:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is tuple:
        if not isinstance(value, list):
            raise HiExpError(f"{where} holds {type(value).__name__}; expected a list")
        return tuple(_value(parts[0], item, where) for item in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise HiExpError(f"{where} holds {type(value).__name__}; expected an object")
        return {key: _value(parts[1], item, where) for key, item in value.items()}
    if is_dataclass(kind):
        return record_of(kind, value, where)  # pyright: ignore[reportArgumentType]
    wanted = str if origin is Literal else kind
    if type(value) is not wanted and (wanted, type(value)) != (float, int):  # True is no int here
        raise HiExpError(f"{where} holds {type(value).__name__}; expected {_NAMES[wanted]}")
    return value
