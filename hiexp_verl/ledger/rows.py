"""The ledger of a HEK: one row for each trained rollout, with what it was shown and what was left out by chance.

`LEDGER/<run>.jsonl` beside the versions, appended step by step; a run writes one file. Entries are known by content id, so that
rows hold across versions. Sums over rows are in `ledger.credit`.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ConfigDict
from typing_extensions import NotRequired, TypedDict

from hiexp_verl.config import Place
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.arms import CREDITED
from hiexp_verl.guide.record import EpisodeRecord, Shown
from hiexp_verl.hek.schema import record_of
from hiexp_verl.io.files import add_lines, drop_torn_line, make_folder, write_jsonl
from hiexp_verl.io.rows import BadRow, read_rows
from hiexp_verl.types import TRAIN, Level, Trajectory

logger = logging.getLogger(__name__)
LEDGER = "ledger"  # the folder


class Exposure(TypedDict):
    """An entry at a place of an episode."""

    content: str  # content id of the entry
    level: Level
    place: Place
    search: NotRequired[int]  # number of the search, from 1
    score: float  # cosine by which it was found
    p: float  # probability that it is shown here, once it is found


@dataclass(frozen=True)
class LedgerRow:
    """One trained rollout."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    step: int
    group: str  # the rollouts of one question in one step share it
    session: int  # which of them
    hek: str  # content hash of the version that was asked, "" without one
    arm: str
    reward: float
    shown: tuple[Exposure, ...] = ()
    masked: tuple[Exposure, ...] = ()
    lookup_failed: bool = False
    unmet: tuple[str, ...] = ()  # content ids of E1 that were found where their preconditions do not hold

    def to_json(self) -> dict[str, Any]:
        """Return the row as the JSON object of its line; without `unmet` where it is empty."""
        return {name: value for name, value in asdict(self).items() if value or name != "unmet"}

    @property
    def guided(self) -> bool:
        """Return whether the rollout counts for its version: it is of an arm with experience, and its look-ups came through."""
        return self.arm in CREDITED and not self.lookup_failed

    @property
    def key(self) -> tuple[int, str, int]:
        """Return what no two rows of a run share."""
        return self.step, self.group, self.session


def row_of(record: EpisodeRecord, reward: float, step: int = 0, group: str | None = None, mask: float = 0.0) -> LedgerRow:
    """Return the row of an episode; `group` is its question where it is not given, `mask` the share of entries left out by chance."""
    shown, masked = ([_exposure(row, 1 - mask) for row in rows] for rows in (record.shown, record.masked))
    failed = record.lookup_failures > 0
    group = record.question_id if group is None else group
    # Rewards come as float32: 0.4 as 0.4000000059.
    place = step, group, record.sample, record.hek or "", record.arm, round(reward, 6)
    return LedgerRow(*place, tuple(shown), tuple(masked), failed, record.unmet or ())


def rows_of_step(episodes: Iterable[tuple[str, EpisodeRecord, float]], step: int, mask: float) -> list[LedgerRow]:
    """Return the rows of a training step, of episodes with verl's name of their group and their reward.

    verl draws the names; a row has the question's id, numbered where the step has two groups of a question: a repeated run is equal.
    """
    names: dict[str, str] = {}
    rows = []
    for group, record, reward in episodes:
        if group not in names:
            number = 1 + sum(name.partition("~")[0] == record.question_id for name in names.values())
            names[group] = record.question_id if number == 1 else f"{record.question_id}~{number}"
        rows.append(row_of(record, reward, step, names[group], mask))
    return rows


def rows_of(trajectories: Iterable[Trajectory]) -> list[LedgerRow]:
    """Return the rows of episodes that were rolled out without training; validation has none."""
    records = [(EpisodeRecord.of(t), t.score) for t in trajectories]
    return [row_of(record, reward) for record, reward in records if record.split in (None, TRAIN)]


def by_group(rows: Iterable[LedgerRow]) -> dict[tuple[int, str], list[LedgerRow]]:
    """Return the rows of each group, by step and group, in the order of their first row."""
    groups: dict[tuple[int, str], list[LedgerRow]] = defaultdict(list)
    for row in rows:
        groups[row.step, row.group].append(row)
    return dict(groups)


def append_rows(path: Path, rows: Sequence[LedgerRow]) -> None:
    """Add the rows of a step to the file of a run.

    Raises:
        HiExpError: the disk is full, or the folder is not writable.
    """
    add_lines(path, *(row.to_json() for row in rows))  # half a step would be counted as a whole one


def forget_after(path: Path, step: int) -> int:
    """Remove the rows of later steps, which a resumed run trains again; return how many there were."""
    if not path.is_file():
        return 0
    drop_torn_line(path)
    rows = _read(path)
    kept = [row for row in rows if row.step <= step]
    if len(kept) < len(rows):
        write_jsonl(path, (row.to_json() for row in kept))
    return len(rows) - len(kept)


def read_run(path: Path) -> list[LedgerRow]:
    """Return the rows of one run in the order of their steps; see `read_ledger`."""
    return _read(path) if path.is_file() else []


def read_ledger(root: Path) -> list[LedgerRow]:
    """Return the rows of every run of a HEK, run by run in the order of their steps, each rollout once.

    Two runs share questions and numbers of steps, but no group: of several, the name of a group begins with that of its run.
    Lines that cannot be read, as a killed writer or a full disk leaves them, are left out with a warning.
    """
    paths = sorted((root / LEDGER).glob("*.jsonl"))
    if len(paths) == 1:
        return _read(paths[0])
    return [replace(row, group=f"{path.stem}/{row.group}") for path in paths for row in _read(path)]


def add_ledger(root: Path, other: Path, name: str) -> int:
    """Copy the runs of another HEK's ledger into that of the HEK at `root`, under this name; return how many there are.

    Entries are known by what they say: rows hold where the HEK has the same entries. A run that is there already, under whatever name
    and perhaps with fewer steps, does not come twice: each rollout counts once.

    Raises:
        HiExpError: the disk is full, or the folder is not writable.
    """
    paths = sorted((other / LEDGER).glob("*.jsonl")) if other.resolve() != root.resolve() else []
    there = {path: _read(path) for path in sorted((root / LEDGER).glob("*.jsonl"))}
    for path in paths:
        rows = _read(path)
        same = (known for known, kept in there.items() if kept[: len(rows)] == rows[: len(kept)] != [])
        target = next(same, root / LEDGER / f"{name}-{path.name}")
        if len(rows) > len(there.get(target, ())):
            make_folder(root / LEDGER)
            write_jsonl(target, (row.to_json() for row in rows))
            there[target] = rows
    return len(paths)


def _read(path: Path) -> list[LedgerRow]:
    rows: dict[tuple[int, str, int], LedgerRow] = {}
    faults: list[str] = []
    for number, found in read_rows(path):
        try:
            if isinstance(found, BadRow):
                raise HiExpError(f"{path}:{number}: {found}")
            row = record_of(LedgerRow, found, f"{path}:{number}")
        except HiExpError as error:
            faults.append(str(error))
            continue
        rows[row.key] = row  # a step that was trained again counts once, as it was trained last
    if faults:
        logger.warning("%d lines of the ledger %s cannot be read and are left out, the first: %s", len(faults), path, faults[0])
    return sorted(rows.values(), key=lambda row: row.step)


def _exposure(row: Shown, p: float) -> Exposure:
    p = round(p * row.get("p", 1.0), 6)
    exposure: Exposure = {"content": row["content"], "level": row["level"], "place": row["place"], "score": row["score"], "p": p}
    return {**exposure, "search": row["search"]} if "search" in row else exposure
