"""Mixed groups: which rollouts of a group see experience, and where; known from the session's index alone.

A group whose rollouts differ in what they see tells what seeing it is worth, question by question (`hiexp/gap/*`).
"""

from typing import Literal

from hiexp_verl.config import GroupConfig
from hiexp_verl.run.guide import Place

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
