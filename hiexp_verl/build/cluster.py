"""Clusters of unit vectors: Ward linkage (the paper's construction, step 5), or average linkage."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hiexp_verl.build.ward import Tree, ward_tree
from hiexp_verl.encoder import Vectors
from hiexp_verl.errors import HiExpError
from hiexp_verl.types import Level

Linkage = Literal["ward", "average"]
LINKAGES: tuple[Linkage, ...] = get_args(Linkage)
MOST_AVERAGE = 20_000


def ward_clusters(vectors_E_D: Vectors, max_height: float) -> NDArray[np.int64]:
    """Return a cluster number per row, numbered in the order of first appearance.

    `max_height` is a Ward merge height. For two vectors it is sqrt(2 * (1 - cosine)), but it grows with the size of the
    clusters, so a fixed height splits a growing bank ever finer: choose it by `height_for` from the data.

    Raises:
        HiExpError: it is no matrix, rows are not of length 1, or the height is not a number.
    """
    check_unit(vectors_E_D)
    if max_height != max_height:
        raise HiExpError("max_height is not a number; choose one with `hiexp calibrate`")
    return ward_tree(vectors_E_D).cut(max_height)


def threshold_of(level: Level, linkage: Linkage) -> str:
    """Return the name under which a header keeps the height at which entries of the level are clustered.

    The linkage is part of it: a height of one means nothing to the other.
    """
    return f"{level}_{linkage}_max_height"


def height_for(tree: Tree, cluster_size: float) -> float:
    """Return the height at which the tree's clusters have about `cluster_size` rows on average.

    Raises:
        HiExpError: a cluster size below 1.
    """
    if cluster_size < 1:
        raise HiExpError(f"the cluster size {cluster_size} is below 1; give the number of entries that one parent should summarise")
    if tree.leaves < 2:
        return 1.0
    merges = tree.leaves - max(1, round(tree.leaves / cluster_size))
    below = tree.heights_M[merges - 1] if merges > 0 else 0.0
    above = tree.heights_M[merges] if merges < len(tree.heights_M) else tree.heights_M[-1] + 1.0
    return round(float(below + above) / 2, 6)


def linkage_tree(vectors_E_D: Vectors, linkage: Linkage = "ward") -> Tree:
    """Return the tree of merges of unit vectors.

    Heights of `ward` are Euclidean and grow with the clusters; those of `average` are cosine distances (1 - cosine), the
    mean over the pairs of two clusters, whatever their size.

    Raises:
        HiExpError: rows are not of length 1, an unknown linkage, or too many rows for `average`, whose memory is quadratic.
    """
    check_unit(vectors_E_D)
    if linkage == "ward":
        return ward_tree(vectors_E_D)
    if linkage != "average":
        raise HiExpError(f"unknown linkage {linkage!r}; use ward or average")
    rows = len(vectors_E_D)
    if rows > MOST_AVERAGE:
        raise HiExpError(f"average linkage of {rows} entries needs too much memory (at most {MOST_AVERAGE}); use ward")
    if rows < 2:
        return Tree(np.zeros((0, 2), dtype=np.int64), np.zeros(0), rows)
    from scipy.cluster.hierarchy import linkage as scipy_linkage

    merges_M_4 = scipy_linkage(vectors_E_D.astype(np.float64), method="average", metric="cosine")
    # scipy names a cluster by the merge that made it; we, by one of its vectors.
    leaf = list(range(rows))
    for left, right, _, _ in merges_M_4:
        leaf.append(min(leaf[int(left)], leaf[int(right)]))
    pairs = [(leaf[int(left)], leaf[int(right)]) for left, right, _, _ in merges_M_4]
    return Tree(np.array(pairs, dtype=np.int64), np.maximum(merges_M_4[:, 2], 0.0), rows)


def height_of_cosine(cosine: float, linkage: Linkage = "ward") -> float:
    """Return the height at which a pair of that cosine is merged: sqrt(2 * (1 - cosine)) by Ward, 1 - cosine by average.

    Raises:
        HiExpError: the cosine is outside -1 to 1.
    """
    if not -1 <= cosine <= 1:
        raise HiExpError(f"cosine {cosine} is out of range; give a number from -1 to 1")
    return float(np.sqrt(2 * (1 - cosine))) if linkage == "ward" else float(1 - cosine)


def check_unit(vectors_E_D: Vectors) -> None:
    """Refuse vectors that are not of length 1.

    Raises:
        HiExpError: some are not.
    """
    if vectors_E_D.ndim != 2:
        raise HiExpError(f"vectors have the shape {vectors_E_D.shape}; give a matrix, one row per entry")
    norms_E = np.linalg.norm(vectors_E_D, axis=1)
    if not np.allclose(norms_E, 1.0, atol=1e-3):  # also when one is not a number
        norms = f"{norms_E.min():.3f} to {norms_E.max():.3f}"
        raise HiExpError(f"Ward needs unit vectors, their norms run from {norms}; encode with an Encoder, which normalises")
