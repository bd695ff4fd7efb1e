"""What lies below a directory, known by its content: metrics, episodes, evaluations, HEKs, configs, states, logs.

No name of a file or folder is relied on; what is not known is counted and passed over.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.rows import BadRow, finite, read_rows

MAX_JSON_BYTES = 64 << 20  # a table of hundreds of arms has kilobytes
MAX_YAML_BYTES = 4 << 20  # verl's whole config has 36 kB
# A JSON file with none of these keys is none of ours, and is not parsed: tokenizers have megabytes.
_KEYS = (b'"arms"', b'"watched"', b'"content_hash"', b'"temperature"', b'"seconds"')


@dataclass
class Found:
    """The files of each kind, in the order of their paths; parsed where they are small."""

    metrics: list[Path] = field(default_factory=list)  # verl's file logger
    episodes: list[Path] = field(default_factory=list)  # trajectories: rollouts, dumps of training
    rows: list[Path] = field(default_factory=list)  # of evaluations
    tables: dict[Path, dict[str, Any]] = field(default_factory=dict)  # of evaluations
    settings: dict[Path, dict[str, Any]] = field(default_factory=dict)  # how episodes were played
    stages: dict[Path, dict[str, Any]] = field(default_factory=dict)  # seconds of what a recipe did
    states: dict[Path, dict[str, Any]] = field(default_factory=dict)  # of checkpoints
    heks: dict[Path, str] = field(default_factory=dict)  # version folder -> content hash
    configs: dict[Path, dict[str, Any]] = field(default_factory=dict)  # of trainings, flat: dotted name -> value
    logs: list[Path] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # what cannot be read, one line each
    passed_over: list[Path] = field(default_factory=list)  # JSON lines of another kind


def find(root: Path) -> Found:
    """Look at every file below a directory, or at the one file.

    Raises:
        HiExpError: the path does not exist.
    """
    if not root.exists():
        raise HiExpError(f"{root} does not exist; give the directory of a training run, an evaluation or a rollout")
    found = Found()
    for path in _files(root):
        try:
            _sort_in(path, found)
        except OSError as error:
            found.faults.append(f"{path} cannot be read ({error.strerror or error})")
    return found


def _files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
        return
    for folder, folders, names in os.walk(root):  # links to folders are not followed: no cycles, nothing twice
        folders.sort()
        yield from (Path(folder) / name for name in sorted(names))


def _sort_in(path: Path, found: Found) -> None:
    size = path.stat().st_size
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        if size:  # a run that has only begun
            _sort_in_rows(path, found)
    elif path.suffix == ".json" and size <= MAX_JSON_BYTES:
        _sort_in_json(path, found)
    elif path.suffix in (".yaml", ".yml") and size <= MAX_YAML_BYTES:
        _sort_in_yaml(path, found)
    elif path.suffix in (".log", ".txt"):
        found.logs.append(path)


def _sort_in_rows(path: Path, found: Found) -> None:
    try:
        row = next((row for _, row in read_rows(path, halves=True)), None)
    except HiExpError as error:
        found.faults.append(str(error))
        return
    if isinstance(row, BadRow):
        found.faults.append(f"{path}: {row}")
    elif row is None or not (kind := _kind_of(row)):
        found.passed_over.append(path)
    else:
        getattr(found, kind).append(path)


def _kind_of(row: dict[str, Any]) -> str:
    if "step" in row and isinstance(row.get("data"), dict):
        return "metrics"
    if {"messages", "question_id", "score"} <= row.keys():
        return "episodes"
    return "rows" if {"arm", "id", "em"} <= row.keys() else ""


def _sort_in_json(path: Path, found: Found) -> None:
    content = path.read_bytes()
    if not any(key in content for key in _KEYS):
        return
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        found.faults.append(f"{path}: not JSON ({error})")
        return
    if not isinstance(value, dict):
        return
    if isinstance(value.get("arms"), list) and value["arms"] and all(isinstance(r, dict) and "arm" in r for r in value["arms"]):
        found.tables[path] = value
    elif isinstance(value.get("watched"), dict) and isinstance(value.get("identity"), dict):
        found.states[path] = value
    elif isinstance(value.get("encoder"), dict) and isinstance(value.get("content_hash"), str):
        found.heks[path.parent] = value["content_hash"]
    elif {"temperature", "seed", "hek"} <= value.keys():
        found.settings[path] = value
    elif isinstance(value.get("seconds"), dict) and None not in map(finite, value["seconds"].values()):
        found.stages[path] = value


def _sort_in_yaml(path: Path, found: Found) -> None:
    try:
        value = yaml.safe_load(path.read_bytes())
        if isinstance(value, dict) and {"actor_rollout_ref", "trainer"} <= value.keys():
            found.configs[path] = flat(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        found.faults.append(f"{path}: not YAML ({' '.join(str(error).split())})")


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by their dotted names."""
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    return {name: leaf for key, part in value.items() for name, leaf in flat(part, f"{prefix}.{key}" if prefix else str(key)).items()}
