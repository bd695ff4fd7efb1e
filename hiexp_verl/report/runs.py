"""Directories in, what the report tells out: trainings, evaluations, rollouts, HEKs, and all their episodes."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.schema import read_header
from hiexp_verl.hek.store import HEK, version_folder
from hiexp_verl.report.episodes import Played, is_dump, read_played
from hiexp_verl.report.evaluations import Evaluation, Part, parts_below, read_evaluation
from hiexp_verl.report.find import Found, find
from hiexp_verl.report.training import Training, read_training


@dataclass
class Gathered:
    """All that was found."""

    trainings: list[Training] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    rollouts: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # name -> how its episodes were played
    played: list[Played] = field(default_factory=list)
    heks: dict[str, HEK] = field(default_factory=dict)  # by content hash
    stages: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # name -> what a recipe noted of its stages
    faults: list[str] = field(default_factory=list)
    passed_over: list[Path] = field(default_factory=list)


def gather(runs: Sequence[Path]) -> Gathered:
    """Read everything that is known in these directories (or files).

    Raises:
        HiExpError: one does not exist, or nothing is known in it.
    """
    roots = list(dict.fromkeys(run.resolve() for run in runs))
    out = Gathered()
    for root, label in zip(roots, _labels(roots), strict=True):
        found = find(root)
        if not (found.metrics or found.episodes or found.tables or found.rows or found.heks):
            broken = f" ({found.faults[0]})" if found.faults else ""
            hint = "give the directory of a training with trainer.logger=[file], or what `hiexp eval`, `rollout` or `build` wrote"
            raise HiExpError(f"nothing to report in {root}: no metrics, episodes, evaluation or HEK{broken}; {hint}")
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
        trainings = {folder: self._training(folder, metrics) for folder, metrics in self._training_folders().items()}
        evaluations = {
            folder: replace(one, training=trainings[home].name) if (home := _innermost(folder, trainings)) is not None else one
            for folder, one in self._evaluations().items()
        }
        known = {one.path for one in self.out.played}  # of a directory that holds this one, or lies in it
        episodes = [path for path in self.found.episodes if path not in known]
        dumps = {path: _innermost(path, trainings) for path in episodes if is_dump(path)}
        for folder, training in trainings.items():
            if folder not in dumps.values():
                dumps |= dict.fromkeys((path for path in self._dump_elsewhere(training) if path not in known), folder)
        for path in dict.fromkeys((*episodes, *dumps)):
            if (folder := dumps.get(path)) is not None:
                self._take(path, trainings[folder].name, trainings[folder].name, {}, hek=trainings[folder].hek)
            elif (folder := _innermost(path, evaluations)) is not None:
                self._take(
                    path, evaluations[folder].name, evaluations[folder].name, self._settings(path), _arm(path, folder, evaluations[folder])
                )
            else:
                name = self._name(path.parent)
                settings = self._settings(path)
                self.out.rollouts[name] = settings
                self._take(path, name, self.label if settings else name, settings)
        self.out.trainings += trainings.values()
        self.out.evaluations += evaluations.values()
        self.out.stages |= {self._name(path.parent): stages for path, stages in self.found.stages.items()}
        self._heks()
        self.out.faults += dict.fromkeys(self.found.faults)  # what is read for two ends has one fault
        self.out.passed_over += [path for path in self.found.passed_over if path.parent not in self.found.heks]

    def _name(self, folder: Path) -> str:
        inner = folder.relative_to(self.path).as_posix() if folder.is_relative_to(self.path) and folder != self.path else ""
        return (inner or self.label) if self.alone else f"{self.label}/{inner}".rstrip("/")

    def _training_folders(self) -> dict[Path, list[Path]]:
        """Return for each training its folder, the widest that holds no other training's metrics, and the metrics of its lives."""
        lives: dict[Path, list[Path]] = defaultdict(list)
        for path in self.found.metrics:
            lives[path.parent].append(path)
        folders = {}
        for home, metrics in lives.items():
            folder = home
            while folder != self.path and folder.is_relative_to(self.path) and _alone_in(folder.parent, home, lives):
                folder = folder.parent
            folders[folder] = metrics
        return folders

    def _training(self, folder: Path, metrics: Sequence[Path]) -> Training:
        own = Found(faults=self.found.faults)
        for kind in ("configs", "states"):
            setattr(own, kind, {path: value for path, value in getattr(self.found, kind).items() if path.is_relative_to(folder)})
        own.logs = [path for path in self.found.logs if path.is_relative_to(folder)]
        training = read_training(self._name(folder), metrics, own)
        if training.hek is None:  # no checkpoint says which version it was: the one that lies there now
            return replace(training, hek=next(filter(None, map(_hash_at, training.hek_paths)), None))
        return training

    def _evaluations(self) -> dict[Path, Evaluation]:
        rows: dict[Path, list[Path]] = defaultdict(list)
        for path in self.found.rows:
            rows[path.parent].append(path)
        parts: dict[Path, list[Part]] = defaultdict(list)
        for part in parts_below(self.path, self.found):
            parts[part.evaluation].append(part)
        folders = dict.fromkeys((*(path.parent for path in self.found.tables), *rows, *parts))
        return {folder: read_evaluation(self._name(folder), folder, rows[folder], parts[folder], self.found) for folder in folders}

    def _dump_elsewhere(self, training: Training) -> list[Path]:
        folder = Path(str(training.config.get("hiexp.dump_dir") or self.path))
        return find(folder).episodes if folder.is_dir() and not folder.is_relative_to(self.path) else []

    def _settings(self, path: Path) -> Mapping[str, Any]:
        return next((settings for file, settings in self.found.settings.items() if file.parent == path.parent), {})

    def _take(self, path: Path, run: str, family: str, settings: Mapping[str, Any], arm: str = "", hek: str | None = None) -> None:
        self.out.played += read_played(path, run, family, settings, self.found.faults, arm, hek)

    def _heks(self) -> None:
        """Load the HEKs that runs used, and those in use below the directory."""
        used = {one.hek for one in self.out.played} | {training.hek for training in self.out.trainings}
        places = {content_hash: folder for folder, content_hash in self.found.heks.items() if content_hash in used or _in_use(folder)}
        for training in self.out.trainings:
            for path in training.hek_paths:
                if training.hek and _hash_at(path) == training.hek:
                    places.setdefault(training.hek, Path(path))
        for content_hash, folder in places.items():
            if content_hash not in self.out.heks:
                try:
                    self.out.heks[content_hash] = HEK.load(folder)
                except HiExpError as error:
                    self.found.faults.append(str(error))


def _alone_in(folder: Path, home: Path, lives: Mapping[Path, Any]) -> bool:
    return all(other == home or not other.is_relative_to(folder) for other in lives)


def _innermost(path: Path, folders: Mapping[Path, Any]) -> Path | None:
    return max((folder for folder in folders if path.is_relative_to(folder)), key=lambda folder: len(folder.parts), default=None)


def _arm(path: Path, folder: Path, evaluation: Evaluation) -> str:
    arms = {str(line["arm"]) for line in evaluation.arms}
    parts = path.parent.relative_to(folder).parts
    return next((part for part in parts if part in arms), "/".join(parts))


def _hash_at(path: str) -> str | None:
    """Return the content hash of the HEK that lies there; None where there is none any more."""
    try:
        return read_header(version_folder(Path(path))).content_hash
    except (HiExpError, OSError):
        return None


def _in_use(folder: Path) -> bool:
    try:
        return version_folder(folder.parent) == folder
    except HiExpError:  # a version that was copied out of its directory
        return True
