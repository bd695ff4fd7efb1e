"""Drift: what experience does under one version of a HEK after the other.

The gate compares neighbours. A HEK that learns from rollouts which it guided itself can get worse by steps that are each too small to
see (self-poisoning): then the gap between rollouts with and without experience falls from version to version, and the reward of the
rollouts with experience falls, too. A gap that falls while they do not is no harm: the policy needs the HEK less.

Sums of a version, with the weights w_g of `ledger.gate` and its error without the group more; d_g is the mean reward with experience
minus that without in group g.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf, sqrt
from statistics import fmean

from hiexp_verl.guide.arms import CREDITED
from hiexp_verl.ledger.gate import detectable
from hiexp_verl.ledger.rows import LedgerRow, by_group

FALLS = 3  # publications in a row


@dataclass(frozen=True)
class Span:
    """What the groups that were shown one version add up to."""

    hek: str  # content hash
    first: int = 0  # step
    last: int = 0
    groups: int = 0
    weight: float = 0.0  # sum of w
    weight2: float = 0.0  # of w^2
    gaps: float = 0.0  # of w d
    gaps2: float = 0.0  # of w^2 d
    squares: float = 0.0  # of w^2 d^2
    guided: int = 0  # rollouts with experience in these groups
    rewards: float = 0.0  # their sum

    @property
    def gap(self) -> float:
        """Return the reward with minus without experience; 0 without groups."""
        return self.gaps / self.weight if self.weight else 0.0

    @property
    def error(self) -> float:
        """Return the standard error of the gap; inf where it is not known."""
        if self.groups < 2:
            return inf
        squares = self.squares - 2 * self.gap * self.gaps2 + self.gap**2 * self.weight2
        return sqrt(max(0.0, squares)) / self.weight

    @property
    def reward(self) -> float:
        """Return the mean reward with experience."""
        return self.rewards / self.guided if self.guided else 0.0

    def detectable(self, groups: int, z: float, rollouts: float) -> float:
        """Return the gain that a test by so many groups, with `rollouts` of each version, sees in 80 of 100 cases; inf: not known.

        Rollouts vary as those here do, so that the square of a group's error goes with 1 / w.
        """
        if not (self.groups and rollouts):
            return inf
        return detectable(self.error * sqrt(self.weight / self.groups / (rollouts / 2)), self.groups, groups, z)

    def added(self, guided: Sequence[float], unguided: Sequence[float], step: int) -> "Span":
        """Return the sums with one more group."""
        n1, n0 = len(guided), len(unguided)
        w, d = n1 * n0 / (n1 + n0), fmean(guided) - fmean(unguided)
        return replace(
            self,
            first=self.first or step,
            last=step,
            groups=self.groups + 1,
            weight=self.weight + w,
            weight2=self.weight2 + w**2,
            gaps=self.gaps + w * d,
            gaps2=self.gaps2 + w**2 * d,
            squares=self.squares + (w * d) ** 2,
            guided=self.guided + n1,
            rewards=self.rewards + sum(guided),
        )


def with_rows(span: Span, rows: Iterable[LedgerRow]) -> Span:
    """Return the span with the mixed groups of these rows, by their rollouts without experience and those that saw its version."""
    for (step, _), group in by_group(rows).items():
        guided = [row.reward for row in group if row.hek == span.hek and row.guided]
        unguided = [row.reward for row in group if row.arm == "none"]
        if guided and unguided:
            span = span.added(guided, unguided, step)
    return span


def spans_of(rows: Sequence[LedgerRow]) -> list[Span]:
    """Return a span for each version, in the order in which they were first shown; those without mixed groups are left out."""
    versions = dict.fromkeys(row.hek for row in rows if row.arm in CREDITED)
    return [span for version in versions if (span := with_rows(Span(version), rows)).groups]


def poisoned(spans: Sequence[Span], min_groups: int) -> bool:
    """Return whether each of the last publications lowered the gap, and all together the reward with experience."""
    last = spans[-FALLS - 1 :]
    if len(last) <= FALLS or min(span.groups for span in last) < min_groups:
        return False
    return all(after.gap < before.gap for before, after in pairwise(last)) and last[-1].reward < last[0].reward


def top_share(rows: Iterable[LedgerRow]) -> float:
    """Return the share of all exposures that is of one entry, the most shown one."""
    counts = Counter(seen["content"] for row in rows if row.arm in CREDITED for seen in row.shown)
    return max(counts.values()) / counts.total() if counts else 0.0
