"""Intervals and paired tests over questions. Scores vary more between questions than between arms, so arms are paired by question."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, bootstrap, permutation_test

from hiexp_verl.errors import HiExpError

RESAMPLES = 10_000
SEED = 0  # of the resampling, so that the same rows give the same table


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences with its 95% percentile bootstrap interval, and the p of a sign-flip test.

    The two methods may disagree: with few questions that differ, an interval may exclude 0 where p is above 0.05.
    """

    mean: float
    low: float
    high: float
    p: float  # two-sided: how often a random swap of the two arms within questions differs as much


def paired_difference(values: Mapping[str, float], baseline: Mapping[str, float]) -> Difference:
    """Return the difference to the baseline, of one value per question.

    Raises:
        HiExpError: the questions are not the same, or fewer than two.
    """
    if values.keys() != baseline.keys():
        raise HiExpError(f"{len(values.keys() ^ baseline.keys())} questions were played in one arm only; play the same questions in both")
    if len(values) < 2:
        raise HiExpError(f"an interval needs at least 2 questions, found {len(values)}; raise --limit")
    differences_Q = np.array([values[question] - baseline[question] for question in sorted(values)])
    differences_Q[np.isclose(differences_Q, 0.0)] = 0.0  # means of the same values in another order differ in the last digit
    mean = float(differences_Q.mean())
    p = _sign_flip_p(differences_Q[differences_Q != 0.0])
    if not np.ptp(differences_Q):  # scipy has no interval for a constant
        return Difference(mean, mean, mean, p)
    return Difference(mean, *_bootstrap_interval(differences_Q), p)


def mean_interval(values: Mapping[str, float]) -> tuple[float, float]:
    """Return the 95% percentile bootstrap interval of a mean over questions; Clopper and Pearson's where all are right, or none."""
    values_Q = np.array([values[question] for question in sorted(values)])
    if len(values_Q) < 2 or not np.ptp(values_Q):
        if values_Q[0] in (0.0, 1.0):
            exact = binomtest(int(values_Q.sum()), len(values_Q)).proportion_ci()
            return float(exact.low), float(exact.high)
        return float(values_Q.mean()), float(values_Q.mean())
    return _bootstrap_interval(values_Q)


def _bootstrap_interval(values_Q: np.ndarray) -> tuple[float, float]:
    found = bootstrap((values_Q,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(SEED))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _sign_flip_p(differences: np.ndarray) -> float:
    """Return the two-sided p of differences that are not 0 (a swap leaves those as they are).

    Exact where all are of one size (a binomial test) and where all swaps can be counted; by `RESAMPLES` random swaps else.
    """
    sizes = np.abs(differences)
    if not len(differences):
        return 1.0
    if np.allclose(sizes, sizes[0]):
        return float(binomtest(int((differences > 0).sum()), len(differences)).pvalue)
    test = permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, rng=np.random.default_rng(SEED))
    return float(test.pvalue)
