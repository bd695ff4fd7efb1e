"""What an evaluation took, in all its lives: seconds, and how many episodes were played at a time."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from hiexp_verl.jsonl import atomic_writer

SECONDS = "seconds.json"


def _spent(out_dir: Path) -> dict[str, Any]:
    """Return the seconds that episodes took in all lives of an evaluation, and how many were played at a time in each."""
    path = out_dir / SECONDS
    found = {"seconds": 0.0, "at_a_time": [], **(json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {})}
    if begun := found.pop("begun", None):  # a life that was killed: it lasted at least until its last episode
        episodes = out_dir / begun["episodes"]
        found["seconds"] += max(0.0, episodes.stat().st_mtime - begun["at"]) if episodes.is_file() else 0.0
    return found


def spent_in_words(out_dir: Path) -> dict[str, Any]:
    """Return seconds and batch size as the table has them; no batch size where no life has told it."""
    spent = _spent(out_dir)
    sizes = [size for size, _ in groupby(spent["at_a_time"])]
    told = {"batch_size": sizes[0] if len(sizes) == 1 else ", then ".join(map(str, sizes))} if sizes else {}
    return {"seconds": round(spent["seconds"], 1), **told}


@contextmanager
def timed(out_dir: Path, batch_size: int, episodes: Path) -> Iterator[list[int]]:
    """Add what the block takes, also where it fails; where it is killed, its last episode tells how long it took."""
    before, started = _spent(out_dir), time.monotonic()
    at_a_time = [*before["at_a_time"], batch_size]
    begun = {"at": time.time(), "episodes": str(episodes.relative_to(out_dir))}
    _write_spent(out_dir, {"seconds": before["seconds"], "at_a_time": at_a_time, "begun": begun})
    try:
        yield at_a_time
    finally:
        _write_spent(out_dir, {"seconds": before["seconds"] + time.monotonic() - started, "at_a_time": at_a_time})


def _write_spent(out_dir: Path, spent: Mapping[str, Any]) -> None:
    with atomic_writer(out_dir / SECONDS) as file:
        file.write(json.dumps(spent) + "\n")
