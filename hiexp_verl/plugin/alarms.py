"""Collapse alarms: what goes wrong slowly in RL is said aloud, or ends the run."""

import logging
import math
from collections.abc import Callable

import numpy as np

from hiexp_verl.config import AlarmsConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.plugin.history import CAP, ENTROPY, GRADIENT, LENGTH, REPEATS, REWARD, SEARCHES, History

logger = logging.getLogger(__name__)

# A window's mean below this share of the best window's is a collapse. Entropy falls in healthy runs, too.
KEPT = {REWARD: 0.5, LENGTH: 0.3, ENTROPY: 0.1}
FEW_SEARCHES, AT_CAP, REPEATED = 0.05, 0.95, 0.5
SPIKE = 10.0  # times the median of the window before


class Alarms:
    """Judges a run by its history; each alarm speaks when it begins to hold, and again only after it has ceased to."""

    def __init__(self, settings: AlarmsConfig) -> None:
        self._settings = settings
        self.ringing: set[str] = set()

    def check(self, history: History) -> dict[str, float]:
        """Return `hiexp/alarm/*` (1: it holds at this step).

        Raises:
            HiExpError: one that is set to `stop` holds.
        """
        found: dict[str, float] = {}
        stop = ""
        for name, fault in _ALARMS.items():
            action = getattr(self._settings, name)
            if action == "off":
                continue
            said = fault(history)
            found[f"hiexp/alarm/{name}"] = float(bool(said))
            if said and name not in self.ringing:
                logger.warning("alarm: %s", said)
            if said and action == "stop":  # also when it rang before: a run resumed from the checkpoint of that step
                stop = stop or f"{said}; stopped by hiexp.alarms.{name}=stop"
            self.ringing = self.ringing | {name} if said else self.ringing - {name}
        if stop:
            raise HiExpError(stop)
        return found


def _collapse(what: str, key: str) -> Callable[[History], str]:
    def fault(history: History) -> str:
        mean = history.mean(key)
        if mean is None:
            return ""
        if not math.isfinite(mean):
            return f"{what} was {mean} in the last {history.window} steps"
        best = history.best[key]
        if mean < best - (1 - KEPT[key]) * abs(best):
            return f"{what} collapsed: {mean:.3g} over the last {history.window} steps, {best:.3g} at its best"
        return ""

    return fault


def _searches(history: History) -> str:
    mean, cap = history.mean(SEARCHES), history.mean(CAP)
    if mean is not None and mean < FEW_SEARCHES:
        return f"the policy has all but stopped to search: {mean:.2g} searches per episode over the last {history.window} steps"
    if cap is not None and cap > AT_CAP:
        return f"{cap:.0%} of the episodes of the last {history.window} steps made as many searches as they may"
    return ""


def _repeats(history: History) -> str:
    mean = history.mean(REPEATS)
    if mean is not None and mean > REPEATED:
        return f"{mean:.0%} of the queries of the last {history.window} steps ask what their episode has asked before"
    return ""


def _gradient(history: History) -> str:
    *before, last = history.values(GRADIENT) or [0.0]
    if not math.isfinite(last):
        return f"the gradient norm is {last}"
    median = float(np.median(before)) if len(before) == history.window - 1 else 0.0
    if median > 0 and last > SPIKE * median:
        return f"the gradient norm is {last:.3g}, {last / median:.0f} times its median over the {len(before)} steps before"
    return ""


_ALARMS: dict[str, Callable[[History], str]] = {
    "reward": _collapse("the reward", REWARD),
    "length": _collapse("the response length", LENGTH),
    "entropy": _collapse("the entropy", ENTROPY),
    "searches": _searches,
    "repeats": _repeats,
    "gradient": _gradient,
}
