"""Ids of questions and trajectories are names within one data set; between two they may mean different things."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.store import HEK
from hiexp_verl.scoring import normalise


def with_own_ids(hek: HEK, other: HEK, prefix: str = "") -> HEK:
    """Return the HEK such that no id of a question or trajectory means one thing in it and another in `other`.

    Where ids of questions do, the prefix is put before all question ids of the HEK; the same for trajectories. Runs on the
    same questions ("q1#0" in both) thus keep the question ids, by which training hides a question's own experience.

    Raises:
        HiExpError: ids clash and there is no prefix, or they clash with it too.
    """
    clashes = _clashes(hek, other)
    if not any(clashes.values()):
        return hek
    if not prefix:
        what, ids = next((what, ids) for what, ids in clashes.items() if ids)
        raise HiExpError(f"the {what} id {ids[0]!r} means another {what} in each HEK ({len(ids)} such); give --prefix for the second")
    renamed = _prefixed(hek, prefix if clashes["question"] else "", prefix if clashes["trajectory"] else "")
    if any(_clashes(renamed, other).values()):
        raise HiExpError(f"with the prefix {prefix!r} ids of the second HEK still mean other things in the first; give another one")
    return renamed


def _clashes(hek: HEK, other: HEK) -> dict[str, list[str]]:
    questions = [{source.question_id: normalise(source.question) for source in each.sources} for each in (hek, other)]
    trajectories = [{source.id: replace(source, question=normalise(source.question)) for source in each.sources} for each in (hek, other)]
    return {"question": _differing(*questions), "trajectory": _differing(*trajectories)}


def _differing(one: Mapping[str, object], two: Mapping[str, object]) -> list[str]:
    return [key for key, value in one.items() if key in two and two[key] != value]


def _prefixed(hek: HEK, for_questions: str, for_trajectories: str) -> HEK:
    def questions(ids: Iterable[str]) -> tuple[str, ...]:
        return tuple(for_questions + each for each in ids)

    def trajectories(ids: Iterable[str]) -> tuple[str, ...]:
        return tuple(for_trajectories + each for each in ids)

    entries = tuple(
        replace(
            entry,
            questions=questions(entry.questions),
            sources=trajectories(entry.sources),
            evidence=tuple(replace(each, trajectory=for_trajectories + each.trajectory) for each in entry.evidence),
        )
        for entry in hek.entries
    )
    sources = tuple(replace(s, id=for_trajectories + s.id, question_id=for_questions + s.question_id) for s in hek.sources)
    duplicates = {for_questions + question: questions(others) for question, others in hek.header.near_duplicates.items()}
    return replace(hek, header=replace(hek.header, near_duplicates=duplicates), entries=entries, sources=sources)
