"""The runs below a directory: every folder with a `run.json`, and every HEK. Other files are counted, and not opened."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.manifest import MANIFEST, Manifest, read_manifest

_OF_A_HEK = {"CURRENT", "header.json"}  # beside its versions, in a version
MAX_JSON_BYTES = 64 << 20  # a table of hundreds of arms has kilobytes


@dataclass
class Found:
    """Manifests and HEKs by their folders, in the order of the paths."""

    manifests: dict[Path, Manifest] = field(default_factory=dict)
    heks: list[Path] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # what cannot be read, one line each
    not_read: list[Path] = field(default_factory=list)  # files that no manifest names


def find(root: Path) -> Found:
    """Return what lies below a directory.

    Raises:
        HiExpError: there is no such directory.
    """
    if not root.is_dir():
        raise HiExpError(f"{root} is not a directory; give the output folder of a training, `hiexp eval`, `rollout` or `build`")
    found, files = Found(), list[Path]()
    for path, folders, names in os.walk(root):  # links to folders are not followed: no cycles, nothing twice
        folder = Path(path)
        folders.sort()
        if _OF_A_HEK.intersection(names):
            found.heks.append(folder)
            folders.clear()
            continue
        if MANIFEST in names:
            try:
                found.manifests[folder] = read_manifest(folder)
            except HiExpError as error:
                found.faults.append(str(error))
        files += [folder / name for name in sorted(names) if name != MANIFEST]
    named = {path for folder, manifest in found.manifests.items() for name in manifest.results for path in paths_of(folder, manifest, name)}
    found.not_read = [path for path in files if path not in named and named.isdisjoint(path.parents)]
    return found


def paths_of(folder: Path, manifest: Manifest, name: str) -> list[Path]:
    """Return the files or folders of one kind of results."""
    return [Path(os.path.normpath(folder / place)) for place in manifest.results.get(name, [])]


def files_of(folder: Path, manifest: Manifest, name: str, found: Found) -> list[Path]:
    """Return the files of one kind of results, those in folders by name; one that a finished run lacks is a fault."""
    paths = paths_of(folder, manifest, name)
    if manifest.finished:
        found.faults += [f"{path} does not exist, and {folder / MANIFEST} names it" for path in paths if not path.exists()]
    return list(_files(paths))


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        yield from sorted(path.glob("*.jsonl")) if path.is_dir() else [path] if path.is_file() else []


def read_object(path: Path, faults: list[str]) -> dict[str, Any]:
    """Return the object in a JSON file, an empty one and a fault where it is damaged."""
    try:
        if (size := path.stat().st_size) > MAX_JSON_BYTES:
            raise ValueError(f"{size} bytes")
        value = json.loads(path.read_bytes())
        if isinstance(value, dict):
            return value
        faults.append(f"{path} is damaged (not an object)")
    except (ValueError, RecursionError) as error:
        faults.append(f"{path} is damaged ({error})")
    except OSError as error:
        faults.append(f"{path} cannot be read ({error.strerror or error})")
    return {}


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by their dotted names."""
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    return {name: leaf for key, part in value.items() for name, leaf in flat(part, f"{prefix}.{key}" if prefix else str(key)).items()}
