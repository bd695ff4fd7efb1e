"""Provenance of an entry: its rollouts side by side, and the places in them that are its evidence."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hiexp_verl.domains.domain import Domain
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.datasets import read_trajectories
from hiexp_verl.protocol import text_of
from hiexp_verl.scoring import normalise
from hiexp_verl.text import alike_from_start
from hiexp_verl.types import Entry, Evidence, Source, Trajectory

Transcripts = Mapping[str, Trajectory]  # by id
_CONTEXT = 600  # characters shown on each side of a span at most
_TODO = "give the file that the HEK was built from"


@dataclass(frozen=True)
class SideBySide:
    """A failure beside a success of the same question; None where the entry has no such source."""

    failure: Source | None
    success: Source | None
    differ_at: int | None  # the first of their `actions` that differs, from 0; None without two sides or a difference


@dataclass(frozen=True)
class Excerpt:
    """A span of a message with the rest of its line, which is a document in a message with documents."""

    before: str
    span: str
    after: str


def actions(source: Source, called: str = "search") -> list[tuple[str, str]]:
    """Return what the rollout did in order: ("search", query) for each action, as it is called, then ("answer", prediction)."""
    return [*((called, query) for query in source.queries), ("answer", source.prediction)]


def comparisons(entry: Entry, sources: Mapping[str, Source]) -> list[SideBySide]:
    """Return the comparisons of the entry's known sources, question by question; each source is in at least one.

    A failure is compared with the success that shares most of its first queries; of equal ones with the first.
    """
    groups: dict[str, list[Source]] = {}
    for source in (sources[id] for id in entry.sources if id in sources):
        groups.setdefault(source.question_id, []).append(source)
    compared: list[SideBySide] = []
    for group in groups.values():
        failures, successes = [source for source in group if not source.correct], [source for source in group if source.correct]
        shown: set[str] = set()
        for failure in failures:
            nearest = max(successes, key=lambda success: alike_from_start(failure.queries, success.queries), default=None)
            compared.append(SideBySide(failure, nearest, _differ_at(failure, nearest) if nearest else None))
            shown |= {nearest.id} if nearest else set()
        compared += [SideBySide(None, success, None) for success in successes if success.id not in shown]
    return compared


def parents_of(hek: HEK) -> dict[str, list[Entry]]:
    """Return the entries that summarise each entry, by its id; entries without a parent are left out."""
    parents: dict[str, list[Entry]] = {}
    for entry in hek.entries:
        for child in entry.children:
            parents.setdefault(child, []).append(entry)
    return parents


def neighbours(hek: HEK, entry: Entry) -> list[Entry]:
    """Return the other children of the entry's parents, each once."""
    ids = dict.fromkeys(child for parent in parents_of(hek).get(entry.id, ()) for child in parent.children if child != entry.id)
    return [hek.entry(each) for each in ids]


def most_telling(compared: Iterable[SideBySide]) -> SideBySide | None:
    """Return the failure and success that did the same for longest before they parted: what is left made the difference.

    Of equal ones the shortest; None where no failure differs from a success.
    """
    parted = [each for each in compared if each.failure is not None and each.success is not None and each.differ_at is not None]
    return min(parted, key=lambda each: (-(each.differ_at or 0), _length(each)), default=None)


def _length(compared: SideBySide) -> int:
    return sum(len(side.queries) for side in (compared.failure, compared.success) if side is not None)


def read_transcripts(
    files: Iterable[Path], entries: Iterable[Entry], sources: Mapping[str, Source], domain: Domain | None = SEARCH
) -> dict[str, Trajectory]:
    """Read the trajectories that the entries' evidence points into, as far as the files hold them.

    Without the domain only answers show that a trajectory is another one of the same id.

    Raises:
        HiExpError: a file cannot be read; none of the evidence is in them, or an id belongs to another rollout.
    """
    files, wanted = list(files), {evidence.trajectory for entry in entries for evidence in entry.evidence}
    found: dict[str, Trajectory] = {}
    others: set[str] = set()
    for trajectory in read_trajectories(*files):
        if trajectory.id in wanted and _is(trajectory, sources.get(trajectory.id), domain):
            found[trajectory.id] = trajectory
        elif trajectory.id in wanted:
            others.add(trajectory.id)
    where = ", ".join(map(str, files))
    if others - found.keys():
        wrong = min(others - found.keys())
        raise HiExpError(f"the trajectory {wrong!r} of {where} is not the one in the HEK (queries or answer differ); {_TODO}")
    if wanted and not found:
        raise HiExpError(f"{where} holds none of the {len(wanted)} trajectories that the evidence points into; {_TODO}")
    return found


def excerpt(evidence: Evidence, transcripts: Transcripts) -> Excerpt | None:
    """Return the span of the evidence in its document, or None without the transcript.

    Raises:
        HiExpError: the transcript has no such message or span.
    """
    trajectory = transcripts.get(evidence.trajectory)
    if trajectory is None:
        return None
    message = text_of(trajectory.messages[evidence.message]) if 0 <= evidence.message < len(trajectory.messages) else ""
    if not 0 <= evidence.start <= evidence.end <= len(message):
        place = f"characters {evidence.start} to {evidence.end} of message {evidence.message}"
        raise HiExpError(f"the trajectory {evidence.trajectory!r} has no {place}, which an entry's evidence points at; {_TODO}")
    before = message[: evidence.start].rpartition("\n")[2]
    after = message[evidence.end :].partition("\n")[0]
    return Excerpt(
        before if len(before) <= _CONTEXT else "…" + before[-_CONTEXT:],
        message[evidence.start : evidence.end],
        after if len(after) <= _CONTEXT else after[:_CONTEXT] + "…",
    )


def _differ_at(failure: Source, success: Source) -> int | None:
    alike = alike_from_start(failure.queries, success.queries)
    # Where one ends, its answer is compared with the other's next search; where both end, their answers are.
    both_end = alike == len(failure.queries) == len(success.queries)
    return None if both_end and normalise(failure.prediction) == normalise(success.prediction) else alike


def _is(trajectory: Trajectory, source: Source | None, domain: Domain | None) -> bool:
    """Return whether a transcript is the rollout of the source: ids such as "q1#0" recur from run to run."""
    if source is None:
        return True
    queries = tuple(domain.actions(trajectory.messages)) if domain is not None else source.queries
    return (trajectory.prediction, queries) == (source.prediction, source.queries)
