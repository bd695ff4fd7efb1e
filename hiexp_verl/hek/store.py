"""The HEK: entries, their vectors and a header, as immutable version directories.

| path | what |
| --- | --- |
| `CURRENT` | the name of the version in use, e.g. `0002`: the newest, until one goes back |
| `0002/header.json` | format version, parents and reason, domain, encoder identity, thresholds, model and prompts, counts, content hash |
| `0002/entries.jsonl` | one entry a line, see `types.Entry` |
| `0002/vectors.npy` | float32 (E, D), unit norm; row i encodes the title of line i |
| `0002/sources.jsonl` | the trajectories that it was distilled from, in brief, see `types.Source` |
| `0002/README.md` | a card for people |

Nothing in a version depends on the time or the machine: the same input gives the same bytes.
"""

import hashlib
import io
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hiexp_verl.domains.domain import UNMARKED
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.schema import Header, check_contents, header_text, read_header, read_vectors, record_of
from hiexp_verl.io.datasets import read_jsonl
from hiexp_verl.io.files import UNCHANGED, atomic_writer, locked, writing
from hiexp_verl.models.encoder import EncoderIdentity, Vectors
from hiexp_verl.types import LEVELS, Entry, Source, to_json

CURRENT = "CURRENT"  # names the version in use


@dataclass(frozen=True)
class HEK:
    """Experience entries of three levels with one unit vector each.

    Raises:
        HiExpError: entries, vectors and header do not fit together (see `schema.check_contents`).
    """

    header: Header
    entries: tuple[Entry, ...]
    vectors_E_D: Vectors
    sources: tuple[Source, ...] = ()

    def __post_init__(self) -> None:
        check_contents(self.entries, self.vectors_E_D, self.header.encoder.dimensions)

    @property
    def levels(self) -> dict[str, int]:
        """Number of entries per level."""
        count = Counter(entry.level for entry in self.entries)
        return {level: count[level] for level in LEVELS}

    def entry(self, entry_id: str) -> Entry:
        """Return the entry of that id.

        Raises:
            HiExpError: there is none.
        """
        for entry in self.entries:
            if entry.id == entry_id:
                return entry
        raise HiExpError(f"the HEK has no entry {entry_id!r}; its ids run from {self.entries[0].id} to {self.entries[-1].id}")

    def check_encoder(self, identity: EncoderIdentity) -> None:
        """Refuse an encoder other than the one that made the vectors and thresholds.

        Raises:
            HiExpError: weights, prefixes or dimensions differ.
        """
        difference = self.header.encoder.difference(identity)
        if difference:
            encoders = f"{self.header.encoder.name!r}, not {identity.name!r} ({difference})"
            raise HiExpError(f"the HEK was made with the encoder {encoders}; use that encoder or build the HEK again")

    def save(self, root: str | Path, since: Path | None = None, candidate: bool = False) -> Path:
        """Write a new version under `root` and point CURRENT at it; return the version directory.

        A current version with the same content is returned and nothing is written. The rest of a killed save is finished or
        removed. CURRENT is written last, so that an interrupted save changes nothing.

        Args:
            root: the directory of the versions.
            candidate: leave CURRENT as it is; the version of that content is returned where there is one.
            since: the current version (`current_version`) when this HEK was made from it: a change of a HEK must not hide another.

        Raises:
            HiExpError: the disk is full, `root` is not writable, or another version was made since.
        """
        root = Path(root)
        content_hash = self.content_hash()
        current = current_version(root)
        saved = sorted(root.iterdir(), reverse=True) if candidate and root.is_dir() else [current]
        if found := next((each for each in saved if each is not None and each.name.isdecimal() and _holds(each, content_hash)), None):
            return found
        with writing(root, UNCHANGED):
            root.mkdir(parents=True, exist_ok=True)
            with locked(root):
                check_unchanged(root, since)
                version = root / f"{_last_number(root):04d}"
                if not _holds(version, content_hash):  # it holds it after a save that was killed before CURRENT was written
                    version = _save_version(replace(self, header=replace(self.header, content_hash=content_hash)), root)
                if not candidate:
                    set_current(root, version.name)
        return version

    @classmethod
    def load(cls, path: str | Path) -> "HEK":
        """Read the current version below `path`, or the version directory `path` itself, and check all of it.

        Raises:
            HiExpError: there is no HEK, a file is missing or damaged, the hash or the contents are wrong.
        """
        folder = version_folder(Path(path))
        header = read_header(folder)
        entries = tuple(record_of(Entry, row, place) for place, row in read_jsonl(folder / "entries.jsonl", "HEK entries"))
        path = folder / "sources.jsonl"
        has_sources = not path.is_file() or path.stat().st_size  # a missing file is an error, an empty one is none
        rows = read_jsonl(path, "HEK sources") if has_sources else ()
        sources = tuple(record_of(Source, row, place) for place, row in rows)
        try:
            hek = cls(header, entries, read_vectors(folder / "vectors.npy"), sources)
        except HiExpError as error:
            raise HiExpError(f"HEK {folder}: {error}") from error
        if hek.content_hash() != header.content_hash:
            raise HiExpError(f"HEK {folder} has changed since it was saved (its content hash differs); restore it or build it again")
        return hek

    def content_hash(self) -> str:
        """Hash header (without the hash itself), entries, sources and vectors."""
        digest = hashlib.sha256()
        digest.update(header_text(replace(self.header, content_hash="")).encode())
        digest.update(_lines(self.entries).encode())
        digest.update(_lines(self.sources).encode())
        digest.update(np.ascontiguousarray(self.vectors_E_D, dtype="<f4").tobytes())
        return digest.hexdigest()


