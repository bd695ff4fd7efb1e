"""Pairs of self-distillation: how many, and some of them side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hiexp_verl.errors import HiExpError
from hiexp_verl.internalise.pairs import REASONS, Pair, read_pairs
from hiexp_verl.io.manifest import Manifest
from hiexp_verl.report.episodes import side_by_side
from hiexp_verl.report.find import files_of
from hiexp_verl.report.html import e, listed, plural

_MOST = 8  # side by side


def read_some(folder: Path, manifest: Manifest, faults: list[str]) -> list[Pair]:
    """Return the pairs of a folder that differ most."""
    found: list[Pair] = []
    for path in files_of(folder, manifest, "pairs", faults):
        try:
            found += read_pairs(path)
        except HiExpError as error:
            faults.append(str(error))
    return sorted(found, key=lambda pair: (-pair.distance, pair.reference.question_id))[:_MOST]


def pairs_section(found: Mapping[str, tuple[Mapping[str, Any], Sequence[Pair]]]) -> str:
    """Return for each set of pairs its numbers, and the pairs that differ most; `found` has outcome and pairs by name."""
    parts = []
    for name, (outcome, pairs) in found.items():
        left_out = outcome.get("left_out")
        left = left_out.items() if isinstance(left_out, dict) else ()
        lines = [f"{e(count)} {e(REASONS.get(reason, reason))} left out" for reason, count in left if count]
        head = f"<p>{e(outcome.get('pairs', len(pairs)))} in all, {e(outcome.get('wrong_students', '?'))} with a wrong student.</p>"
        shown = "".join(side_by_side((p.reference, p.student), ("reference", "student"), f"distance {p.distance:.2f}") for p in pairs)
        first = f'<p class="soft">The {plural(len(pairs), "pair")} that differ most:</p>' if pairs else ""
        parts.append(f"<h3>{e(name)}</h3>{head}{listed(lines)}{first}{shown}")
    return "".join(parts)
