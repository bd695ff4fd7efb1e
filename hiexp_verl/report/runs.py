"""What the report shows of some directories: trainings, evaluations, rollouts, HEKs, and all their episodes."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.schema import read_header
from hiexp_verl.hek.store import HEK, version_folder
from hiexp_verl.internalise.pairs import Pair
from hiexp_verl.io.manifest import Manifest
from hiexp_verl.report.episodes import Played, read_played
from hiexp_verl.report.evaluations import Evaluation, read_evaluation
from hiexp_verl.report.evolutions import Evolution, read_evolution
from hiexp_verl.report.find import Found, files_of, find, innermost, paths_of
from hiexp_verl.report.pairs import read_some
from hiexp_verl.report.training import Training, read_training


@dataclass
class Gathered:
    """All that was found."""

    trainings: list[Training] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    evolutions: list[Evolution] = field(default_factory=list)
    rollouts: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # name -> how its episodes were played
    played: list[Played] = field(default_factory=list)
    heks: dict[str, HEK] = field(default_factory=dict)  # by content hash
    pairs: dict[str, tuple[Mapping[str, Any], list[Pair]]] = field(default_factory=dict)  # name -> outcome, some pairs
    recipes: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # name -> outcome: seconds of stages, facts
    builds: dict[str, Manifest] = field(default_factory=dict)  # by the name of the HEK
    faults: list[str] = field(default_factory=list)  # what cannot be read, one line each


def gather(runs: Sequence[Path]) -> Gathered:
    """Read the runs in these directories.

    Raises:
        HiExpError: one does not exist, or holds no run and no HEK.
    """
    given = dict.fromkeys(Path(os.path.realpath(run)) for run in runs)  # resolve() raises at a loop of links
    roots = [root for root in given if given.keys().isdisjoint(root.parents)]  # one inside another is read with it
    found = Found()
    for root in roots:
        below = find(root)
        found.manifests |= below.manifests
        found.heks += below.heks
        found.faults += below.faults
    reader = _Reader(roots, found, Gathered(faults=found.faults))
    reader.read()
    return reader.out


@dataclass
class _Reader:
    """Reads what was found below the directories."""

    roots: Sequence[Path]
    found: Found
    out: Gathered

    def read(self) -> None:
        """Read all runs into `out`."""
        homes = self._trainings()
        evaluations = self._of("evaluation")
        names = {folder: self._name(folder) for folder in evaluations}
        for folder, manifest in evaluations.items():
            home = innermost(folder, list(homes))
            training = homes[home] if home else ""
            self.out.evaluations.append(read_evaluation(names[folder], folder, manifest, self.out.faults, training))
        evolutions = self._of("evolution")
        names |= {folder: self._name(folder) for folder in evolutions}
        self.out.evolutions = [read_evolution(names[folder], folder, self.out.faults) for folder in evolutions]
        for folder, manifest in self._of("rollout").items():
            home = innermost(folder, [*evaluations, *evolutions])  # an arm's episodes are a rollout below its evaluation, or round
            name = names[home] if home else self._name(folder)
            if home is None:
                self.out.rollouts[name] = manifest.spec
            # The versions of a round have their own seeds, and are compared all the same.
            spec = {**manifest.spec, "seed": folder.parent.as_posix()} if home in evolutions else manifest.spec
            self._episodes(folder, manifest, name, spec)
        self.out.pairs = {
            self._name(folder): (manifest.outcome, read_some(folder, manifest, self.out.faults))
            for folder, manifest in self._of("pairs").items()
        }
        self.out.recipes = {self._name(folder): manifest.outcome for folder, manifest in self._of("recipe").items()}
        self.out.builds = {self._name(folder): manifest for folder, manifest in self._of("build").items()}
        self._heks()
        self.out.faults = list(dict.fromkeys(self.out.faults))  # a damaged HEK is found twice

    def _of(self, kind: str) -> dict[Path, Manifest]:
        return {folder: manifest for folder, manifest in self.found.manifests.items() if manifest.kind == kind}

    def _name(self, folder: Path) -> str:
        """Return the path below what all directories have in common; the name of the directory itself."""
        common = os.path.commonpath(self.roots)
        return folder.relative_to(common).as_posix() if str(folder) != common else folder.name

    def _trainings(self) -> dict[Path, str]:
        """Read the trainings; return the name of each by the folder that holds all its files."""
        manifests = self._of("training")
        homes = {folder: self._home(folder, manifest) for folder, manifest in manifests.items()}
        names = {}
        for folder, manifest in manifests.items():
            home = homes[folder] if list(homes.values()).count(homes[folder]) == 1 else folder
            name = names[home] = self._name(home)
            training = read_training(name, folder, manifest, self.out.faults)
            self.out.trainings.append(training)
            self._episodes(folder, manifest, name, {"training": name}, training.hek)
        return names

    def _home(self, folder: Path, manifest: Manifest) -> Path:
        """Return the folder that holds all files of a training; its own where that is above the directory that was given."""
        home = Path(os.path.commonpath([folder, *(path for name in manifest.results for path in paths_of(folder, manifest, name))]))
        return home if innermost(home, self.roots) else folder

    def _episodes(self, folder: Path, manifest: Manifest, run: str, settings: Mapping[str, Any], hek: str = "") -> None:
        for path in files_of(folder, manifest, "episodes", self.out.faults):
            self.out.played += read_played(path, run, settings, hek, self.out.faults)

    def _heks(self) -> None:
        """Load the HEKs below the directories, and other versions that runs used."""
        used = {one.hek for one in self.out.played} | {training.hek for training in self.out.trainings}
        elsewhere = [Path(run.hek_path) for run in self.out.trainings if run.hek_path and Path(run.hek_path).is_dir()]
        for root in [*self.found.heks, *elsewhere]:
            for folder in [root, *sorted(path.parent for path in root.glob("*/header.json"))]:
                try:
                    content_hash = read_header(version_folder(folder)).content_hash
                    if content_hash not in self.out.heks and (folder == root or content_hash in used):
                        self.out.heks[content_hash] = HEK.load(folder)
                except (HiExpError, OSError) as error:
                    self.out.faults.append(str(error))
