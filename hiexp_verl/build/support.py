"""Does a summary speak for its members? A summary that says something else would carry noise upward."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hiexp_verl.build.fitting import chance, evenly
from hiexp_verl.build.rules import tag_values
from hiexp_verl.encoder import Vectors
from hiexp_verl.types import Entry

_MOST_STRANGERS = 2_000  # a percentile needs no more
_OF_TWO = {"compare", "common", "verify"}  # shapes of questions that set two things side by side


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


def of_other_kind(members: Sequence[Entry]) -> set[str]:
    """Return the ids of members about one thing where most are about two, or the other way round.

    Titles alike in topic bring them together, but the advice for the one kind contradicts that for the other.
    """
    shapes_of = {member.id: set(tag_values([member], "shape")) for member in members}
    about_two = {member for member, shapes in shapes_of.items() if shapes and 2 * len(shapes & _OF_TWO) >= len(shapes)}
    about_one = {member for member, shapes in shapes_of.items() if shapes} - about_two
    return about_one if len(about_two) >= len(about_one) else about_two


def supporters(summaries_S_D: Vectors, members_E_D: Vectors, groups: Sequence[Sequence[int]], percentile: float) -> list[NDArray[np.bool_]]:
    """Return for each summary which rows of its group support it.

    A member supports the summary when its cosine with it lies above chance: above the percentile of the cosines between
    this summary and the entries of all other groups. A single group has nothing to be compared with and is kept whole.
    """
    sample_M = np.arange(len(members_E_D))[evenly(len(members_E_D), _MOST_STRANGERS)]
    scores_S_M = summaries_S_D @ members_E_D[sample_M].T
    found = []
    for summary_D, scores_M, group in zip(summaries_S_D, scores_S_M, groups, strict=True):
        strangers_M = ~np.isin(sample_M, list(group))
        found.append(members_E_D[list(group)] @ summary_D > chance(scores_M, strangers_M, percentile))
    return found
