"""What the report shows of some directories: trainings, evaluations, rollouts, HEKs, and all their episodes."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.schema import read_header
from hiexp_verl.hek.store import HEK, version_folder
from hiexp_verl.io.manifest import Manifest
from hiexp_verl.report.episodes import Played, read_played
from hiexp_verl.report.evaluations import Evaluation, Part, parts_of, read_evaluation
from hiexp_verl.report.find import Found, files_of, find, paths_of
from hiexp_verl.report.training import Training, read_training


@dataclass
class Gathered:
    """All that was found."""

    trainings: list[Training] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    rollouts: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # name -> how its episodes were played
    played: list[Played] = field(default_factory=list)
    heks: dict[str, HEK] = field(default_factory=dict)  # by content hash
    recipes: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # name -> outcome: seconds of stages, facts
    faults: list[str] = field(default_factory=list)
    not_read: list[Path] = field(default_factory=list)  # files that no manifest names


def gather(runs: Sequence[Path]) -> Gathered:
    """Read the runs in these directories.

    Raises:
        HiExpError: one does not exist, or holds no run and no HEK.
    """
    roots = list(dict.fromkeys(run.resolve() for run in runs))
    out, known = Gathered(), set[Path]()
    for root, label in zip(roots, _labels(roots), strict=True):
        found = find(root)
        if not (found.manifests or found.heks):
            broken = f" ({found.faults[0]})" if found.faults else ""
            raise HiExpError(f"nothing to report in {root}: no run.json and no HEK{broken}; give a directory that a verb of hiexp wrote")
        for folder in known & found.manifests.keys():  # read with a directory that holds this one, or lies in it
            del found.manifests[folder]
        known |= found.manifests.keys()
        _Root(root, label, len(roots) == 1, found, out).read()
    return out


def _labels(roots: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that tell them apart."""
    for length in range(1, max(len(root.parts) for root in roots)):
        labels = ["/".join(root.parts[-length:]) for root in roots]
        if len(set(labels)) == len(labels):
            return labels
    return [str(root) for root in roots]


@dataclass
class _Root:
    """One of the directories that were given."""

    path: Path
    label: str
    alone: bool
    found: Found
    out: Gathered

    def read(self) -> None:
        """Read all runs into `out`."""
        homes = self._trainings()
        parts = self._evaluations(homes)
        for folder, manifest in self._of("rollout").items():
            if folder not in parts:
                name = self._name(folder)
                self.out.rollouts[name] = manifest.spec
                self._play(folder, manifest, name, self.label)
        self.out.recipes |= {self._name(folder): manifest.outcome for folder, manifest in self._of("recipe").items()}
        self._heks()
        self.out.faults += dict.fromkeys(self.found.faults)  # what is read for two ends has one fault
        self.out.not_read += self.found.not_read

    def _of(self, kind: str) -> dict[Path, Manifest]:
        return {folder: manifest for folder, manifest in self.found.manifests.items() if manifest.kind == kind}

    def _name(self, folder: Path) -> str:
        inner = folder.relative_to(self.path).as_posix() if folder != self.path else ""
        return (inner or self.label) if self.alone else f"{self.label}/{inner}".rstrip("/")

    def _trainings(self) -> dict[Path, str]:
        """Read the trainings; return the name of each by its home."""
        manifests = self._of("training")
        homes = {folder: self._home(folder, manifest) for folder, manifest in manifests.items()}
        names = {}
        for folder, manifest in manifests.items():
            home = homes[folder] if list(homes.values()).count(homes[folder]) == 1 else folder
            training = read_training(self._name(home), folder, manifest, self.found)
            self.out.trainings.append(training)
            self._play(folder, manifest, training.name, training.name, hek=training.hek)
            names[home] = training.name
        return names

    def _home(self, folder: Path, manifest: Manifest) -> Path:
        """Return the folder that holds all files of a training; its own where that is above the directory that was given."""
        home = Path(os.path.commonpath([folder, *(path for name in manifest.results for path in paths_of(folder, manifest, name))]))
        return home if home.is_relative_to(self.path) else folder

    def _evaluations(self, homes: Mapping[Path, str]) -> set[Path]:
        """Read the evaluations; return the folders of their parts."""
        folders = set[Path]()
        for folder, manifest in self._of("evaluation").items():
            parts = parts_of(folder, manifest, self.found)
            home = max((home for home in homes if folder.is_relative_to(home)), key=lambda home: len(home.parts), default=None)
            one = read_evaluation(self._name(folder), folder, manifest, parts, self.found)
            self.out.evaluations.append(replace(one, training=homes[home]) if home else one)
            for part in parts:
                self._play(part.folder, part.manifest, one.name, one.name, part.arm)
            folders |= {part.folder for part in parts}
            folders |= self._left_out(folder, parts)
        return folders

    def _left_out(self, folder: Path, parts: Sequence[Part]) -> set[Path]:
        """Return rollouts below an evaluation that are not of its plan, and list their episodes among what is not read."""
        planned = {part.folder for part in parts}
        others = {one: m for one, m in self._of("rollout").items() if one.is_relative_to(folder) and one not in planned}
        self.found.not_read += [path for one, manifest in others.items() for path in paths_of(one, manifest, "episodes")]
        return set(others)

    def _play(self, folder: Path, manifest: Manifest, run: str, family: str, arm: str = "", hek: str | None = None) -> None:
        settings = {} if manifest.kind == "training" else manifest.spec
        for path in files_of(folder, manifest, "episodes", self.found):
            self.out.played += read_played(path, run, family, settings, self.found.faults, arm, hek)

    def _heks(self) -> None:
        """Load the HEKs that runs used, and those in use below the directory."""
        used = {one.hek for one in self.out.played} | {training.hek for training in self.out.trainings}
        places = {}
        for root in self.found.heks:
            for folder in [root, *sorted(path.parent for path in root.glob("*/header.json"))]:
                content_hash = _hash_at(folder)
                if content_hash and (folder == root or content_hash in used):
                    places[content_hash] = folder
            if root not in places.values() and _hash_at(root) is None:
                self.found.faults.append(f"{root} holds no HEK that can be read; see `hiexp versions {root}`")
        for training in self.out.trainings:
            for path in training.hek_paths:
                if training.hek and _hash_at(Path(path)) == training.hek:
                    places.setdefault(training.hek, Path(path))
        for content_hash, folder in places.items():
            if content_hash not in self.out.heks:
                try:
                    self.out.heks[content_hash] = HEK.load(folder)
                except HiExpError as error:
                    self.found.faults.append(str(error))


def _hash_at(path: Path) -> str | None:
    """Return the content hash of the HEK that lies there, None where there is none."""
    try:
        return read_header(version_folder(path)).content_hash
    except (HiExpError, OSError):
        return None