def current_version(root: Path) -> Path | None:
    """Return the directory that CURRENT names, or None when `root` holds no HEK yet."""
    pointer = root / CURRENT
    return root / pointer.read_text(encoding="utf-8", errors="replace").strip() if pointer.is_file() else None


def check_unchanged(root: Path, since: Path | None) -> None:
    """Check, under the lock of `root`, that the current version is the one that a change was made from; None: it was made from none.

    Raises:
        HiExpError: another version was made since.
    """
    if since is not None and (now := current_version(root)) != since:
        made = now.name if now else "nothing"
        raise HiExpError(f"{root} was changed meanwhile: its version is {made}, it was {since.name}; run the command again")


def set_current(root: Path, version: str) -> None:
    """Make the version of that name the one in use.

    Raises:
        HiExpError: the disk is full, or `root` is not writable.
    """
    with atomic_writer(root / CURRENT) as file:
        file.write(version + "\n")


def root_of(path: Path) -> Path:
    """Return the directory that holds the versions of the HEK at `path`, which is that directory or a version in it.

    Raises:
        HiExpError: neither holds a CURRENT.
    """
    for root in (path, Path(os.path.realpath(path)).parent):  # resolve() raises at a loop of links
        if (root / CURRENT).is_file():
            return root
    raise HiExpError(f"{path} is not a directory of HEK versions: found no CURRENT; give the directory that `hiexp build --out` wrote")


def version_folder(path: Path) -> Path:
    """Return the directory of the current version below `path`, or `path` itself if it is a version.

    Raises:
        HiExpError: there is no HEK, or CURRENT names no complete version.
    """
    if not path.is_dir():
        raise HiExpError(f"HEK {path} does not exist; give the directory that `hiexp build --out` wrote")
    if (path / "header.json").is_file():
        return path
    version = current_version(path)
    if version is None:
        raise HiExpError(f"{path} is not a HEK: found neither CURRENT nor header.json; give the directory that `hiexp build --out` wrote")
    if version.parent != path or not (version / "header.json").is_file():
        raise HiExpError(f"HEK {path}: CURRENT names {version.name!r}, which is not a complete version; write the name of one into CURRENT")
    return version


def _holds(version: Path, content_hash: str) -> bool:
    try:
        return HEK.load(version).header.content_hash == content_hash
    except HiExpError:  # damaged, or of another format: building again replaces it
        return False


def _save_version(hek: HEK, root: Path) -> Path:
    temporary = Path(tempfile.mkdtemp(dir=root, prefix=".new-"))
    try:
        _write_version(hek, temporary)
        version = root / f"{_last_number(root) + 1:04d}"
        os.rename(temporary, version)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_folder(root)
    return version


def _last_number(root: Path) -> int:
    return max((int(path.name) for path in root.iterdir() if path.name.isdecimal()), default=0)


def _write_version(hek: HEK, folder: Path) -> None:
    vectors = io.BytesIO()  # numpy's own writing to a file does not report a full disk
    np.save(vectors, np.ascontiguousarray(hek.vectors_E_D, dtype="<f4"), allow_pickle=False)
    texts = {"header.json": header_text(hek.header), "entries.jsonl": _lines(hek.entries), "sources.jsonl": _lines(hek.sources)}
    texts["README.md"] = card(hek)
    contents = {name: text.encode() for name, text in texts.items()}
    # A copy: an exported buffer in the traceback of a full disk crashes the garbage collector of some Pythons (3.12.1).
    contents["vectors.npy"] = vectors.getvalue()
    for name, content in contents.items():
        with (folder / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    folder.chmod(0o755)  # mkdtemp makes it private
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _lines(records: Sequence[Entry | Source]) -> str:
    return "".join(json.dumps(to_json(record), ensure_ascii=False) + "\n" for record in records)


_MEANING = {"e1": "cases: one decision or pitfall", "e2": "patterns: a kind of task", "e3": "strategies: a rule for all"}


def card(hek: "HEK") -> str:
    """Return Markdown: how it was made, counts, thresholds, some examples of each level."""
    header = hek.header
    lines = ["# Hierarchical experience knowledge", ""]
    lines += [f"- domain: {header.domain}"] if header.domain != UNMARKED else []
    lines += [f"- distiller: {header.distiller or 'unknown'}", f"- policies: {', '.join(header.models) or 'unknown'}"]
    lines += [f"- encoder: {header.encoder.name} ({header.encoder.dimensions} dimensions, sha256 {header.encoder.sha256[:12]})"]
    lines += [f"- thresholds: {', '.join(f'{k} {v:g}' for k, v in sorted(header.thresholds.items())) or 'none'}"]
    lines += [f"- content hash: {header.content_hash}", ""]
    for level in reversed(LEVELS):
        entries = [entry for entry in hek.entries if entry.level == level]
        lines += [f"## {level.upper()}: {len(entries)} ({_MEANING[level]})", ""]
        lines += [f"- **{entry.title}** {entry.description}" for entry in entries[:3]] + [""]
    return "\n".join(lines)
