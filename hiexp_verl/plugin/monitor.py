"""The last steps of a run: what is judged together, and how much it varies.

Silence is the commonest fault of experience: nothing crashes, nothing is shown. A run that expects it stops instead.

Collapse alarms: what goes wrong slowly in RL is logged, or ends the run.

What a run has seen of its experience so far: use per entry, the last steps, what is still expected, alarms."""

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hiexp_verl.config import AlarmsConfig, HiExpConfig, Place
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.arms import arm_of, levels_at
from hiexp_verl.hek.store import HEK
from hiexp_verl.plugin.metrics import EpisodeOutcome, episode_metrics

logger = logging.getLogger(__name__)

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


# What tells that a place showed something, and what a user looks at when it did not.
_METRIC: dict[Place, str] = {"prompt": "hiexp/e2_e3_hit_rate", "tool": "hiexp/e1_fire_rate"}
_HINT: dict[Place, str] = {
    "prompt": "no episode was shown E2 or E3; look at hiexp.prompt.min_score and max_tokens, and at data.max_prompt_length",
    "tool": "no search call got an E1; look at hiexp.tool.min_score and max_tokens, and at whether the policy searches at all",
}


class Expectation:
    """Fails the run when a place that should show experience has shown none in its first steps.

    Nothing is expected of a place for which the HEK has no entries, whose budget is 0, or that no arm of a group of `n` fills.
    """

    def __init__(self, settings: HiExpConfig, hek: HEK | None, n: int) -> None:
        self._after = settings.expect.after
        self._lookup_failures = settings.expect.lookup_failures
        self._steps = 0
        self._silent: set[Place] = set()
        if hek is None:
            return
        arms = {arm_of(session, settings) for session in range(n)}
        budgets: dict[Place, tuple[bool, int]] = {
            "prompt": (settings.expect.prompt, settings.prompt.max_tokens),
            "tool": (settings.expect.tool, settings.tool.max_tokens),
        }
        for place, (wanted, max_tokens) in budgets.items():
            if wanted and max_tokens and any(hek.levels[level] for arm in arms for level in levels_at(arm, place)):
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
            fault = f"in {self._steps} steps {_HINT[place]}"
            if self._steps >= self._after:
                raise HiExpError(f"{fault}; hiexp.expect.{place}=false goes on without")
            if last:
                logger.warning("%s: what was trained has not seen it", fault)

    def state(self) -> dict[str, Any]:
        """Return what `load` takes up again."""
        return {"steps": self._steps, "silent": sorted(self._silent)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self._steps = state["steps"]
        self._silent &= set(state["silent"])


# A window's mean below this share of the best window's is a collapse. Entropy falls in healthy runs, too.
KEPT = {REWARD: 0.5, LENGTH: 0.3, ENTROPY: 0.1}
FEW_SEARCHES, AT_CAP, REPEATED = 0.05, 0.95, 0.5
SPIKE = 10.0  # times the median of the window before


class Alarms:
    """Judges a run by its history; each alarm is logged when it begins to hold, and again only after it has ceased to."""

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
            text = fault(history)
            found[f"hiexp/alarm/{name}"] = float(bool(text))
            if text and name not in self.ringing:
                logger.warning("alarm: %s", text)
            if text and action == "stop":  # also when it held before: a run resumed from the checkpoint of that step
                stop = stop or f"{text}; stopped by hiexp.alarms.{name}=stop"
            self.ringing = self.ringing | {name} if text else self.ringing - {name}
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


class Watch:
    """Turns each step's episodes into metrics, and remembers what a checkpoint has to hold.

    `counters` has for each entry shown so far: the episodes that saw it, and the sum of their rewards.
    """

    def __init__(self, settings: HiExpConfig, hek: HEK | None, n: int, max_searches: int) -> None:
        self._max_searches = max_searches
        self.counters: dict[str, dict[str, float]] = {}
        self.history = History(settings.alarms.window)
        self._expectation = Expectation(settings, hek, n)
        self._alarms = Alarms(settings.alarms)

    def step(self, episodes: Sequence[EpisodeOutcome], metrics: dict[str, Any], last: bool = False) -> None:
        """Add `hiexp/*` of the step's episodes to its metrics; `last` says that the run ends with it.

        Raises:
            HiExpError: experience that is expected stays away, or an alarm is set to stop the run.
        """
        metrics.update(episode_metrics(episodes, self._max_searches))
        for episode in episodes:
            for entry in {row["entry"] for row in episode.record.shown}:
                counter = self.counters.setdefault(entry, {"episodes": 0, "reward": 0.0})
                counter["episodes"] += 1
                counter["reward"] = round(counter["reward"] + episode.reward, 6)
        self.history.add(metrics)
        metrics.update(self.history.metrics())
        self._expectation.check(metrics, last)
        metrics.update(self._alarms.check(self.history))

    def state(self) -> dict[str, Any]:
        """Return what `load` takes up again, as JSON has it."""
        return {
            "counters": {entry: self.counters[entry] for entry in sorted(self.counters)},
            "history": self.history.state(),
            "expectation": self._expectation.state(),
            "ringing": sorted(self._alarms.ringing),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.counters = {entry: dict(counter) for entry, counter in state["counters"].items()}
        self.history.load(state["history"])
        self._expectation.load(state["expectation"])
        self._alarms.ringing = set(state["ringing"])
