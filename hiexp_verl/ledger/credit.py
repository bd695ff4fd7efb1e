"""Credit: what showing an entry does to the reward, from the rows of a ledger.

In a group g of rollouts of one question, b_g is the mean reward of those without experience (arm `none`), else the mean of the
others of the arm (and of its version of the HEK). For an entry e, with exposures i:

| | |
| --- | --- |
| raw_e | mean of r_i - b_g over the exposures: a plain mean with slow discount |
| bias of a place | mean of r_i - b_g over all that was masked there: look-ups are likelier in episodes that go badly |
| bias_v | the same of one version v: what else it shows is in it. Shrunk to that of the place, as far as versions differ beyond chance |
| tau_e | raw_e - mean of bias_v over the exposures |
| s_e | standard error of tau_e by groups, their variance pooled over the entries of a level |
| m_c | mean of tau over the entries of one parent, weighted by 1 / s^2, shrunk to 0 by the variance of such means |
| shrunk | m_c + (tau_e - m_c) k^2 / (k^2 + s_e^2), where k^2 is the variance of entries within parents, by moments |

An entry with few exposures has m_c. When a new version comes up, the sums so far count M / (M + n), n being the exposures since
the last one did: policy and neighbours have changed.

Sources: masking at random after ASSAY (arXiv:2606.15390); the rest is empirical Bayes.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray

from hiexp_verl.config import Place
from hiexp_verl.guide.arms import CREDITED
from hiexp_verl.ledger.rows import Exposure, LedgerRow, by_group
from hiexp_verl.types import LEVELS, Entry, Level

PRIOR = 2_000  # M
FEW = 5  # exposures below which an entry has its parent's effect
Z95 = 1.96
_LEAST = 1e-4  # variance of the mean of a group, where all that was seen agrees


@dataclass(frozen=True)
class Credit:
    """What is known of one entry."""

    content: str
    level: Level
    exposures: float  # discounted
    groups: int
    with_it: float  # mean reward of the rollouts that saw it
    without: float  # mean baseline of their groups
    effect: float  # tau
    error: float  # its standard error; inf without exposures
    shrunk: float  # the best guess
    shrunk_error: float  # inf where nothing is known of it or of its neighbours

    @property
    def low(self) -> float:
        """Return the lower bound of the 95% interval of the shrunken effect."""
        return self.shrunk - Z95 * self.shrunk_error

    @property
    def high(self) -> float:
        """Return the upper bound."""
        return self.shrunk + Z95 * self.shrunk_error


@dataclass(frozen=True)
class Credits:
    """The credit of every entry, and what it rests on."""

    of: Mapping[str, Credit]  # by content id
    bias: Mapping[Place, tuple[float, float]]  # of what is shown, by what was masked, and its standard error
    masked: Mapping[Place, int]  # exposures that were masked
    bias_of: Mapping[Place, Mapping[str, tuple[float, float]]]  # the bias by version; those without an exposure that was masked are missing
    rows: int = 0
    without_baseline: int = 0  # rows of groups that have nothing to compare them with


@dataclass
class _Sums:
    """Of the exposures of one entry."""

    level: Level
    place: Place
    n: float = 0.0
    rewards: float = 0.0
    baselines: float = 0.0
    groups: dict[tuple[int, str], list[float]] = field(default_factory=dict)  # (weight, weighted sum of r - b) by group
    versions: dict[str, float] = field(default_factory=dict)  # n by version

    def add(self, group: tuple[int, str], hek: str, reward: float, baseline: float) -> None:
        self.n += 1
        self.versions[hek] = self.versions.get(hek, 0.0) + 1
        self.rewards += reward
        self.baselines += baseline
        sums = self.groups.setdefault(group, [0.0, 0.0])
        sums[0] += 1
        sums[1] += reward - baseline

    def discount(self, factor: float) -> None:
        self.n, self.rewards, self.baselines = self.n * factor, self.rewards * factor, self.baselines * factor
        self.groups = {group: [weight * factor, total * factor] for group, (weight, total) in self.groups.items()}
        self.versions = {hek: n * factor for hek, n in self.versions.items()}

    @property
    def raw(self) -> float:
        return (self.rewards - self.baselines) / self.n


def credit(rows: Iterable[LedgerRow], entries: Sequence[Entry] = (), prior: float = PRIOR) -> Credits:
    """Return the credit of every entry that was shown, and of those given, which are the HEK's and name their children."""
    used = [row for row in rows if not row.lookup_failed]
    baselines = baselines_of(used)
    shown: dict[str, _Sums] = {}
    masked: dict[Place, dict[str, list[float]]] = {"prompt": {}, "tool": {}}
    versions: set[str] = set()
    since = 0
    for row in used:
        if row.hek not in versions and since:
            for sums in shown.values():
                sums.discount(prior / (prior + since))
            since = 0
        versions.add(row.hek)
        baseline = baselines.get(row.key)
        if row.arm not in CREDITED or baseline is None:
            continue
        group = row.step, row.group
        for exposure in _once(row.shown):
            shown.setdefault(exposure["content"], _Sums(exposure["level"], exposure["place"])).add(group, row.hek, row.reward, baseline)
            since += 1
        for exposure in row.masked:
            masked[exposure["place"]].setdefault(row.hek, []).append(row.reward - baseline)
    flat: dict[Place, list[float]] = {place: [value for values in found.values() for value in values] for place, found in masked.items()}
    bias: dict[Place, tuple[float, float]] = {place: _mean_and_error(found) for place, found in flat.items()}
    bias_of: dict[Place, dict[str, tuple[float, float]]] = {place: _by_version(found, *bias[place]) for place, found in masked.items()}
    missing = sum(row.key not in baselines for row in used)
    counts: dict[Place, int] = {place: len(found) for place, found in flat.items()}
    return Credits(_credits(shown, bias, bias_of, entries), bias, counts, bias_of, len(used), missing)


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return 0.0, 0.0  # nothing was masked: the bias stays in
    return float(np.mean(values)), float(np.std(values, ddof=1) / sqrt(len(values)))


