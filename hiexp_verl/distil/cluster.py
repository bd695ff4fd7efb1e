"""Clusters of unit vectors by Ward linkage (the paper's construction, step 5) or average linkage.

Ward is exact, by reciprocal nearest neighbours: the tree that scikit-learn builds, in a tenth of the time. Two clusters
that are each other's nearest are merged in the end whatever happens elsewhere, because Ward's distance is reducible
(merging others brings neither closer to anything). So all such pairs are merged at once, round by round, and only clusters
whose nearest neighbour is gone look for a new one: large matrix products instead of a matrix of all distances. Memory grows
with the number of vectors, not with its square.

Source: Murtagh and Legendre, "Ward's hierarchical agglomerative clustering method" (2014), sections 2 and 3; Bruynooghe (1977).
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hiexp_verl.errors import HiExpError
from hiexp_verl.models.encoder import Vectors
from hiexp_verl.types import Level

Linkage = Literal["ward", "average"]
MOST_AVERAGE = 20_000
_BLOCK = 1 << 24  # distances in memory at a time, by thread


@dataclass(frozen=True)
class Tree:
    """The merges of N vectors, lowest first: row `pairs_M_2[m]` of two vectors, whose clusters were joined at `heights_M[m]`."""

    pairs_M_2: NDArray[np.int64]
    heights_M: NDArray[np.float64]
    leaves: int

    def cut(self, max_height: float) -> NDArray[np.int64]:
        """Return a cluster number per vector: all merges up to this height are made. Numbered by first appearance."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        rows_M, columns_M = self.pairs_M_2[self.heights_M <= max_height].T
        graph = coo_array((np.ones(len(rows_M), dtype=np.int8), (rows_M, columns_M)), shape=(self.leaves, self.leaves))
        _, labels_N = connected_components(graph, directed=False)
        _, first_N, inverse_N = np.unique(labels_N, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first_N))[inverse_N].astype(np.int64)


def ward_tree(vectors_N_D: Vectors) -> Tree:
    """Return the whole Ward tree; heights are those of scipy and scikit-learn (for a pair, its Euclidean distance)."""
    from threadpoolctl import threadpool_limits

    # Equal vectors are each other's nearest in a chain that would merge one pair a round: they are one cluster from the start.
    unique_A_D, first_A, unique_N = np.unique(np.asarray(vectors_N_D, dtype=np.float32), axis=0, return_index=True, return_inverse=True)
    equal_M = np.flatnonzero(first_A[unique_N] != np.arange(len(unique_N)))
    pairs = [np.stack([first_A[unique_N[equal_M]], equal_M], axis=1)]
    heights = [np.zeros(len(equal_M))]
    clusters = _Clusters(unique_A_D, first_A, np.bincount(unique_N).astype(np.float64))
    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as threads:
        while len(clusters.leaf_A) > 1:
            clusters.find_nearest(threads)
            merged_pairs, merged_heights = clusters.merge_reciprocal()
            pairs.append(merged_pairs)
            heights.append(merged_heights)
    heights_M = np.concatenate(heights)
    order_M = np.argsort(heights_M, kind="stable")
    return Tree(np.concatenate(pairs)[order_M], heights_M[order_M], len(unique_N))


