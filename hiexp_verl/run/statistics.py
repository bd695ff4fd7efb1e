"""Are two arms different? Paired by question, for what a question is worth varies more than what an arm does."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap, permutation_test

from hiexp_verl.errors import HiExpError

RESAMPLES = 10_000
SEED = 0  # of the resampling, so that the same rows give the same table


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences with its 95% percentile bootstrap interval, and the p of a sign-flip test."""

    mean: float
    low: float
    high: float
    p: float  # two-sided: how often a random swap of the two arms within questions differs as much


def paired_difference(values: Mapping[str, float], baseline: Mapping[str, float]) -> Difference:
    """Compare one value per question with the baseline's.

    Raises:
        HiExpError: the questions are not the same, or fewer than two.
    """
    if values.keys() != baseline.keys():
        raise HiExpError(f"{len(values.keys() ^ baseline.keys())} questions were played by one arm alone; play the same questions")
    if len(values) < 2:
        raise HiExpError(f"an interval needs at least 2 questions, found {len(values)}; raise --limit")
    differences_Q = np.array([values[question] - baseline[question] for question in sorted(values)])
    mean = float(differences_Q.mean())
    if not np.ptp(differences_Q):  # scipy has no interval for a constant
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 2.0 ** (1 - len(differences_Q)))
    found = bootstrap((differences_Q,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(SEED))
    test = permutation_test((differences_Q,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, rng=np.random.default_rng(SEED))
    interval = found.confidence_interval
    return Difference(mean, float(interval.low), float(interval.high), float(test.pvalue))


def mean_interval(values: Mapping[str, float]) -> tuple[float, float]:
    """Return the 95% percentile bootstrap interval of a mean over questions."""
    values_Q = np.array([values[question] for question in sorted(values)])
    if len(values_Q) < 2 or not np.ptp(values_Q):
        return float(values_Q.mean()), float(values_Q.mean())
    found = bootstrap((values_Q,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(SEED))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