def _by_version(masked: Mapping[str, Sequence[float]], pooled: float, pooled_error: float) -> dict[str, tuple[float, float]]:
    """Return the bias of each version and its standard error; that of all, as far as the versions differ by chance alone."""
    n_V, mean_V = (np.array([measure(values) for values in masked.values()], dtype=float) for measure in (len, np.mean))
    if len(n_V) < 2 or n_V.sum() <= len(n_V):
        return dict.fromkeys(masked, (pooled, pooled_error))
    squares = sum(float(((np.array(values) - np.mean(values)) ** 2).sum()) for values in masked.values())
    error2_V = max(squares / (n_V.sum() - len(n_V)), _LEAST) / n_V
    between = max(0.0, float(((mean_V - mean_V.mean()) ** 2).sum() / (len(n_V) - 1) - error2_V.mean()))
    kept_V = between / (between + error2_V)
    bias_V = pooled + kept_V * (mean_V - pooled)
    error_V = np.sqrt(kept_V * error2_V + (1 - kept_V) ** 2 * pooled_error**2)
    return {hek: (float(mean), float(error)) for hek, mean, error in zip(masked, bias_V, error_V, strict=True)}


def _once(exposures: Sequence[Exposure]) -> list[Exposure]:
    """Return an entry that two searches of an episode showed once: there is one reward."""
    return list({exposure["content"]: exposure for exposure in reversed(exposures)}.values())


def baselines_of(rows: Sequence[LedgerRow]) -> dict[tuple[int, str, int], float]:
    """Return what each row is compared with, where there is something."""
    found: dict[tuple[int, str, int], float] = {}
    for group in by_group(rows).values():
        by_arm: dict[tuple[str, str], list[float]] = defaultdict(list)
        unguided = [row.reward for row in group if row.arm == "none"]
        for row in group:
            by_arm[row.arm, row.hek].append(row.reward)
        for row in group:
            of_arm = by_arm[row.arm, row.hek]
            if row.arm != "none" and unguided:
                found[row.key] = float(np.mean(unguided))
            elif len(of_arm) > 1:
                found[row.key] = (sum(of_arm) - row.reward) / (len(of_arm) - 1)
    return found


def _credits(
    shown: Mapping[str, _Sums],
    bias: Mapping[Place, tuple[float, float]],
    bias_of: Mapping[Place, Mapping[str, tuple[float, float]]],
    entries: Sequence[Entry],
) -> dict[str, Credit]:
    parent_of = parents_of(entries)
    levels: dict[str, Level] = {content: sums.level for content, sums in shown.items()}
    levels |= {entry.content_id: entry.level for entry in entries}
    found: dict[str, Credit] = {}
    for level in LEVELS:
        contents = [content for content, at in levels.items() if at == level]
        places: list[Place] = [shown[content].place for content in contents if content in shown]
        place: Place = places[0] if places else "prompt"  # of E1 it depends on the domain
        sums = [shown.get(content, _Sums(level, place)) for content in contents]
        bias_E, its_error_E = np.array([_bias(each, bias_of[place], bias[place]) for each in sums]).reshape(-1, 2).T
        tau_E = np.array([each.raw if each.n else 0.0 for each in sums]) - bias_E * np.array([each.n > 0 for each in sums])
        error2_E = _squared_errors(sums)
        known_E = np.where(np.array([each.n for each in sums]) >= FEW, error2_E, inf)
        shrunk_E, shrunk2_E = _shrunk(tau_E, known_E, [parent_of.get(content, "") for content in contents])
        errors_E = (np.sqrt(each + its_error_E**2) for each in (error2_E, shrunk2_E))
        values = zip(contents, sums, tau_E, shrunk_E, *errors_E, strict=True)
        found |= {content: _credit_of(content, each, *map(float, numbers)) for content, each, *numbers in values}
    return found


