"""The runs below some directories: every folder with a `run.json`, and every HEK. Other files are not read."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.manifest import MANIFEST, Manifest, read_manifest
from hiexp_verl.io.rows import BadRow, parse_json, read_rows

_OF_A_HEK = {"CURRENT", "header.json"}  # beside its versions, in a version
_T = TypeVar("_T")


@dataclass
class Found:
    """Manifests and HEKs by their folders, in the order of the paths."""

    manifests: dict[Path, Manifest] = field(default_factory=dict)
    heks: list[Path] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # what cannot be read, one line each


def find(root: Path) -> Found:
    """Return the runs and HEKs below a directory.

    Raises:
        HiExpError: there is no such directory, or nothing in it.
    """
    if not root.is_dir():
        raise HiExpError(f"{root} is not a directory; give the output folder of a training, `hiexp eval`, `rollout` or `build`")
    found = Found()
    for path, folders, names in os.walk(root):  # links to folders are not followed: no cycles, nothing twice
        folder = Path(path)
        folders.sort()
        if _OF_A_HEK.intersection(names):
            found.heks.append(folder)
            folders.clear()
        if MANIFEST in names:  # also beside the versions of a HEK: that of its last build
            try:
                found.manifests[folder] = read_manifest(folder)
            except HiExpError as error:
                found.faults.append(str(error))
    if not (found.manifests or found.heks):
        broken = f" ({found.faults[0]})" if found.faults else ""
        raise HiExpError(f"nothing to report in {root}: no run.json and no HEK{broken}; give a directory that a verb of hiexp wrote")
    return found


def paths_of(folder: Path, manifest: Manifest, name: str) -> list[Path]:
    """Return the files or folders of one kind of results."""
    return list(dict.fromkeys(Path(os.path.normpath(folder / place)) for place in manifest.results.get(name, [])))


def files_of(folder: Path, manifest: Manifest, name: str, faults: list[str]) -> list[Path]:
    """Return the files of one kind of results, those in folders by name; one that a finished run lacks is a fault."""
    paths = paths_of(folder, manifest, name)
    if manifest.finished:
        faults += [f"{path} does not exist, and {folder / MANIFEST} names it" for path in paths if not path.exists()]
    return [file for path in paths for file in (sorted(path.glob("*.jsonl")) if path.is_dir() else [path]) if file.is_file()]


def read_lines(path: Path, parse: Callable[[int, dict[str, Any]], _T], faults: list[str]) -> list[_T]:
    """Return what `parse` makes of each line (its number and object); lines that cannot be read are one fault of the file."""
    good, bad = [], []
    for line, row in read_rows(path, surrogates=True):
        try:
            if isinstance(row, BadRow):
                raise row
            good.append(parse(line, row))
        except (BadRow, HiExpError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            bad.append(f"line {line}: {error}")
    if bad:
        faults.append(f"{path}: {len(bad)} of {len(bad) + len(good)} lines cannot be read ({bad[0]})")
    return good


def read_object(path: Path, faults: list[str]) -> dict[str, Any]:
    """Return the object in a JSON file, an empty one and a fault where it is damaged."""
    try:
        return dict(parse_json(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError, OSError) as error:
        faults.append(f"{path} cannot be read ({error})")
        return {}


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by their dotted names."""
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    return {name: leaf for key, part in value.items() for name, leaf in flat(part, f"{prefix}.{key}" if prefix else str(key)).items()}


def innermost(folder: Path, homes: Sequence[Path]) -> Path | None:
    """Return the nearest of these folders that holds the folder."""
    return max((home for home in homes if folder.is_relative_to(home)), key=lambda home: len(home.parts), default=None)
