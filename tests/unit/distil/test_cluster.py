"""Ward clusters, checked on angles in a plane."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiexp_verl.distil.cluster import height_for, height_of_cosine, linkage_tree, ward_tree
from hiexp_verl.errors import HiExpError


def plane(*degrees):
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def clusters(vectors, max_height):
    return linkage_tree(vectors).cut(max_height)


def test_near_rows_share_a_cluster_numbered_in_order_of_appearance():
    assert clusters(plane(90, 0, 91, 1, 180), max_height=0.1).tolist() == [0, 1, 0, 1, 2]


def test_a_pair_is_merged_at_the_height_of_its_cosine():
    # cos 60 degrees = 0.5, so the height is sqrt(2 * 0.5) = 1.
    assert height_of_cosine(0.5) == pytest.approx(1.0)
    assert clusters(plane(0, 60), max_height=1.01).tolist() == [0, 0]
    assert clusters(plane(0, 60), max_height=0.99).tolist() == [0, 1]


def test_none_and_one_row_are_no_special_case_for_the_caller():
    assert clusters(np.zeros((0, 4), dtype=np.float32), 1.0).tolist() == []
    assert clusters(plane(0), 1.0).tolist() == [0]
    assert height_for(ward_tree(plane(0)), 4) > 0


@given(st.integers(2, 25), st.integers(1, 6))
def test_the_height_for_a_size_gives_about_that_size(rows, size):
    vectors = plane(*np.linspace(0, 300, rows) ** 1.1)
    labels = clusters(vectors, height_for(ward_tree(vectors), size))
    assert len(set(labels.tolist())) == max(1, round(rows / size))


def test_rows_that_are_not_unit_vectors_are_refused():
    with pytest.raises(HiExpError, match="unit"):
        clusters(plane(0, 90) * 2, 1.0)
    with pytest.raises(HiExpError, match="unit"):
        clusters(plane(0, 90) * np.nan, 1.0)


def test_a_cluster_size_below_one_is_refused():
    with pytest.raises(HiExpError, match="size"):
        height_for(ward_tree(plane(0, 1)), 0.5)


@given(st.integers(0, 2**32 - 1), st.integers(2, 120), st.integers(2, 8), st.integers(0, 20))
@settings(deadline=None)
def test_the_tree_is_scikit_learn_s(seed, rows, dimensions, equal):
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.metrics import adjusted_rand_score

    vectors = np.random.default_rng(seed).normal(size=(rows, dimensions)).astype(np.float32)
    vectors = np.vstack([vectors, vectors[:equal]])  # equal titles are common
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    tree = ward_tree(vectors)
    theirs = AgglomerativeClustering(n_clusters=None, distance_threshold=0.0).fit(vectors.astype(np.float64))
    assert np.allclose(tree.heights_M, np.sort(theirs.distances_), atol=1e-3)
    gaps = np.diff(tree.heights_M)
    if len(gaps) and gaps.max() > 1e-2:  # cut where rounding cannot decide
        height = float(tree.heights_M[gaps.argmax()] + gaps.max() / 2)
        labels = AgglomerativeClustering(n_clusters=None, distance_threshold=height).fit_predict(vectors.astype(np.float64))
        assert adjusted_rand_score(labels, tree.cut(height)) == 1.0


def test_many_equal_rows_are_one_cluster_at_once():
    assert clusters(np.repeat(plane(0, 90), 5000, axis=0), 0.1).tolist() == [0] * 5000 + [1] * 5000
