"""Guards of the loop in training: what holds it, what refuses a candidate, and what takes a version back (`hiexp.loop.guards`).

The gate compares rewards within groups. It cannot see that answers grow longer, that the policy stops searching, that one entry is shown
everywhere, or that validation falls: that is what these are for. A value counts by its mean over the last `window` steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from statistics import fmean

from hiexp_verl.config_loop import GuardsConfig
from hiexp_verl.plugin.monitor import ENTROPY, LENGTH, SEARCHES

FIRST = 20  # steps of a run by which it is judged later
_OF_FIRST = {"length": "the length of responses", "searches": "the number of searches", "entropy": "the entropy"}
_SHARES = {
    "searchless": "of the episodes have no search with a result",
    "equal_groups": "of the groups have equal rewards",
    "top_entry": "of what is shown is one entry",
}
_REFUSED = {
    "self_sourced": "of what it brings rests on rollouts with experience alone",
    "changed_lookups": "of the questions find another entry first",
    "removed": "of the entries are removed",
}
_FALLS = {"reward": "the reward with experience", "answered": "the share of answers", "validation": "validation"}
_METRICS = {
    "length": LENGTH,
    "searches": SEARCHES,
    "entropy": ENTROPY,
    "equal_groups": "hiexp/zero_variance_groups",
    "top_entry": "hiexp/loop/top_share",
    "answered": "hiexp/answered",
}


@dataclass
class Guards:
    """What the guards remember; a checkpoint keeps it."""

    first: dict[str, list[float]] = field(default_factory=dict)  # values of the run's first steps, by guard
    recent: list[dict[str, float]] = field(default_factory=list)  # of the last steps with the version in use
    before: dict[str, float] = field(default_factory=dict)  # means with the version before
    validation: float | None = None  # the last one with the version in use
    raised: list[str] = field(default_factory=list)  # what holds the loop

    def step(self, metrics: Mapping[str, float], reward: float | None, config: GuardsConfig) -> bool:
        """Add a step; return whether something holds the loop that did not before. `reward`: of rollouts that saw the version in use."""
        found = {name: float(metrics[key]) for name, key in _METRICS.items() if key in metrics}
        if "hiexp/valid_search_rate" in metrics:
            found["searchless"] = 1 - float(metrics["hiexp/valid_search_rate"])
        if reward is not None:
            found["reward"] = reward
        found = {name: value for name, value in found.items() if isfinite(value) and getattr(config, name) is not None}
        for name in _OF_FIRST:
            if name in found and len(values := self.first.setdefault(name, [])) < FIRST:
                values.append(found[name])
        self.recent = [*self.recent, found][-config.window :]
        before, self.raised = self.raised, self._raised(config)
        return bool({each.partition(":")[0] for each in self.raised} - {each.partition(":")[0] for each in before})

    def _raised(self, config: GuardsConfig) -> list[str]:
        """Return what holds the loop, each as `name: what is seen`."""
        found = []
        for name, what in _OF_FIRST.items():
            bound, now, first = getattr(config, name), self._mean(name, config), self.first.get(name, ())
            if bound is None or now is None or len(first) < FIRST:
                continue
            then = fmean(first)
            low, high = (bound * then, float("inf")) if name == "entropy" else (then / bound, then * bound)
            if not low <= now <= high:
                found.append(f"{name}: {what} is {now:.3g}, {then:.3g} in the run's first {FIRST} steps")
        for name, what in _SHARES.items():
            bound, now = getattr(config, name), self._mean(name, config)
            if bound is not None and now is not None and now > bound:
                found.append(f"{name}: {now:.0%} {what}")
        return found

    def refusal(self, shares: Mapping[str, float], config: GuardsConfig) -> str:
        """Return why a candidate with these shares is not played; "" where it may be."""
        found = [(name, getattr(config, name), shares[name]) for name in _REFUSED]
        return "; ".join(f"{name}: {share:.0%} {_REFUSED[name]}" for name, bound, share in found if bound is not None and share > bound)

    def published(self, config: GuardsConfig) -> None:
        """Begin to follow another version."""
        means = {name: self._mean(name, config) for name in ("reward", "answered")} | {"validation": self.validation}
        self.before = {name: mean for name, mean in means.items() if mean is not None}
        self.recent, self.validation = [], None

    def fall(self, config: GuardsConfig) -> str:
        """Return what has fallen with the version in use; "" where nothing has, or too little is known."""
        for name, what in _FALLS.items():
            now, bound = self.validation if name == "validation" else self._mean(name, config), getattr(config, name)
            if bound is not None and now is not None and name in self.before and self.before[name] - now > bound:
                return f"{name}: {what} is {now:.3g}, and was {self.before[name]:.3g} with the version before"
        return ""

    def _mean(self, name: str, config: GuardsConfig) -> float | None:
        """Return the mean over the window; None while it is not full."""
        values = [step[name] for step in self.recent if name in step]
        return fmean(values) if len(values) == config.window else None
