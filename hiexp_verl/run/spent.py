"""What the parts of an evaluation took, in all their lives: seconds, and how many episodes were played at a time."""

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from hiexp_verl.errors import HiExpError
from hiexp_verl.jsonl import atomic_writer
from hiexp_verl.run.rollout import TRAJECTORIES

logger = logging.getLogger(__name__)

SECONDS = "seconds.json"  # beside the episodes of a part
Life = tuple[float, int]  # when it began, episodes at a time


def _spent(folder: Path) -> tuple[float, list[Life]]:
    """Return the seconds that a part took in all its lives, and these."""
    path, episodes = folder / SECONDS, folder / TRAJECTORIES
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else {}
        seconds, lives = float(found.get("seconds", 0.0)), [(float(begun), int(size)) for begun, size in found.get("lives", ())]
        if found.get("running") and episodes.is_file():  # it was killed, and lasted at least until its last episode
            seconds += max(0.0, episodes.stat().st_mtime - lives[-1][0])
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        logger.warning("%s is damaged (%s): the table is without the time and the batch size of before", path, error)
        return 0.0, []
    return seconds, lives


def spent_in_words(folders: Iterable[Path]) -> dict[str, Any]:
    """Return seconds and batch size of these parts as the table has them; no batch size where no life has told it."""
    parts = [_spent(folder) for folder in folders]
    sizes = [size for size, _ in groupby(size for _, size in sorted(life for _, lives in parts for life in lives))]
    told = {"batch_size": sizes[0] if len(sizes) == 1 else ", then ".join(map(str, sizes))} if sizes else {}
    return {"seconds": round(sum(seconds for seconds, _ in parts), 1), **told}


@contextmanager
def timed(folder: Path, batch_size: int) -> Iterator[list[Life]]:
    """Add what the block takes, also where it fails; where it is killed, its last episode tells how long it took."""
    (before, lives), started = _spent(folder), time.monotonic()
    lives.append((time.time(), batch_size))
    _write_spent(folder, {"seconds": before, "lives": lives, "running": True})
    try:
        yield lives
    except BaseException:
        with suppress(HiExpError):  # a disk that is full is told by what filled it
            _write_spent(folder, {"seconds": before + time.monotonic() - started, "lives": lives})
        raise
    _write_spent(folder, {"seconds": before + time.monotonic() - started, "lives": lives})


def _write_spent(folder: Path, spent: Mapping[str, Any]) -> None:
    with atomic_writer(folder / SECONDS) as file:
        file.write(json.dumps(spent) + "\n")
