"""The import: streams trajectory files into one file of our trajectories, written in full or not at all.

Rejected and counted: lines that cannot be read, exact duplicates, trajectories with the id of an earlier one, and every copy of
a trajectory whose copies differ in `correct`.
"""

import json
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

from hiexp_verl.errors import HiExpError
from hiexp_verl.importers import Converter, FromR1Searcher
from hiexp_verl.io.files import UNCHANGED, atomic_writer, digest_of, writing
from hiexp_verl.io.rows import BadRow, read_any
from hiexp_verl.protocol import searches
from hiexp_verl.types import Trajectory, to_json

logger = logging.getLogger(__name__)

CONTRADICTORY = "contradictory labels"


class Ledger:
    """Trajectories entered so far with their places ("file:line"), by digest of content and id: about 600 bytes for each."""

    def __init__(self) -> None:
        self.contradicted: set[bytes] = set()  # contents with both labels; all copies are left out
        self._labels: dict[bytes, tuple[str, bool]] = {}  # content -> first place, label
        self._ids: dict[bytes, tuple[str, bytes]] = {}  # id -> first place, content
        self._samples: Counter[str] = Counter()

    def enter(self, trajectory: Trajectory, place: str) -> tuple[Trajectory, bytes]:
        """Return the trajectory with an id, and the digest of its content: question and messages.

        Raises:
            BadRow: it is a duplicate, its id belongs to another trajectory, or its label contradicts a copy's.
        """
        content = digest_of(trajectory.question, trajectory.messages)
        first, label = self._labels.setdefault(content, (place, trajectory.correct))
        if label != trajectory.correct:
            self.contradicted.add(content)
            raise BadRow(CONTRADICTORY, f"first in {first}")
        # A trajectory without an id is identified by content and model.
        key = digest_of("id", trajectory.id) if trajectory.id else digest_of("content", content.hex(), trajectory.model)
        if key in self._ids:
            first, other = self._ids[key]
            raise BadRow("duplicate" if other == content else "the id belongs to another trajectory", f"first in {first}")
        self._ids[key] = place, content
        return (trajectory if trajectory.id else self._numbered(trajectory, place, content)), content

    def _numbered(self, trajectory: Trajectory, place: str, content: bytes) -> Trajectory:
        while True:
            numbered = replace(trajectory, id=f"{trajectory.question_id}#{self._samples[trajectory.question_id]}")
            self._samples[trajectory.question_id] += 1
            key = digest_of("id", numbered.id)
            if key not in self._ids:
                self._ids[key] = place, content
                return numbered


MAX_WARNINGS = 20  # rejected lines that are logged; the others are only counted


@dataclass
class ImportReport:
    """Counts of lines; `read` is `written` plus `rejected`."""

    read: int = 0
    written: int = 0
    reasons: Counter[str] = field(default_factory=Counter)  # why lines were rejected
    # Of those written:
    without_search: int = 0
    without_answer: int = 0
    without_result: int = 0  # they search, and no search brought anything back

    @property
    def rejected(self) -> int:
        """Return the number of rejected lines."""
        return self.reasons.total()

    def summary(self) -> str:
        """Return the counts, what the written trajectories lack, and one line per reason."""
        lines = [f"read {self.read}, written {self.written}, rejected {self.rejected}"]
        lacking = [f"{count:6d} written without {name}" for name, count, _ in self.lacks() if count]
        return "\n".join(lines + lacking + [f"{count:6d} {reason}" for reason, count in self.reasons.most_common()])

    def lacks(self) -> list[tuple[str, int, str]]:
        """Return what written trajectories can lack, how many do, and the advice for the case that most do."""
        return [
            ("a search", self.without_search, "if the agent did search, check --format and --query-tags"),
            ("an answer", self.without_answer, "if the agent did answer, give 'prediction', or <answer> ... </answer> in its last turn"),
            ("what a search found", self.without_result, "if the searches found something, check --format and --documents-tags"),
        ]


