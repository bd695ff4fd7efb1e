"""Silence is the commonest fault of experience: nothing crashes, nothing is shown. A run that expects it stops instead."""

import logging
from collections.abc import Mapping
from typing import Any

from hiexp_verl.config import HiExpConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.store import HEK
from hiexp_verl.run.arm import PLACES_OF, arm_of
from hiexp_verl.run.control import levels_at, shows
from hiexp_verl.run.guide import Place

logger = logging.getLogger(__name__)

# What tells that a place showed something, and what a user looks at when it did not.
_METRIC: dict[Place, str] = {"start": "hiexp/e2_e3_hit_rate", "step": "hiexp/e1_fire_rate"}
_HINT: dict[Place, str] = {
    "start": "no episode was shown E2 or E3; look at hiexp.start.min_score and max_tokens, and at data.max_prompt_length",
    "step": "no search call got an E1; look at hiexp.step.min_score and max_tokens, and at whether the policy searches at all",
}


class Expectation:
    """Fails the run when a place that should show experience has shown none in its first steps.

    Nothing is expected of a place for which the HEK has no entries, whose budget is 0, or that the control or the arms of a group
    of `n` leave empty.
    """

    def __init__(self, settings: HiExpConfig, hek: HEK | None, n: int) -> None:
        self._after = settings.expect.after
        self._lookup_failures = settings.expect.lookup_failures
        self._steps = 0
        self._silent: set[Place] = set()
        if hek is None or not shows(settings.control, validating=False):
            return
        places = {place for session in range(n) for place in PLACES_OF[arm_of(session, n, settings.group)]}
        budgets: dict[Place, tuple[bool, int]] = {
            "start": (settings.expect.start, settings.start.max_tokens),
            "step": (settings.expect.step, settings.step.max_tokens),
        }
        for place, (wanted, max_tokens) in budgets.items():
            if wanted and max_tokens and place in places and any(hek.levels[level] for level in levels_at(settings.control, place)):
                self._silent.add(place)

    def check(self, metrics: Mapping[str, float], last: bool = False) -> None:
        """Take note of a training step's metrics; at the last step of a run too short to be stopped, warn.

        Raises:
            HiExpError: it is step `expect.after` or a later one, and a place has been silent in all of them; or too many look-ups failed.
        """
        failed = metrics.get("hiexp/lookup_failures", 0.0)
        if failed > self._lookup_failures:
            raise HiExpError(
                f"{failed:.0%} of the look-ups of experience in a step failed; the warning 'a look-up of experience failed' in the log "
                "says why; mend it and resume from the last checkpoint (hiexp.expect.lookup_failures=1 goes on without experience)"
            )
        self._steps += 1
        self._silent -= {place for place in self._silent if metrics.get(_METRIC[place], 0.0) > 0}
        for place in sorted(self._silent):
            told = f"in {self._steps} steps {_HINT[place]}"
            if self._steps >= self._after:
                raise HiExpError(f"{told}; hiexp.expect.{place}=false goes on without")
            if last:
                logger.warning("%s: what was trained has not seen it", told)

    def state(self) -> dict[str, Any]:
        """Return what `load` takes up again."""
        return {"steps": self._steps, "silent": sorted(self._silent)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self._steps = state["steps"]
        self._silent &= set(state["silent"])
