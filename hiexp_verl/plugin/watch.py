"""What a run has seen of its experience so far: use per entry, the last steps, what is still expected, alarms."""

from collections.abc import Mapping, Sequence
from typing import Any

from hiexp_verl.config import HiExpConfig
from hiexp_verl.hek.store import HEK
from hiexp_verl.plugin.alarms import Alarms
from hiexp_verl.plugin.expect import Expectation
from hiexp_verl.plugin.history import History
from hiexp_verl.plugin.metrics import EpisodeOutcome, episode_metrics


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
            for entry in {row["entry"] for row in episode.record["shown"]}:
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