def import_trajectories(files: Sequence[Path], out: Path, convert: Converter, strict: bool = False) -> ImportReport:
    """Convert the files (JSON lines, plain or gzip) into one; log the first rejected lines with their numbers, count all of them.

    A damaged gzip counts as one rejected line. Memory holds one line, and the `Ledger`. `out` is replaced at the end or not at all.

    Args:
        files: in this order.
        out: JSON lines; must not be one of the files.
        convert: of the format that all files have; see `FORMATS`.
        strict: write nothing when any line is rejected.

    Raises:
        HiExpError: a file cannot be read, nothing in them can be used, no transcript has the expected tags, a
            line was rejected under `strict`, or `out` cannot be written.
    """
    _check_paths(files, out)
    run = _Import(files, convert)
    with writing(out, UNCHANGED):
        out.parent.mkdir(parents=True, exist_ok=True)
        # Staged, because a later line may contradict an earlier one.
        with tempfile.TemporaryFile("w+", encoding="utf-8", dir=out.parent) as staged:
            run.stage(staged)
            if isinstance(convert, FromR1Searcher):
                convert.check_tags()
            staged.seek(0)
            kept = run.kept(staged)
            first = next(kept, None)
            if first is None:
                raise HiExpError(f"nothing to import: {_rejections(run.report)}; check --format and the files")
            with atomic_writer(out) as file:
                file.write(first)
                file.writelines(kept)
                if strict and run.report.rejected:
                    raise HiExpError(f"{_rejections(run.report)}, nothing was written; correct them or leave out --strict")
    for name, count, advice in run.report.lacks():
        if 2 * count > run.report.written:  # it may not have been recognised
            logger.warning("%d of %d trajectories are without %s; %s", count, run.report.written, name, advice)
    return run.report


class _Import:
    """One import; single-use."""

    def __init__(self, files: Sequence[Path], convert: Converter) -> None:
        self.report = ImportReport()
        self._files, self._convert, self._ledger = files, convert, Ledger()
        self._staged: list[tuple[bytes, str, tuple[bool, bool, bool]]] = []  # of each staged line: content, place, what it lacks

    def stage(self, staged: TextIO) -> None:
        """Write every usable trajectory as a line."""
        for path in self._files:
            for line, row in read_any(path):
                self.report.read += 1
                place = f"{path}:{line}"
                try:
                    if isinstance(row, BadRow):
                        raise row
                    trajectory = self._convert(row)
                    _line(trajectory)  # a trajectory that cannot be written must not enter the ledger
                    trajectory, content = self._ledger.enter(trajectory, place)
                    self._staged.append((content, place, _lacks(trajectory)))
                    staged.write(_line(trajectory))
                except BadRow as error:
                    self._reject(place, error.wrong, error.found)
                except RecursionError:
                    self._reject(place, "nested too deeply")

    def kept(self, staged: TextIO) -> Iterator[str]:
        """Yield the staged trajectories that no later copy contradicts."""
        for row, (content, place, (search, answer, result)) in zip(staged, self._staged, strict=True):
            if content in self._ledger.contradicted:
                self._reject(place, CONTRADICTORY, "a later copy has the other label")
            else:
                self.report.written += 1
                self.report.without_search += search
                self.report.without_answer += answer
                self.report.without_result += result
                yield row

    def _reject(self, place: str, wrong: str, found: str = "") -> None:
        self.report.reasons[wrong] += 1
        if self.report.rejected <= MAX_WARNINGS:
            logger.warning("%s: %s%s", place, wrong, f" ({found})" if found else "")
        elif self.report.rejected == MAX_WARNINGS + 1:
            logger.warning("more than %d lines are rejected; from here on they are only counted", MAX_WARNINGS)


def _lacks(trajectory: Trajectory) -> tuple[bool, bool, bool]:
    """Return whether it has no search, no answer, and searches of which none brought anything back."""
    found = searches(trajectory.messages)
    return not found, not trajectory.prediction, bool(found) and not any(search.documents for search in found)


def _line(trajectory: Trajectory) -> str:
    try:
        return json.dumps(to_json(trajectory), ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError as error:
        raise BadRow("a number that is not finite") from error


def _check_paths(files: Sequence[Path], out: Path) -> None:
    for path in files:
        if not path.is_file():
            raise HiExpError(f"{path} is not a file; give JSON-lines files")
        if out.exists() and out.samefile(path):
            raise HiExpError(f"--out {out} is also an input, which would be overwritten; give another path")
    if (out.exists() and not out.is_file()) or out.suffix == ".gz":
        raise HiExpError(f"--out {out} must be a plain file of JSON lines; give a path such as trajectories.jsonl")


def _rejections(report: ImportReport) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in report.reasons.most_common(5))
    return f"{report.rejected} of {report.read} lines rejected" + (f" ({reasons})" if reasons else "")
