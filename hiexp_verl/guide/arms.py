"""Controls: the same run with experience changed in one respect, to see what an effect rests on.

full                the method as it is
none                no experience is shown; all else stays
random              as many entries as would be shown, of the same levels, but drawn at random
shuffled            each entry is found by the title of another one of its level
e1, e2, e3          one level alone
start-only          E2 and E3 in the system prompt alone; step-only: E1 with the documents alone
train-only          nothing in validation; inference-only: nothing in training
with-own-question   without leave-one-out, to measure what leaks through it

Mixed groups: which rollouts of a group see experience, and where; known from the session's index alone.

A group whose rollouts differ in what they see tells what seeing it is worth, question by question (`hiexp/gap/*`)."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from hiexp_verl.config import GroupConfig
from hiexp_verl.guide.guide import LEVELS_OF, Place
from hiexp_verl.hek.store import HEK
from hiexp_verl.types import Entry, Hit, Level

_ONLY: dict[str, tuple[Level, ...]] = {
    "none": (),
    "start-only": ("e3", "e2"),
    "step-only": ("e1",),
    "e1": ("e1",),
    "e2": ("e2",),
    "e3": ("e3",),
}


def levels_at(control: str, place: Place) -> tuple[Level, ...]:
    """Return the levels that the control leaves at a place."""
    return tuple(level for level in LEVELS_OF[place] if level in _ONLY.get(control, LEVELS_OF[place]))


def shows(control: str, validating: bool) -> bool:
    """Whether experience is shown at all in this kind of rollout."""
    return control != ("train-only" if validating else "inference-only")


def shuffled(hek: HEK) -> HEK:
    """Return the HEK with the titles' vectors moved one entry on, within each level in a fixed random order.

    What is shown, and what leave-one-out hides, stays with its entry. A level of one entry cannot be shuffled.
    """
    vectors_E_D = hek.vectors_E_D.copy()
    for level in hek.levels:
        rows = [row for row, entry in enumerate(hek.entries) if entry.level == level]
        random.Random(level).shuffle(rows)
        vectors_E_D[rows] = hek.vectors_E_D[rows[-1:] + rows[:-1]]
    return replace(hek, vectors_E_D=vectors_E_D)


def drawn(hits: Sequence[Hit], text: str, pool: Sequence[Entry]) -> list[Hit]:
    """Return as many entries of the same levels, drawn from the pool by the text alone; the scores stay with the places."""
    chance = random.Random(hashlib.sha256(text.encode("utf-8", "replace")).digest())
    order = chance.sample(list(pool), len(pool))
    left = {hit.entry.level: [entry for entry in order if entry.level == hit.entry.level] for hit in hits}
    return [Hit(left[hit.entry.level].pop(), hit.score) for hit in hits if left[hit.entry.level]]


Arm = Literal["none", "start", "step", "all"]
PLACES_OF: dict[Arm, tuple[Place, ...]] = {"none": (), "start": ("start",), "step": ("step",), "all": ("start", "step")}
STRATA: tuple[Arm, ...] = ("none", "start", "step", "all")


def arm_of(session: int, n: int, group: GroupConfig) -> Arm:
    """Return what the rollout of this index in a group of n sees.

    With a share between 0 and 1 the first sessions are guided: at least one is, and at least one is not.
    """
    if group.stratified:
        return STRATA[session % len(STRATA)]
    return "all" if session < guided(n, group.with_experience) else "none"


def guided(n: int, share: float) -> int:
    """Return how many rollouts of a group of n see experience."""
    if not 0 < share < 1:
        return n if share else 0
    return min(max(round(n * share), 1), n - 1)
