"""Fit the values of selection (`guide.select`) to the rows of a ledger: ridge regression of r - b - bias on the features of what was shown.

Rows that were masked say what is to be subtracted (`ledger.credit`). Entries that the version does not have are left out.
"""

from collections.abc import Sequence

import numpy as np

from hiexp_verl.config import Budgets, Place
from hiexp_verl.guide.arms import CREDITED
from hiexp_verl.guide.lookup import min_scores
from hiexp_verl.guide.select import FEATURES, Known, Model, Values, features
from hiexp_verl.hek.store import HEK
from hiexp_verl.ledger.credit import Credits, baselines_of, credit, parents_of
from hiexp_verl.ledger.rows import LedgerRow

LEAST = 200  # exposures of a place below which it is served by cosine
RIDGE = 1.0


def fit(rows: Sequence[LedgerRow], hek: HEK, budgets: Budgets) -> Values:
    """Return the values of a version, with the minimum scores of these settings."""
    used = [row for row in rows if not row.lookup_failed]
    credits = credit(used, hek.entries)
    known = _known(hek, credits)
    entries = {entry.content_id: entry for entry in hek.entries}
    thresholds = min_scores(hek, budgets.prompt, budgets.tool)
    baselines = baselines_of(used)
    x: dict[Place, list[np.ndarray]] = {"prompt": [], "tool": []}
    y: dict[Place, list[float]] = {"prompt": [], "tool": []}
    for row in used:
        baseline = baselines.get(row.key)
        if row.arm not in CREDITED or baseline is None:
            continue
        for seen in row.shown:
            entry, place = entries.get(seen["content"]), seen["place"]
            if entry is not None:
                x[place].append(features(entry, seen["score"], thresholds[place] or 0.0, known.get(seen["content"])))
                bias, _ = credits.bias_of[place].get(row.hek, credits.bias[place])
                y[place].append(row.reward - baseline - bias)
    return Values({place: _ridge(np.stack(x[place]), np.array(y[place])) for place in x if len(x[place]) >= LEAST}, known)


def _known(hek: HEK, credits: Credits) -> dict[str, Known]:
    parents = parents_of(hek.entries)
    found = {}
    for entry in hek.entries:
        own, parent = credits.of.get(entry.content_id), credits.of.get(parents.get(entry.content_id, ""))
        if own is not None:
            found[entry.content_id] = Known(own.exposures, own.shrunk, parent.shrunk if parent is not None else 0.0)
    return found


def _ridge(x_N_F: np.ndarray, y_N: np.ndarray) -> Model:
    precision_F_F = RIDGE * np.eye(FEATURES) + x_N_F.T @ x_N_F
    inverse_F_F = np.linalg.inv(precision_F_F)
    mean_F = inverse_F_F @ x_N_F.T @ y_N
    variance = float(np.mean((y_N - x_N_F @ mean_F) ** 2))
    covariance_F_F = variance * (inverse_F_F + inverse_F_F.T) / 2
    return Model(tuple(map(float, mean_F)), tuple(tuple(map(float, row)) for row in covariance_F_F), len(y_N))
