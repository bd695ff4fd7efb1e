"""The last steps of a run: what is judged together, and how much it varies."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

REWARD, LENGTH, ENTROPY, GRADIENT = "hiexp/reward_mean", "hiexp/response_tokens", "actor/entropy", "actor/grad_norm"
SEARCHES, CAP, REPEATS = "hiexp/searches", "hiexp/at_search_cap", "hiexp/repeated_query_rate"
FOLLOWED = (REWARD, LENGTH, ENTROPY, GRADIENT, SEARCHES, CAP, REPEATS)
# Reward and advantage vary within a step and from step to step: (mean, variance) of each step.
_SPREAD = {"reward": (REWARD, "hiexp/reward_variance"), "advantage": ("hiexp/advantage_mean", "hiexp/advantage_variance")}


class History:
    """The followed metrics of the last `window` steps, and the best mean that any `window` steps in a row had."""

    def __init__(self, window: int) -> None:
        self.window = window
        self._steps: deque[dict[str, float]] = deque(maxlen=window)
        self.best: dict[str, float] = {}

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Take note of a training step's metrics."""
        keys = {*FOLLOWED, *(key for pair in _SPREAD.values() for key in pair)}
        self._steps.append({key: float(metrics[key]) for key in sorted(keys) if key in metrics})
        for key in FOLLOWED:
            if (mean := self.mean(key)) is not None and np.isfinite(mean):
                self.best[key] = max(mean, self.best.get(key, mean))

    def values(self, key: str) -> list[float]:
        """Return the metric in the last steps, oldest first."""
        return [step[key] for step in self._steps if key in step]

    def mean(self, key: str) -> float | None:
        """Return the mean over the window; None while the window is not full."""
        values = self.values(key)
        return float(np.mean(values)) if len(values) == self.window else None

    def metrics(self) -> dict[str, float]:
        """Return `hiexp/window/*`: variance of reward and advantage over all episodes, of the gradient norm over the steps.

        Steps count alike, as they have equally many episodes.
        """
        found: dict[str, float] = {}
        for name, (mean, variance) in _SPREAD.items():
            if means := self.values(mean):
                found[f"hiexp/window/{name}_variance"] = float(np.mean(self.values(variance)) + np.var(means))
        if norms := self.values(GRADIENT):
            found["hiexp/window/gradient_variance"] = float(np.var(norms))
        return found

    def state(self) -> dict[str, Any]:
        """Return what `load` takes up again."""
        return {"steps": list(self._steps), "best": self.best}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self._steps.extend(state["steps"])
        self.best = dict(state["best"])