def _bias(sums: _Sums, of: Mapping[str, tuple[float, float]], pooled: tuple[float, float]) -> tuple[float, float]:
    """Return the bias of an entry's exposures, by their versions, and its standard error."""
    if not sums.n:
        return pooled
    parts = [(n / sums.n, *of.get(hek, pooled)) for hek, n in sums.versions.items()]
    return sum(share * mean for share, mean, _ in parts), sqrt(sum((share * error) ** 2 for share, _, error in parts))


def _credit_of(content: str, sums: _Sums, tau: float, shrunk: float, error: float, shrunk_error: float) -> Credit:
    n = sums.n or 1.0
    means = sums.rewards / n, sums.baselines / n
    return Credit(content, sums.level, sums.n, len(sums.groups), *means, tau, error, shrunk, shrunk_error)


def parents_of(entries: Sequence[Entry]) -> dict[str, str]:
    """Return the content id of the parent of each entry that has one."""
    by_id = {entry.id: entry.content_id for entry in entries}
    return {by_id[child]: entry.content_id for entry in entries for child in entry.children}


def _squared_errors(sums: Sequence[_Sums]) -> NDArray[np.float64]:
    """Return s_e^2: the exposures of a group share its baseline, so its mean is one observation; inf without exposures.

    The variance of a group's mean is pooled over the entries: of five exposures alone it is anything.
    """
    total, freedom = 0.0, 0.0
    squares_E = np.zeros(len(sums))
    for row, each in enumerate(sums):
        weights_G, totals_G = np.array([*each.groups.values()]).reshape(-1, 2).T
        squares_E[row] = (weights_G**2).sum()
        total += float(((totals_G - weights_G * each.raw) ** 2).sum()) if each.n else 0.0
        freedom += float((weights_G**2 * (1 - weights_G / each.n)).sum()) if each.n else 0.0
    n_E = np.array([each.n for each in sums])
    if freedom <= 0:
        return np.full(len(sums), inf)
    return np.divide(max(total / freedom, _LEAST) * squares_E, n_E**2, out=np.full(len(sums), inf), where=n_E > 0)


def _shrunk(
    tau_E: NDArray[np.float64], error2_E: NDArray[np.float64], parents: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the shrunken effects and their variances; an infinite error is that of an entry of which nothing is known."""
    names, cluster_E = np.unique(np.array(parents, dtype=object), return_inverse=True)
    clusters = len(names)
    precision_E = 1 / error2_E  # 0 where nothing is known
    precision_C = np.bincount(cluster_E, precision_E, clusters)
    some_C = precision_C > 0
    mean_C = np.divide(np.bincount(cluster_E, precision_E * tau_E, clusters), precision_C, out=np.zeros(clusters), where=some_C)
    known_E = precision_E > 0
    apart = int(known_E.sum() - some_C.sum())  # entries beyond one of each parent
    spread = float(((tau_E - mean_C[cluster_E])[known_E] ** 2).sum())
    within = max(0.0, spread / apart - float(error2_E[known_E].mean())) if apart else 0.0
    # The variance of a parent's mean: of its estimate, and of the entries that it is the mean of.
    members_C = np.bincount(cluster_E, known_E, clusters)
    error2_C = np.full(clusters, inf)
    error2_C[some_C] = 1 / precision_C[some_C] + within / members_C[some_C]
    between = max(0.0, float((mean_C[some_C] ** 2 - error2_C[some_C]).mean())) if some_C.any() else 0.0
    kept_C = between / (between + error2_C)
    mean_C, variance_C = kept_C * mean_C, np.where(some_C, kept_C * np.where(some_C, error2_C, 0.0), between if some_C.any() else inf)
    kept_E = np.divide(within, within + error2_E, out=np.zeros(len(tau_E)), where=known_E)
    shrunk_E = mean_C[cluster_E] + kept_E * (tau_E - mean_C[cluster_E])
    own_E = np.where(known_E, kept_E * np.where(known_E, error2_E, 0.0), within if apart else inf)  # inf: how they differ is not known
    return shrunk_E, own_E + (1 - kept_E) ** 2 * variance_C[cluster_E]
