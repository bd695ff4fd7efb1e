"""The HEK as a tree E3 > E2 > E1, with the use of each entry and the outcome of the episodes that saw it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean

from hiexp_verl.hek.store import HEK
from hiexp_verl.ledger.credit import Credit, credit
from hiexp_verl.ledger.rows import row_of
from hiexp_verl.ledger.table import effect_text
from hiexp_verl.report.episodes import Played, by_question
from hiexp_verl.report.html import e, plural
from hiexp_verl.types import Entry

MAX_CHILDREN = 40  # shown under one entry


@dataclass(frozen=True)
class Use:
    """How often an entry was shown, and the outcome of those episodes."""

    episodes: int
    reward: float  # mean
    accuracy: float | None = None  # None where it is not known
    credit: Credit | None = None  # what showing it did, where there is something to compare with


def uses_of(
    played: Iterable[Played], counters: Iterable[Mapping[str, Mapping[str, float]]] = (), entries: Sequence[Entry] = ()
) -> dict[str, Use]:
    """Return the use of every entry that was shown.

    Args:
        counters: of runs that kept no episodes: episodes and sum of rewards for each entry.
        entries: of the HEK, whose tree the estimates use.
    """
    groups = by_question(played)
    with_: dict[str, list[Played]] = defaultdict(list)
    content_of: dict[str, str] = {}
    rows = []
    for number, group in enumerate(groups):
        for session, one in enumerate(group):
            rows.append(replace(row_of(one.record, one.score, group=str(number)), session=session))
            content_of |= {shown["entry"]: shown["content"] for shown in one.record.shown}
            for entry in one.shown:
                with_[entry].append(one)
    credits = credit(rows, entries).of
    uses = {}
    for entry, shown in with_.items():
        reward, accuracy = fmean(one.score for one in shown), fmean(one.correct for one in shown)
        uses[entry] = Use(len(shown), reward, accuracy, credits.get(content_of[entry]))
    for counted in counters:
        for entry, counter in counted.items():
            use = uses.get(entry, Use(0, 0.0))
            episodes = use.episodes + int(counter["episodes"])
            uses[entry] = replace(use, episodes=episodes, reward=(use.reward * use.episodes + counter["reward"]) / max(episodes, 1))
    return uses


def tree(hek: HEK, uses: Mapping[str, Use]) -> str:
    """Return the tree; under each entry those first that were shown most, with what is below them."""
    header = hek.header
    counts = ", ".join(f"{count} {level.upper()}" for level, count in sorted(hek.levels.items(), reverse=True))
    origin = f"Encoder {e(header.encoder.name)}, distilled by {e(header.distiller or 'unknown')}, {e(header.content_hash[:12])}"
    used = sum(entry.id in uses for entry in hek.entries)
    total = f"{used} of {len(hek.entries)} entries were shown in the episodes of this report"
    more = f" At most {MAX_CHILDREN} are below each entry; <code>hiexp inspect HEK --html FILE</code> shows all."
    more *= len(hek.entries) > MAX_CHILDREN
    children = {child for entry in hek.entries for child in entry.children}
    roots = [entry for entry in hek.entries if entry.id not in children]
    return f'<p class="soft">{counts}. {origin}. {total}.{more}</p><div class="card tree">{_Branches(hek, uses).of(roots)}</div>'


class _Branches:
    """Draws entries with what is below them."""

    def __init__(self, hek: HEK, uses: Mapping[str, Use]) -> None:
        self._by_id = {entry.id: entry for entry in hek.entries}
        self._uses = uses
        self._shown = cache(self._count_shown)

    def of(self, entries: Sequence[Entry]) -> str:
        ranked = sorted(entries, key=lambda entry: (-int(entry.level[1]), -self._shown(entry.id), entry.id))
        more = f'<p class="soft">and {len(ranked) - MAX_CHILDREN} more</p>' if len(ranked) > MAX_CHILDREN else ""
        return "".join(map(self._one, ranked[:MAX_CHILDREN])) + more

    def _count_shown(self, entry_id: str) -> int:
        """Return how often an entry and those below it were shown."""
        own = self._uses[entry_id].episodes if entry_id in self._uses else 0
        return own + sum(map(self._shown, self._by_id[entry_id].children))

    def _one(self, entry: Entry) -> str:
        use = self._uses.get(entry.id)
        tags = f'<span class="tag">{entry.level.upper()}</span><span class="tag {e(entry.kind)}">{e(entry.kind)}</span>'
        source = f'<p class="soft">{e(entry.id)}, from {plural(len(entry.questions), "question")}</p>'
        about = f'<p dir="auto">{e(entry.description)}</p>{source}{_outcome(use)}'
        brief = f' <span class="soft">{use.episodes}&times;</span>' if use else ""
        title = f'{tags}<span dir="auto">{e(entry.title)}</span>{brief}'
        if not entry.children:
            return f'<details class="leaf"><summary>{title}</summary>{about}</details>'
        below = self.of([self._by_id[child] for child in entry.children])
        return f"<details{' open' if entry.level == 'e3' else ''}><summary>{title}</summary>{about}{below}</details>"


def _outcome(use: Use | None) -> str:
    if use is None:
        return '<p class="soft">never shown</p>'
    right = "" if use.accuracy is None else f", {use.accuracy:.0%} right"
    text = f"Shown in {plural(use.episodes, 'episode')}: mean reward {use.reward:.2f}{right}."
    if use.credit is None or not use.credit.groups:
        return f"<p>{text}</p>"
    style = "good" if use.credit.low > 0 else "bad" if use.credit.high < 0 else "soft"
    return f'<p>{text} Effect <span class="{style}">{e(effect_text(use.credit))}</span>.</p>'
