"""The HEK as a tree E3 > E2 > E1, with the use of each entry and the outcome of the episodes that saw it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from hiexp_verl.hek.store import HEK
from hiexp_verl.report.episodes import Played
from hiexp_verl.report.html import e, plural
from hiexp_verl.types import Entry


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


MAX_CHILDREN = 40  # shown under one entry
MAX_ENTRIES = 400  # shown of a HEK


def tree(hek: HEK, uses: Mapping[str, Use]) -> str:
    """Return the tree; of a big HEK the entries that were shown most, and those above them."""
    counts = ", ".join(f"{count} {level.upper()}" for level, count in sorted(hek.levels.items(), reverse=True))
    header = hek.header
    origin = f"Encoder {e(header.encoder.name)}, distilled by {e(header.distiller or 'unknown')}, {e(header.content_hash[:12])}"
    kept = _kept(hek, uses)
    cut = (
        f" The {len(kept)} most used are below; <code>hiexp inspect HEK --html FILE</code> shows all."
        if len(kept) < len(hek.entries)
        else ""
    )
    used = sum(entry.id in uses for entry in hek.entries)
    total = (
        f"{used} of {len(hek.entries)} were shown in the episodes of this report"
        if used
        else "none was shown in the episodes of this report"
    )
    branches = _Branches(hek, uses, kept)
    return f'<p class="soft">{counts}. {origin}; {total}.{cut}</p><div class="card tree">{branches.of(branches.roots)}</div>'


def _kept(hek: HEK, uses: Mapping[str, Use]) -> set[str]:
    parents: dict[str, list[str]] = defaultdict(list)
    for entry in hek.entries:
        for child in entry.children:
            parents[child].append(entry.id)
    kept: set[str] = set()
    for entry in sorted(hek.entries, key=lambda entry: _rank(entry, uses)):
        above = [entry.id]
        for id in above:
            above += [parent for parent in parents[id] if parent not in above]
        if len(kept.union(above)) > MAX_ENTRIES:
            break
        kept.update(above)
    return kept


def _rank(entry: Entry, uses: Mapping[str, Use]) -> tuple[int, int, str]:
    return -(uses[entry.id].episodes if entry.id in uses else 0), -int(entry.level[1]), entry.id


class _Branches:
    """Draws entries with what lies below them."""

    def __init__(self, hek: HEK, uses: Mapping[str, Use], kept: set[str]) -> None:
        self._by_id = {entry.id: entry for entry in hek.entries}
        self._uses, self._kept = uses, kept
        children = {child for entry in hek.entries for child in entry.children}
        self.roots = [entry for entry in hek.entries if entry.id not in children]

    def of(self, entries: Sequence[Entry]) -> str:
        ranked = sorted(entries, key=lambda entry: (-int(entry.level[1]), *_rank(entry, self._uses)))
        drawn = [entry for entry in ranked if entry.id in self._kept][:MAX_CHILDREN]
        more = f'<p class="soft">and {len(ranked) - len(drawn)} more</p>' if len(ranked) > len(drawn) else ""
        return "".join(map(self._one, drawn)) + more

    def _one(self, entry: Entry) -> str:
        use = self._uses.get(entry.id)
        tags = f'<span class="tag">{entry.level.upper()}</span><span class="tag {e(entry.kind)}">{e(entry.kind)}</span>'
        source = f'<p class="soft">{e(entry.id)}, from {plural(len(entry.questions), "question")}</p>'
        about = f'<p dir="auto">{e(entry.description)}</p>{source}{_outcome(use)}'
        brief = f' <span class="soft">{use.episodes}&times;</span>' if use else ""
        children = [self._by_id[child] for child in entry.children if child in self._by_id]
        title = f'{tags}<span dir="auto">{e(entry.title)}</span>{brief}'
        if not children:
            return f'<details class="leaf"><summary>{title}</summary>{about}</details>'
        return f"<details{' open' if entry.level == 'e3' else ''}><summary>{title}</summary>{about}{self.of(children)}</details>"


def _outcome(use: Use | None) -> str:
    if use is None:
        return '<p class="soft">never shown</p>'
    right = "" if use.accuracy is None else f", {use.accuracy:.0%} right"
    text = f"Shown in {plural(use.episodes, 'episode')}: mean reward {use.reward:.2f}{right}."
    if use.gain is None:
        return f"<p>{text}</p>"
    gain = round(use.gain, 2) + 0.0  # no -0.00
    style = "good" if gain > 0 else "bad" if gain < 0 else "soft"
    against = f"against the same question without it ({plural(use.questions, 'comparison')})"
    return f'<p>{text} <span class="{style}">{gain:+.2f}</span> {against}.</p>'
