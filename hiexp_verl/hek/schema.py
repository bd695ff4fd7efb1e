"""The schema of a HEK's files: the header, and the checks of everything that enters, each fault in one line."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from reprlib import repr as brief
from typing import Any, TypeVar

import numpy as np
from pydantic import ConfigDict

from hiexp_verl.domains.domain import UNMARKED
from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.hek.preconditions import check_preconditions
from hiexp_verl.models.encoder import EncoderIdentity, Vectors
from hiexp_verl.settings import parse_block
from hiexp_verl.types import KINDS, LEVELS, Entry, Evidence, Plan, Source

FORMAT = 3
_MOST_BYTES = 1 << 26  # of header.json
_MOST_THRESHOLD = 1e9  # cosines and heights of clusters are far below


@dataclass(frozen=True)
class Header:
    """Where a HEK comes from and which encoder and thresholds it needs."""

    encoder: EncoderIdentity
    # Cosines and heights valid for this encoder only, see `calibrate`; a whole number stays one when it is read: the hash is of the text.
    thresholds: dict[str, int | float] = field(default_factory=dict)
    distiller: str = ""  # "rules", or the model that wrote the entries
    models: tuple[str, ...] = ()  # the policies whose trajectories were distilled
    prompts: dict[str, str] = field(default_factory=dict)  # prompt file -> sha256
    counts: dict[str, int] = field(default_factory=dict)  # what the build used and left out; keys as in `distil.counts.TEXTS`
    near_duplicates: dict[str, tuple[str, ...]] = field(default_factory=dict)  # question id -> ids of questions that ask the same
    parents: tuple[str, ...] = ()  # content hashes of the versions that this one was made from
    reason: str = ""  # why it was made from them: the edit, the removal, the merge
    domain: str = UNMARKED  # what its questions are about; see `domains`
    format: int = FORMAT
    content_hash: str = ""  # set by `save`, checked by `load`


def header_text(header: Header) -> str:
    """Return the text of header.json; the domain that was the only one once is left out."""
    values = {name: value for name, value in asdict(header).items() if (name, value) != ("domain", UNMARKED)}
    return json.dumps(values, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


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
        json.dumps(values, ensure_ascii=False).encode()  # JSON can escape half a character, which cannot be hashed
    except FileNotFoundError as error:
        raise HiExpError(f"{path} does not exist; the HEK is incomplete, build it again") from error
    except (ValueError, RecursionError) as error:
        raise HiExpError(f"{path} is damaged ({error}); restore it or build the HEK again") from error
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        raise HiExpError(f"{path}: HEK format {found!r} was found, this version reads {FORMAT}; build it again")
    header = record_of(Header, values, str(path))
    for name, number in header.thresholds.items():
        if not abs(number) <= _MOST_THRESHOLD:  # a NaN fails the comparison, too
            raise HiExpError(f"{path}: the threshold {name} is {brief(number)}; restore the file or run `hiexp calibrate`")
    return header


Record = TypeVar("Record")
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
    with np.errstate(over="ignore"):  # such a norm is refused below
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
        if entry.when and entry.level != "e1":
            raise HiExpError(f"entry {entry.id} has preconditions, which are tested at a search; only E1 are shown there")
        try:
            check_preconditions(entry.when)
        except HiExpError as error:
            raise HiExpError(f"entry {entry.id}: {error}") from error
        levels[entry.id] = entry.level
    for entry in entries:
        for child in entry.children:
            if child not in levels:
                raise HiExpError(f"entry {entry.id} has the child {child!r}, which does not exist; remove the link")
            if LEVELS.index(levels[child]) + 1 != LEVELS.index(entry.level):  # pyright: ignore[reportArgumentType]
                raise HiExpError(f"entry {entry.id} ({entry.level}) has the child {child} ({levels[child]}); children are one level below")


def read_vectors(path: Path, todo: str = "restore it or build the HEK again") -> Vectors:
    """Return the float32 matrix of a .npy file; Python objects in it are not loaded.

    Raises:
        HiExpError: the file is missing or damaged, or holds something else.
    """
    try:
        with path.open("rb") as file:
            vectors_E_D = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # numpy parses the head of the file as Python and lets that parser's errors through
        raise HiExpError(f"{path} cannot be read as a .npy file ({first_line(error)}); {todo}") from error
    if vectors_E_D.ndim != 2 or vectors_E_D.dtype != np.float32:
        raise HiExpError(f"{path} holds {vectors_E_D.dtype} of the shape {vectors_E_D.shape}, not a float32 matrix; {todo}")
    return vectors_E_D


def record_of(cls: type[Record], row: dict[str, Any], where: str) -> Record:
    """Return the header, entry or source that a JSON object holds, such as one line of entries.jsonl.

    Raises:
        HiExpError: a field is missing, unknown or of the wrong type.
    """
    try:
        return parse_block(cls, row, cls.__name__.lower(), "field")
    except HiExpError as error:
        raise HiExpError(f"{where}: {error}") from error


for _kind in (Header, EncoderIdentity, Entry, Evidence, Plan, Source):
    _kind.__pydantic_config__ = ConfigDict(extra="forbid")  # pyright: ignore[reportAttributeAccessIssue]