class _Clusters:
    """The clusters that are left, ordered by size, with the nearest neighbour of each."""

    def __init__(self, centroids_A_D: Vectors, leaf_A: NDArray[np.int64], size_A: NDArray[np.float64]) -> None:
        self.centroids_A_D = centroids_A_D
        self.leaf_A = leaf_A  # a vector of the cluster, to name it by
        self.size_A = size_A
        self.nearest_A = np.zeros(len(leaf_A), dtype=np.int64)
        self.distance_A = np.full(len(leaf_A), np.inf)  # half the squared merge height
        self.stale_A = np.ones(len(leaf_A), dtype=bool)  # nearest neighbour not known
        self._reorder(np.arange(len(leaf_A)))

    def find_nearest(self, threads: ThreadPoolExecutor) -> None:
        """Find the nearest neighbour of every stale cluster.

        Ward's distance is s t / (s + t) |a - b|^2 for sizes s and t. Among clusters of one size the factor is constant, so
        the nearest of each size is the maximum of a plain product, and the nearest of all is the best of these.
        """
        count = len(self.leaf_A)
        norms_A = np.einsum("ad,ad->a", self.centroids_A_D, self.centroids_A_D)
        # One product gives |b|^2 - 2 a.b when the norm is one more dimension.
        keys_A_D1 = np.hstack([self.centroids_A_D, norms_A[:, None]])
        edges = [0, *(np.flatnonzero(np.diff(self.size_A)) + 1).tolist(), count]
        rows_R = np.flatnonzero(self.stale_A)
        step = max(1, min(_BLOCK // count, -(-len(rows_R) // (os.cpu_count() or 1))))

        def one_block(start: int) -> None:
            rows_B = rows_R[start : start + step]
            queries_B_D1 = np.hstack([-2 * self.centroids_A_D[rows_B], np.ones((len(rows_B), 1), dtype=np.float32)])
            scores_B_A = queries_B_D1 @ keys_A_D1.T
            block_B = np.arange(len(rows_B))
            scores_B_A[block_B, rows_B] = np.inf
            nearest_B, distance_B = np.zeros(len(rows_B), dtype=np.int64), np.full(len(rows_B), np.inf)
            for low, high in pairwise(edges):
                column_B = low + scores_B_A[:, low:high].argmin(axis=1)
                squared_B = np.maximum(scores_B_A[block_B, column_B].astype(np.float64) + norms_A[rows_B], 0)
                sizes_B, size = self.size_A[rows_B], self.size_A[low]
                ward_B = squared_B * sizes_B * size / (sizes_B + size)
                closer_B = ward_B < distance_B
                nearest_B[closer_B], distance_B[closer_B] = column_B[closer_B], ward_B[closer_B]
            self.nearest_A[rows_B], self.distance_A[rows_B] = nearest_B, distance_B

        list(threads.map(one_block, range(0, len(rows_R), step)))

    def merge_reciprocal(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Merge all pairs that are each other's nearest; return a vector of each side, and the heights."""
        rows_A = np.arange(len(self.leaf_A))
        left_P = np.flatnonzero((self.nearest_A[self.nearest_A] == rows_A) & (rows_A < self.nearest_A))
        if not len(left_P):  # rounding can make nearness one-sided; the closest pair of all is right in any case
            left_P = np.array([self.distance_A.argmin()])
        right_P = self.nearest_A[left_P]
        pairs_P_2 = np.stack([self.leaf_A[left_P], self.leaf_A[right_P]], axis=1)
        left_size_P, right_size_P = self.size_A[left_P], self.size_A[right_P]
        size_P = left_size_P + right_size_P
        left_P_D, right_P_D = self.centroids_A_D[left_P].astype(np.float64), self.centroids_A_D[right_P]
        squared_P = np.einsum("pd,pd->p", left_P_D - right_P_D, left_P_D - right_P_D)
        self.centroids_A_D[left_P] = (left_P_D * left_size_P[:, None] + right_P_D * right_size_P[:, None]) / size_P[:, None]
        self.size_A[left_P] = size_P
        touched_A = np.zeros(len(rows_A), dtype=bool)
        touched_A[left_P] = touched_A[right_P] = True
        self.stale_A = touched_A | touched_A[self.nearest_A]
        self._reorder(np.setdiff1d(rows_A, right_P, assume_unique=True))
        return pairs_P_2, np.sqrt(2 * squared_P * left_size_P * right_size_P / size_P)

    def _reorder(self, kept: NDArray[np.int64]) -> None:
        """Keep these clusters, ordered by size; the neighbours of stale ones are meaningless afterwards."""
        order_K = kept[np.argsort(self.size_A[kept], kind="stable")]
        place_A = np.zeros(len(self.leaf_A), dtype=np.int64)
        place_A[order_K] = np.arange(len(order_K))
        self.centroids_A_D, self.leaf_A, self.size_A = self.centroids_A_D[order_K], self.leaf_A[order_K], self.size_A[order_K]
        self.nearest_A, self.distance_A, self.stale_A = place_A[self.nearest_A[order_K]], self.distance_A[order_K], self.stale_A[order_K]


def linkage_tree(vectors_E_D: Vectors, linkage: Linkage = "ward") -> Tree:
    """Return the tree of merges of unit vectors.

    Heights of `ward` are Euclidean and grow with the clusters; those of `average` are cosine distances (1 - cosine), the
    mean over the pairs of two clusters, whatever their size.

    Raises:
        HiExpError: the vectors are not a matrix of rows of length 1, an unknown linkage, or too many rows for `average`, whose
            memory is quadratic.
    """
    _check_unit(vectors_E_D)
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
    pairs = []
    for left, right in merges_M_4[:, :2].astype(np.int64):
        pairs.append((leaf[left], leaf[right]))
        leaf.append(min(pairs[-1]))
    return Tree(np.array(pairs, dtype=np.int64), np.maximum(merges_M_4[:, 2], 0.0), rows)


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


def height_of_cosine(cosine: float, linkage: Linkage = "ward") -> float:
    """Return the height at which a pair of that cosine (-1 to 1) is merged: sqrt(2 * (1 - cosine)) by Ward, 1 - cosine by average."""
    return float(np.sqrt(2 * (1 - cosine))) if linkage == "ward" else float(1 - cosine)


def threshold_of(level: Level, linkage: Linkage) -> str:
    """Return the name of the height at which entries of the level are clustered, in a header; heights of linkages differ."""
    return f"{level}_{linkage}_max_height"


def _check_unit(vectors_E_D: Vectors) -> None:
    if vectors_E_D.ndim != 2:
        raise HiExpError(f"vectors have the shape {vectors_E_D.shape}; give a matrix, one row per entry")
    norms_E = np.linalg.norm(vectors_E_D, axis=1)
    wrong_E = np.flatnonzero(~(np.abs(norms_E - 1) <= 1e-3))  # true of NaN, too
    if len(wrong_E):
        found = f"{len(wrong_E)} rows are not of length 1, the first is row {wrong_E[0]} with {norms_E[wrong_E[0]]:.3f}"
        raise HiExpError(f"clusters need unit vectors: {found}; encode with an Encoder, which normalises")
