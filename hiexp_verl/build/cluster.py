"""Ward clusters of unit vectors (the paper's construction, step 5)."""

import numpy as np
from numpy.typing import NDArray

from hiexp_verl.encoder import Vectors
from hiexp_verl.errors import HiExpError

# Ward keeps all pairwise distances: 16,000 rows need about 2 GB, and memory grows with the square.
_MOST_ROWS = 40_000


def ward_clusters(vectors_E_D: Vectors, max_height: float) -> NDArray[np.int64]:
    """Return a cluster number per row, numbered in the order of first appearance.

    `max_height` is a Ward merge height. For two vectors it is sqrt(2 * (1 - cosine)), but it grows with the size of the
    clusters, so a fixed height splits a growing bank ever finer: choose it by `height_for` from the data.

    Raises:
        HiExpError: rows are not of length 1, or there are too many for memory.
    """
    _check(vectors_E_D)
    if len(vectors_E_D) < 2:
        return np.zeros(len(vectors_E_D), dtype=np.int64)
    from sklearn.cluster import AgglomerativeClustering

    model = AgglomerativeClustering(n_clusters=None, distance_threshold=max_height, linkage="ward")  # pyright: ignore[reportArgumentType]
    labels_E = model.fit_predict(vectors_E_D.astype(np.float64))
    _, first_E, inverse_E = np.unique(labels_E, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first_E))[inverse_E].astype(np.int64)


def height_for(vectors_E_D: Vectors, cluster_size: float) -> float:
    """Return the Ward height at which clusters have about `cluster_size` rows on average.

    Raises:
        HiExpError: as `ward_clusters`, or a cluster size below 1.
    """
    _check(vectors_E_D)
    if cluster_size < 1:
        raise HiExpError(f"the cluster size {cluster_size} is below 1; give the number of entries that one parent should summarise")
    rows = len(vectors_E_D)
    if rows < 2:
        return 1.0
    from sklearn.cluster import AgglomerativeClustering

    model = AgglomerativeClustering(n_clusters=None, distance_threshold=0.0, linkage="ward")  # pyright: ignore[reportArgumentType]
    heights_M = np.sort(model.fit(vectors_E_D.astype(np.float64)).distances_)
    merges = rows - max(1, round(rows / cluster_size))
    below = heights_M[merges - 1] if merges > 0 else 0.0
    above = heights_M[merges] if merges < len(heights_M) else heights_M[-1] + 1.0
    return round(float(below + above) / 2, 6)


def height_of_cosine(cosine: float) -> float:
    """Return the height at which a pair of that cosine is merged: sqrt(2 * (1 - cosine)).

    Raises:
        HiExpError: the cosine is outside -1 to 1.
    """
    if not -1 <= cosine <= 1:
        raise HiExpError(f"cosine {cosine} is out of range; give a number from -1 to 1")
    return float(np.sqrt(2 * (1 - cosine)))


def _check(vectors_E_D: Vectors) -> None:
    if len(vectors_E_D) > _MOST_ROWS:
        raise HiExpError(f"{len(vectors_E_D)} entries need too much memory to cluster (at most {_MOST_ROWS}); sample the trajectories")
    norms_E = np.linalg.norm(vectors_E_D, axis=1)
    if not np.allclose(norms_E, 1.0, atol=1e-3):
        norms = f"{norms_E.min():.3f} to {norms_E.max():.3f}"
        raise HiExpError(f"Ward needs unit vectors, their norms run from {norms}; encode with an Encoder, which normalises")
