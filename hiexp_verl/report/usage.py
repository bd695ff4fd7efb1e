"""What became of the episodes that were shown an entry."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from hiexp_verl.report.episodes import Played


@dataclass(frozen=True)
class Use:
    """How often an entry was shown, and the outcome of those episodes."""

    episodes: int
    reward: float  # mean
    accuracy: float | None  # None where it is not known
    questions: int = 0  # that were played both with and without it
    gain: float | None = None  # reward with it minus reward without it, mean over these questions


def uses_of(played: Iterable[Played], counters: Iterable[Mapping[str, Mapping[str, float]]] = ()) -> dict[str, Use]:
    """Return the use of every entry that was shown.

    Args:
        counters: of runs that kept no episodes: episodes and sum of rewards for each entry.
    """
    groups: dict[tuple[str, tuple[str, str]], list[Played]] = defaultdict(list)
    for one in played:
        groups[one.scope, one.question].append(one)
    with_: dict[str, list[Played]] = defaultdict(list)
    gains: dict[str, list[float]] = defaultdict(list)
    for group in groups.values():
        for entry in {entry for one in group for entry in one.shown}:
            shown = [one for one in group if entry in one.shown]
            with_[entry] += shown
            if len(shown) < len(group):
                gains[entry].append(fmean(one.score for one in shown) - fmean(one.score for one in group if entry not in one.shown))
    uses = {
        entry: Use(
            len(shown),
            fmean(one.score for one in shown),
            fmean(one.correct for one in shown),
            len(gains[entry]),
            fmean(gains[entry]) if gains[entry] else None,
        )
        for entry, shown in with_.items()
    }
    for counted in counters:
        for entry, counter in counted.items():
            uses[entry] = _added(uses.get(entry), int(counter["episodes"]), float(counter["reward"]))
    return uses


def _added(use: Use | None, episodes: int, reward: float) -> Use:
    if use is None:
        return Use(episodes, reward / episodes if episodes else 0.0, None)
    together = use.episodes + episodes
    return Use(together, (use.reward * use.episodes + reward) / together, use.accuracy, use.questions, use.gain)
