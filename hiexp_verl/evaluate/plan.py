"""What an evaluation plays: data sets, seeds and arms, and the folder of each part."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hiexp_verl.config import Arm, arm_named
from hiexp_verl.errors import HiExpError
from hiexp_verl.evaluate.tables import ALL, BASE
from hiexp_verl.io.datasets import read_questions, repeated_questions
from hiexp_verl.rollout.policy import MERGED
from hiexp_verl.rollout.rollout import TRAJECTORIES
from hiexp_verl.types import Question, Trajectory

logger = logging.getLogger(__name__)

ROWS, TABLE_JSON, TABLE_MD, VERDICTS = "rows.jsonl", "table.json", "table.md", "verdicts.jsonl"
_TAKEN = (ALL, MERGED, ROWS, TABLE_JSON, TABLE_MD, VERDICTS)  # in the table, in the output directory
Datasets = Mapping[str, Sequence[Question]]
Judge = Callable[[Sequence[Trajectory]], Mapping[str, bool | None]]  # by judge_key; None: it answered neither yes nor no


def part_folder(out_dir: Path, dataset: str, seed: int, arm: str) -> Path:
    """Return where the episodes of an arm lie."""
    return out_dir / dataset / f"seed-{seed}" / arm


@dataclass(frozen=True)
class EvaluationPlan:
    """What is played: every question of every data set, once with every seed in every arm."""

    datasets: Datasets
    arms: Sequence[Arm]
    seeds: Sequence[int]

    def parts(self, out_dir: Path) -> Iterator[tuple[str, int, Arm, Path]]:
        """Yield data set, seed, arm and the directory of its episodes."""
        for dataset in self.datasets:
            for seed in self.seeds:
                for arm in self.arms:
                    yield dataset, seed, arm, part_folder(out_dir, dataset, seed, arm)

    def check_output(self, out_dir: Path, resume: bool) -> None:
        """Refuse to add to another evaluation, whose rows and table would be replaced by those of this plan.

        Raises:
            HiExpError: there is an evaluation already and `resume` is off.
        """
        written = [out_dir / TABLE_JSON, out_dir / ROWS, *out_dir.glob(f"*/seed-*/*/{TRAJECTORIES}")]
        if not resume and (found := next((path for path in written if path.exists()), None)):
            raise HiExpError(f"{out_dir} holds an evaluation ({found}); add --resume to go on with it, or choose another output directory")


def read_datasets(paths: Sequence[Path], limit: int | None = None) -> dict[str, list[Question]]:
    """Return the questions of each file, a data set named after the file; repeated questions are logged.

    Raises:
        HiExpError: a file is not usable, or two have one name.
    """
    datasets: dict[str, list[Question]] = {}
    for path in paths:
        name = path.name.removesuffix(".gz").rpartition(".")[0] or path.name
        if name in datasets or name in _TAKEN:
            raise HiExpError(f"{path}: the name {name!r} is taken; rename the file, rows are kept under its name")
        datasets[name] = read_questions(path)[:limit]
        if twice := repeated_questions(datasets[name]):
            logger.warning("%s: %d questions are asked more than once, and count as often (the first: %s)", path, len(twice), twice[0])
    return datasets


def check_arms(names: Sequence[str], has_hek: bool) -> list[Arm]:
    """Return the arms, `none` first where it is among them.

    Raises:
        HiExpError: one is unknown or named twice, or shows experience where there is no HEK.
    """
    arms: list[Arm] = [arm_named(name) for name in names]
    if len(set(names)) < len(names):
        raise HiExpError(f"--arms names one twice: {','.join(names)}")
    if not has_hek and list(names) != [BASE]:
        raise HiExpError(f"arm {next(name for name in names if name != BASE)} shows experience; give a HEK as --hek, or --arms none")
    return sorted(arms, key=lambda arm: (arm != BASE, names.index(arm)))
