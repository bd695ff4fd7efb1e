"""The monitor of a training: use of each entry, a window of metrics, checks that experience is shown, collapse alarms.

A run without experience does not crash: `Expectation` stops it. A collapse is slow: `Alarms` warns or stops. `Watch` holds all of
it, once per run, and its state goes into every checkpoint.
"""

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hiexp_verl.config import AlarmsConfig, HiExpConfig, Place
from hiexp_verl.domains import domain_named
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.arms import arm_of, levels_at
from hiexp_verl.hek.store import HEK
from hiexp_verl.plugin.metrics import EpisodeOutcome, episode_metrics

logger = logging.getLogger(__name__)

REWARD, LENGTH, ENTROPY, GRADIENT = "hiexp/reward_mean", "hiexp/response_tokens", "actor/entropy", "actor/grad_norm"
SEARCHES, CAP, REPEATS, FAILED = "hiexp/searches", "hiexp/at_search_cap", "hiexp/repeated_query_rate", "hiexp/failed_search_rate"
FOLLOWED = (REWARD, LENGTH, ENTROPY, GRADIENT, SEARCHES, CAP, REPEATS, FAILED)
# Reward and advantage vary within a step and from step to step: (mean, variance) of each step.
_SPREAD = {"reward": (REWARD, "hiexp/reward_variance"), "advantage": ("hiexp/advantage_mean", "hiexp/advantage_variance")}


