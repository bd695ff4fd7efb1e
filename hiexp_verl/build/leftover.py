"""Answers that an interrupted build left: they may have been paid for, and are not thrown away unasked.

OUT/build.json tells how many answers OUT/answers.jsonl held when the last build was finished. Another number means that a
build was interrupted since.
"""

import json
from pathlib import Path

from hiexp_verl.errors import HiExpError


def check_leftover(out: Path, cache: Path) -> None:
    """Refuse to start anew over the answers of an interrupted build.

    Raises:
        HiExpError: there are some.
    """
    left = count_answers(cache)
    if left and left != finished_answers(out):
        raise HiExpError(
            f"{cache} holds {left} answers of a build that was interrupted; go on with --resume, or delete that file to start anew"
        )


def count_answers(cache: Path) -> int:
    """Return the number of whole lines in the file of answers, 0 when there is none."""
    return cache.read_bytes().count(b"\n") if cache.is_file() else 0


def finished_answers(out: Path) -> int:
    """Return how many answers there were when the last build was finished, 0 when none was or its record is damaged."""
    try:
        row = json.loads((out / "build.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    stored = row.get("answers") if isinstance(row, dict) else 0
    return stored if isinstance(stored, int) else 0
