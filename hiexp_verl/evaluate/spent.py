"""What the parts of an evaluation took, in all their lives: seconds, and how many episodes were played at a time."""

import json
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.files import atomic_writer
from hiexp_verl.rollout.rollout import TRAJECTORIES

logger = logging.getLogger(__name__)

SECONDS = "seconds.json"  # beside the episodes of a part; until 2026-11-22 one for all of them, in the evaluation's directory
Life = tuple[float, int]  # when it began, episodes at a time


def _spent(folder: Path) -> tuple[float, list[Life]]:
    """Return the seconds that a part took in all its lives, and those lives that played something."""
    path, episodes = folder / SECONDS, folder / TRAJECTORIES
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else {}
        seconds = float(found.get("seconds", 0.0))
        lives = [(0.0, int(size)) for size in found.get("at_a_time", ())]  # as it was until 2026-11-22
        lives += [(float(begun), int(size)) for begun, size in found.get("lives", ())]
        if found.get("running"):  # it was killed, and lasted at least until its last episode
            begun, _ = lives[-1]
            lasted = episodes.stat().st_mtime - begun if episodes.is_file() else 0.0
            seconds, lives = (seconds + lasted, lives) if lasted > 0 else (seconds, lives[:-1])
        if not math.isfinite(seconds):
            raise ValueError(f"{seconds} seconds")
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
        logger.warning("%s is damaged (%s): the table is without the time and the batch size of before", path, error)
        return 0.0, []
    return seconds, lives


def spent_in_words(folders: Iterable[Path]) -> dict[str, Any]:
    """Return seconds and batch size of these parts as the table has them."""
    parts = [_spent(folder) for folder in folders]
    sizes = [size for size, _ in groupby(size for _, size in sorted(life for _, lives in parts for life in lives))]
    told = ", then ".join(map(str, sizes)) or "an unknown number of"
    return {"seconds": round(sum(seconds for seconds, _ in parts), 1), "batch_size": sizes[0] if len(sizes) == 1 else told}


@contextmanager
def timed(folder: Path, batch_size: int) -> Iterator[None]:
    """Add what the block takes where it plays something, also where it fails; where it is killed, its last episode tells how long."""
    (before, lives), count, started = _spent(folder), _episodes(folder), time.monotonic()
    now = [*lives, (time.time(), batch_size)]
    _write_spent(folder, {"seconds": before, "lives": now, "running": True})

    def end() -> None:
        if _episodes(folder) > count:
            _write_spent(folder, {"seconds": before + time.monotonic() - started, "lives": now})
        else:
            _write_spent(folder, {"seconds": before, "lives": lives})

    try:
        yield
    except BaseException:
        with suppress(HiExpError):  # a disk that is full is told by what filled it
            end()
        raise
    end()


def _episodes(folder: Path) -> int:
    path = folder / TRAJECTORIES
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def _write_spent(folder: Path, spent: Mapping[str, Any]) -> None:
    with atomic_writer(folder / SECONDS) as file:
        file.write(json.dumps(spent) + "\n")