class History:
    """The followed metrics of the last `window` steps, and the best mean that any `window` steps in a row had."""

    def __init__(self, window: int) -> None:
        self.window = window
        self._steps: deque[dict[str, float]] = deque(maxlen=window)
        self.best: dict[str, float] = {}

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Add the metrics of a training step."""
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
        """Return the state for `load`."""
        return {"steps": list(self._steps), "best": self.best}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self._steps.extend(state["steps"])
        self.best = dict(state["best"])


# The metric that is above 0 when a place showed something, and what to check when it stays 0.
_EXPECTED: dict[Place, tuple[str, str]] = {
    "prompt": (
        "hiexp/e2_e3_hit_rate",
        "no episode was shown E2 or E3; check hiexp.prompt.min_score and max_tokens, and data.max_prompt_length",
    ),
    "tool": (
        "hiexp/e1_fire_rate",
        "no search call got an E1; check hiexp.tool.min_score and max_tokens, and whether the policy searches at all",
    ),
}


class Expectation:
    """Stops the run when a place that should show experience has shown none in its first steps.

    Nothing is expected of a place for which the HEK has no entries, whose budget is 0, or that no arm of a group of `n` fills.
    """

    def __init__(self, settings: HiExpConfig, hek: HEK | None, n: int) -> None:
        self._settings = settings.expect
        self._steps = 0
        self._silent: set[Place] = set()
        available, domain, steps = hek.levels if hek is not None else {}, domain_named(settings.domain), settings.tool.steps
        for place in _EXPECTED:
            levels = {level for session in range(n) for level in levels_at(arm_of(session, settings), place, domain, steps)}
            if getattr(settings.expect, place) and getattr(settings, place).max_tokens and any(available.get(level) for level in levels):
                self._silent.add(place)

    def check(self, metrics: Mapping[str, float], last: bool = False) -> None:
        """Check the metrics of a training step; at the last step of a run shorter than `expect.after`, only warn.

        Raises:
            HiExpError: a place has shown nothing in `expect.after` steps or more, or too many look-ups failed.
        """
        failed = metrics.get("hiexp/lookup_failures", 0.0)
        if failed > self._settings.lookup_failures:
            raise HiExpError(
                f"{failed:.0%} of the look-ups of experience in a step failed; the warning 'a look-up of experience failed' in the log "
                "names the cause; correct it and resume (hiexp.expect.lookup_failures=1 goes on without experience)"
            )
        self._steps += 1
        self._silent -= {place for place in self._silent if metrics.get(_EXPECTED[place][0], 0.0) > 0}
        for place in sorted(self._silent):
            fault = f"in {self._steps} steps {_EXPECTED[place][1]}"
            if self._steps >= self._settings.after:
                raise HiExpError(f"{fault}; hiexp.expect.{place}=false trains without")
            if last:
                logger.warning("%s; the policy was trained without it", fault)

    def state(self) -> dict[str, Any]:
        """Return the state for `load`."""
        return {"steps": self._steps, "silent": sorted(self._silent)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self._steps = state["steps"]
        self._silent &= set(state["silent"])


# A window's mean below this share of the best window's is a collapse. Entropy falls in healthy runs, too.
KEPT = {REWARD: 0.5, LENGTH: 0.3, ENTROPY: 0.1}
FEW_SEARCHES, AT_CAP, REPEATED, FAILING = 0.05, 0.95, 0.5, 0.5
SPIKE = 10.0  # times the median of the window before


class Alarms:
    """The collapse alarms of a run. Each is logged when it is triggered, and again only after it was cleared."""

    def __init__(self, settings: AlarmsConfig) -> None:
        self._settings = settings
        self.triggered: set[str] = set()

    def check(self, history: History) -> dict[str, float]:
        """Return `hiexp/alarm/*` (1: triggered at this step).

        Raises:
            HiExpError: an alarm that is set to `stop` is triggered.
        """
        messages = {name: fault(history) for name, fault in ALARMS.items() if getattr(self._settings, name) != "off"}
        before, self.triggered = self.triggered, {name for name, message in messages.items() if message}
        for name in sorted(self.triggered - before):
            logger.warning("alarm: %s", messages[name])
        for name in sorted(self.triggered):  # not only the new ones: the run may be resumed from the checkpoint of such a step
            if getattr(self._settings, name) == "stop":
                raise HiExpError(f"{messages[name]}; stopped by hiexp.alarms.{name}=stop")
        return {f"hiexp/alarm/{name}": float(bool(message)) for name, message in messages.items()}


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
        return f"the policy has almost stopped searching: {mean:.2g} searches per episode over the last {history.window} steps"
    if cap is not None and cap > AT_CAP:
        return f"{cap:.0%} of the episodes of the last {history.window} steps made the maximum number of searches"
    return ""


def _repeats(history: History) -> str:
    mean = history.mean(REPEATS) or 0.0
    text = f"{mean:.0%} of the queries of the last {history.window} steps repeat an earlier query of their episode"
    return text if mean > REPEATED else ""


def _failures(history: History) -> str:
    values = history.values(FAILED)[-3:]  # not a whole window: such a run learns to do without searches
    text = f"{np.mean(values or [0.0]):.0%} of the searches of the last 3 steps failed; see the warnings 'search failed' in the log"
    return text if len(values) == min(3, history.window) and min(values) > FAILING else ""


def _gradient(history: History) -> str:
    *before, last = history.values(GRADIENT) or [0.0]
    if not math.isfinite(last):
        return f"the gradient norm is {last}"
    median = float(np.median(before)) if len(before) == history.window - 1 else 0.0
    if median > 0 and last > SPIKE * median:
        return f"the gradient norm is {last:.3g}, {last / median:.0f} times its median over the {len(before)} steps before"
    return ""


# Names are the fields of `config.AlarmsConfig`.
ALARMS: dict[str, Callable[[History], str]] = {
    "reward": _collapse("the reward", REWARD),
    "length": _collapse("the response length", LENGTH),
    "entropy": _collapse("the entropy", ENTROPY),
    "searches": _searches,
    "repeats": _repeats,
    "failures": _failures,
    "gradient": _gradient,
}


class Watch:
    """Adds metrics of each step's episodes, and keeps what a checkpoint stores.

    `counters` has for each entry shown so far: the episodes that saw it, and the sum of their rewards.
    """

    def __init__(self, settings: HiExpConfig, hek: HEK | None, n: int, max_searches: int) -> None:
        self._max_searches = max_searches
        self.counters: dict[str, dict[str, float]] = {}
        self.history = History(settings.alarms.window)
        self._settings, self._n = settings, n
        self._domain = domain_named(settings.domain)
        # Without a tool nothing is searched; what is looked up between steps always has the question in it.
        unsearched = replace(settings.alarms, searches="off", repeats="off")
        self._alarms = Alarms(settings.alarms if self._domain.tool is not None else unsearched)
        self._expectation = Expectation(settings, hek, n)

    def step(self, episodes: Sequence[EpisodeOutcome], metrics: dict[str, Any], last: bool = False) -> None:
        """Add `hiexp/*` of the step's episodes to its metrics; `last`: the run ends with this step.

        Raises:
            HiExpError: expected experience was not shown, or an alarm that is set to `stop` is triggered.
        """
        metrics.update(episode_metrics(episodes, self._max_searches, self._domain))
        for episode in episodes:
            for entry in {row["entry"] for row in episode.record.shown}:
                counter = self.counters.setdefault(entry, {"episodes": 0, "reward": 0.0})
                counter["episodes"] += 1
                counter["reward"] = round(counter["reward"] + episode.reward, 6)
        self.history.add(metrics)
        metrics.update(self.history.metrics())
        self._expectation.check(metrics, last)
        metrics.update(self._alarms.check(self.history))

    def rearm(self, hek: HEK) -> None:
        """Expect experience of another version, and forget what was best with the one before."""
        self._expectation = Expectation(self._settings, hek, self._n)
        self.history.best.clear()

    def state(self) -> dict[str, Any]:
        """Return the state for `load`, as plain JSON values."""
        return {
            "counters": {entry: self.counters[entry] for entry in sorted(self.counters)},
            "history": self.history.state(),
            "expectation": self._expectation.state(),
            "triggered": sorted(self._alarms.triggered),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.counters = {entry: dict(counter) for entry, counter in state["counters"].items()}
        self.history.load(state["history"])
        self._expectation.load(state["expectation"])
        self._alarms.triggered = set(state["triggered"])
