"""Arms: which experience a rollout sees. One list of names (`config.ARMS`) for training, mixed groups and evaluation.

Two arms differ in one respect alone, so that a difference between them has one cause. A group with different arms measures the
effect of experience question by question (`hiexp/gap/*`).
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace

from hiexp_verl.config import ARMS, Arm, HiExpConfig, Place
from hiexp_verl.domains import domain_named
from hiexp_verl.domains.domain import Domain
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.guide.blocks import LEVELS_OF
from hiexp_verl.hek.store import HEK
from hiexp_verl.types import LEVELS, Entry, Hit, Level

# Their entries are what the look-up found; a random or a wrong one says nothing of its effect where it fits.
CREDITED: frozenset[str] = frozenset(("full", "prompt", "tool", "e1", "e2", "e3"))

_LEVELS: dict[Arm, tuple[Level, ...]] = {
    **dict.fromkeys(ARMS, LEVELS),
    "none": (),
    "prompt": ("e3", "e2"),
    "tool": ("e1",),
    "e1": ("e1",),
    "e2": ("e2",),
    "e3": ("e3",),
    "constitution": ("e3", "e2"),
}


def levels_at(arm: Arm, place: Place, domain: Domain = SEARCH, steps: int = 0) -> tuple[Level, ...]:
    """Return the levels that an arm shows at a place of an episode; without a tool and stops between steps, E1 stand in the prompt."""
    if domain.tool is not None or steps:
        levels = LEVELS_OF[place]
    else:
        levels = (*LEVELS_OF["prompt"], *LEVELS_OF["tool"]) if place == "prompt" else ()
    return tuple(level for level in levels if level in _LEVELS[arm])


def arm_of(session: int, settings: HiExpConfig) -> Arm:
    """Return the arm of the training rollout with this index in its group."""
    arms = settings.group.arms or (settings.arm,)
    return arms[session % len(arms)]


def plays_candidate(session: int, group: str, settings: HiExpConfig) -> bool:
    """Return whether this rollout of a group is shown the candidate: every other guided one; its name says with which to begin."""
    guided = [each for each in range(session + 1) if arm_of(each, settings) != "none"]
    first = hashlib.sha256(group.encode("utf-8", "replace")).digest()[0] % 2
    return bool(guided) and guided[-1] == session and (len(guided) + first) % 2 == 0


def shows_at(place: Place, settings: HiExpConfig) -> bool:
    """Return whether a run shows experience at a place, in training or in validation."""
    domain = domain_named(settings.domain)
    return settings.enabled and any(levels_at(arm, place, domain, settings.tool.steps) for arm in arms_of(settings))


def arms_of(settings: HiExpConfig) -> set[Arm]:
    """Return the arms of a run, in training or in validation."""
    return {*(settings.group.arms or (settings.arm,)), settings.val_arm or settings.arm}


def shuffled(hek: HEK) -> HEK:
    """Return the HEK with the titles' vectors moved one entry on, within each level in a fixed random order.

    Entries with a plan change places among themselves: who would get a plan gets a wrong one. A single one changes with the rest. What
    is shown, and what leave-one-out hides, stays with its entry. A level of one entry cannot be shuffled.
    """
    vectors_E_D = hek.vectors_E_D.copy()
    for level in hek.levels:
        rows = [row for row, entry in enumerate(hek.entries) if entry.level == level]
        random.Random(level).shuffle(rows)
        parts = [[row for row in rows if bool(hek.entries[row].plans) == planned] for planned in (True, False)]
        for part in [rows] if 1 in map(len, parts) else parts:
            vectors_E_D[part] = hek.vectors_E_D[part[-1:] + part[:-1]]
    return replace(hek, vectors_E_D=vectors_E_D)


def random_entries(hits: Sequence[Hit], text: str, pool: Sequence[Entry]) -> list[Hit]:
    """Return as many entries of the same levels from the pool, seeded by the text alone; the scores stay in order."""
    generator = random.Random(hashlib.sha256(text.encode("utf-8", "replace")).digest())
    order = generator.sample(list(pool), len(pool))
    left = {hit.entry.level: [entry for entry in order if entry.level == hit.entry.level] for hit in hits}
    return [Hit(left[hit.entry.level].pop(), hit.score) for hit in hits if left[hit.entry.level]]
