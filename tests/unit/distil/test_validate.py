"""Texts are measured as retrieval sees them."""

import numpy as np

from hiexp_verl.distil.draft import Draft
from hiexp_verl.distil.validate import _is_short, closer_than_chance, is_part_of, repeats

EAST, NORTH, BETWEEN = [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]


def test_a_title_must_lie_nearer_to_its_own_kind_than_to_others():
    titles = np.array([EAST, EAST, BETWEEN], dtype=np.float32)
    kinds = np.array([EAST, NORTH, NORTH], dtype=np.float32)
    # The second title is that of the first kind: 0 to its own, 1 to the other's.
    assert closer_than_chance(titles, kinds).tolist() == [True, False, True]


def test_the_same_kind_twice_is_not_compared():
    kinds = np.array([EAST, EAST], dtype=np.float32)
    assert closer_than_chance(np.array([EAST, BETWEEN], dtype=np.float32), kinds).tolist() == [True, True]


def test_titles_and_advice_without_spaces_are_not_too_short_and_are_compared_by_pairs():
    title, advice = "流经某座城市的河流", "先查明这座城市的名字再查河流"
    assert not _is_short(Draft(title, advice, "guide")) and _is_short(Draft("河", "先查", "guide"))
    assert repeats(advice, "先查明这座城市的名字再查河流。") and not repeats(advice, title)
    assert is_part_of("这座城市的名字", advice)
