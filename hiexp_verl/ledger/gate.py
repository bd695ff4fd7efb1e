"""The gate of a new version: incumbent and candidate side by side in the groups of the same questions.

d_g is the candidate's mean reward minus the incumbent's in group g, with n1 and n0 rollouts; w_g = n1 n0 / (n1 + n0).
D = sum(w d) / sum(w), with the standard error clustered by group: SE^2 = sum(w^2 (d - D)^2) / sum(w)^2.
A group whose rewards are all equal counts, with d = 0. The squares have one group more, with d = 0: two groups that agree by chance
have no error of 0. The test looks three times, at fixed numbers of groups, each with z = 2.13. Of 100 versions that do nothing
`strict` accepts 3 and `ratchet` 17 (simulated by benchmarks/ledger.py, at the defaults of `hiexp.loop`).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf, sqrt
from statistics import fmean
from typing import Any, Literal

from hiexp_verl.config import GateConfig, Rule
from hiexp_verl.ledger.rows import LedgerRow, by_group

LOOKS = (1, 2, 4)  # times `min_groups`
POWER_80 = 0.84  # standard normal quantile
Decision = Literal["accept", "reject", "no difference", "wait"]


def detectable(error: float, seen: int, groups: int, z: float) -> float:
    """Return the gain that a test by so many groups sees in 80 of 100 cases, if they vary as those `seen`; inf: not known."""
    return (z + POWER_80) * error * sqrt(seen / groups) if groups and seen else inf


@dataclass(frozen=True)
class Comparison:
    """Candidate minus incumbent over groups."""

    groups: int
    difference: float = 0.0
    error: float = inf

    def detectable(self, groups: int, z: float) -> float:
        """Return the gain that a test by this many such groups sees in 80 of 100 cases; inf where nothing is known."""
        return detectable(self.error, self.groups, groups, z)


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, with all numbers."""

    decision: Decision
    look: int  # groups that were looked at, 0 before the first look
    groups: int  # there are
    difference: float
    error: float
    rule: Rule
    detectable: float  # see `Comparison.detectable`, at the last look

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as a JSON object; what is not known is null."""
        return {name: None if value == inf else value for name, value in asdict(self).items()}


def compare(groups: Sequence[Sequence[LedgerRow]], incumbent: str, candidate: str) -> Comparison:
    """Return the difference over these groups, each with rollouts of both versions, which are named by content hash."""
    if not groups:
        return Comparison(0)
    differences, weights = [], []
    for group in groups:
        of_candidate, of_incumbent = ([row.reward for row in group if row.hek == version] for version in (candidate, incumbent))
        n1, n0 = len(of_candidate), len(of_incumbent)
        differences.append(fmean(of_candidate) - fmean(of_incumbent))
        weights.append(n1 * n0 / (n1 + n0))
    total = sum(weights)
    mean = sum(w * d for w, d in zip(weights, differences, strict=True)) / total
    squares = sum((w * (d - mean)) ** 2 for w, d in zip(weights, differences, strict=True)) + (fmean(weights) * mean) ** 2
    return Comparison(len(groups), mean, sqrt(squares) / total if len(groups) > 1 else inf)


def mixed_groups(rows: Sequence[LedgerRow], incumbent: str, candidate: str) -> list[list[LedgerRow]]:
    """Return the groups with rollouts of both versions, in the order of their first row; failed look-ups are left out."""
    compared = (row for row in rows if row.hek in (incumbent, candidate) and row.guided)
    return [group for group in by_group(compared).values() if len({row.hek for row in group}) == 2]


def judge(
    rows: Sequence[LedgerRow], incumbent: str, candidate: str, config: GateConfig, *, only_removes: bool = False, last: bool = False
) -> Verdict:
    """Return the decision on a candidate; `wait` asks for more groups.

    Each look is at the first so many groups: asking more often changes nothing.

    Args:
        incumbent: content hash of the version in use.
        candidate: that of the other.
        only_removes: the candidate is the incumbent without some entries: the smaller bank wins where there is no difference.
        last: no more groups will come; what is there is looked at once, if the next look is not reached.
    """
    groups = mixed_groups(rows, incumbent, candidate)
    looks = [config.min_groups * times for times in LOOKS]
    reached = [look for look in looks if look <= len(groups)]
    if last and len(reached) < len(looks) and groups:
        reached.append(len(groups))
    seen, decision = Comparison(0), "wait"
    for look in reached:
        seen = compare(groups[:look], incumbent, candidate)
        decision = _decided(seen, config)
        if decision != "wait":
            break
    if config.rule == "always":
        decision = "accept"
    if decision == "wait" and (last or len(groups) >= looks[-1]):
        decision = "accept" if only_removes and seen.groups and seen.difference > -config.margin else "no difference"
    known = seen if seen.groups else compare(groups, incumbent, candidate)
    return Verdict(
        decision,
        seen.groups,
        len(groups),
        known.difference,
        known.error,
        config.rule,
        known.detectable(looks[-1], config.z),
    )


def _decided(seen: Comparison, config: GateConfig) -> Decision:
    low, high = (seen.difference + sign * config.z * seen.error for sign in (-1, 1))
    if low > 0 or (config.rule == "ratchet" and seen.difference > 0 and low > -config.margin):
        return "accept"
    return "reject" if high < 0 else "wait"
