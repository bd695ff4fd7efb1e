"""Does a summary speak for its members? A summary that says something else would carry noise upward."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hiexp_verl.encoder import Vectors


def spread_order(vectors_E_D: Vectors) -> list[int]:
    """Return the rows in the order in which they show most of the group: the medoid, then always the one farthest from those before."""
    similarity_E_E = vectors_E_D @ vectors_E_D.T
    order = [int(similarity_E_E.sum(axis=1).argmax())]
    nearest_E = similarity_E_E[order[0]].copy()
    while len(order) < len(vectors_E_D):
        nearest_E[order] = np.inf
        order.append(int(nearest_E.argmin()))
        nearest_E = np.minimum(nearest_E, similarity_E_E[order[-1]])
    return order


def supporters(summaries_S_D: Vectors, members_E_D: Vectors, groups: Sequence[Sequence[int]], percentile: float) -> list[NDArray[np.bool_]]:
    """Return for each summary which rows of its group support it.

    A member supports the summary when its cosine with it lies above chance: above the percentile of the cosines between
    this summary and the entries of all other groups. A single group has nothing to be compared with and is kept whole.
    """
    scores_S_E = summaries_S_D @ members_E_D.T
    found = []
    for row, group in enumerate(groups):
        strangers = np.ones(len(members_E_D), dtype=bool)
        strangers[list(group)] = False
        chance = np.percentile(scores_S_E[row, strangers], percentile) if strangers.any() else -np.inf
        found.append(scores_S_E[row, list(group)] > chance)
    return found
