"""Retrieval: exact cosines, a fixed order, and no question sees its own solution."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl.distil.thresholds import calibrate_score
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek import HEK, Header, Retriever
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.types import Entry, Source

ENCODER = HashEncoder(32)


def plane(*degrees: float) -> np.ndarray:
    """Unit vectors in a plane at these angles: their cosines are easy to say."""
    radians = np.radians(degrees)
    vectors = np.zeros((len(degrees), 32), dtype=np.float32)
    vectors[:, 0], vectors[:, 1] = np.cos(radians), np.sin(radians)
    return vectors


def retriever(degrees, levels=None, questions=None, near_duplicates=None) -> Retriever:
    levels = levels or ["e1"] * len(degrees)
    questions = questions or [(f"q{i}",) for i in range(len(degrees))]
    entries = tuple(
        Entry(f"{level}-{i:04d}", level, f"t{i}", "d", questions=tuple(q))
        for i, (level, q) in enumerate(zip(levels, questions, strict=True))
    )
    return Retriever(HEK(Header(ENCODER.identity, near_duplicates=near_duplicates or {}), entries, plane(*degrees)), ENCODER)


def ids(hits) -> list[str]:
    return [hit.entry.id for hit in hits]


def test_the_nearest_titles_come_first_with_their_cosines():
    (hits,) = retriever([0, 60, 30]).retrieve(plane(0), ["e1"], top_k=2)
    assert ids(hits) == ["e1-0000", "e1-0002"]
    assert [hit.score for hit in hits] == pytest.approx([1.0, 0.866], abs=1e-3)  # cos 0, cos 30


def test_a_minimum_score_makes_it_abstain():
    found = retriever([0, 60]).retrieve(plane(90, 0), ["e1"], top_k=5, min_score=0.9)
    assert [ids(hits) for hits in found] == [[], ["e1-0000"]]  # cos 90 = 0 and cos 30 = 0.87 are too little


def test_only_the_levels_asked_for_are_searched():
    found = retriever([0, 0, 0], levels=["e1", "e2", "e3"]).retrieve(plane(0), ["e2", "e3"], top_k=5)
    assert ids(found[0]) == ["e2-0001", "e3-0002"]


def test_a_question_does_not_see_entries_from_itself_alone():
    own = retriever([0, 10, 20], questions=[("a",), ("a", "b"), ("b",)])
    found = own.retrieve(plane(0, 0, 0), ["e1"], top_k=3, exclude_questions=["a", "b", None])
    assert [ids(hits) for hits in found] == [["e1-0001", "e1-0002"], ["e1-0000", "e1-0001"], ["e1-0000", "e1-0001", "e1-0002"]]


def test_questions_that_ask_the_same_are_left_out_together():
    own = retriever([0, 10], questions=[("a", "twin"), ("twin",)], near_duplicates={"a": ("twin",), "twin": ("a",)})
    assert own.retrieve(plane(0), ["e1"], top_k=3, exclude_questions=["a"]) == [[]]


def test_a_question_without_a_known_id_is_known_by_its_text():
    entries = (Entry("e1-0000", "e1", "t", "d", questions=("q7",)),)
    sources = (Source("q7#0", "q7", "Who wrote Emma?", "m", "x", False, ()),)
    own = Retriever(HEK(Header(ENCODER.identity), entries, plane(0), sources), ENCODER)
    assert own.known_questions([("q7", "anything")]) == [{"q7"}]
    assert own.known_questions([(None, "who wrote  EMMA")]) == [{"q7"}]
    assert own.known_questions([(None, "Answer the given question. Question: Who wrote Emma?\n")]) == [{"q7"}]
    assert own.known_questions([("row-3", "By whom was Emma wrote?")]) == [{"q7", "row-3"}], "the same content words ask the same"
    assert own.known_questions([("row-3", "Who wrote Persuasion?")]) == [{"row-3"}]
    assert own.known_questions([(None, "")]) == [frozenset()]


def test_a_question_is_hidden_under_its_id_and_under_those_of_questions_that_ask_the_same():
    entries = (Entry("e1-0000", "e1", "t", "d", questions=("1",)), Entry("e1-0001", "e1", "t", "d", questions=("2",)))
    sources = tuple(
        Source(f"{i}#0", i, text, "m", "x", False, ()) for i, text in (("1", "Who wrote Emma?"), ("2", "Who painted Guernica?"))
    )
    own = Retriever(HEK(Header(ENCODER.identity), entries, plane(0, 0), sources), ENCODER)
    assert own.known_questions([("1", "Who painted Guernica?")]) == [{"1", "2"}]
    assert own.known_questions([("1", "Who sang it?")]) == [{"1"}]
    assert own.retrieve(plane(0), ["e1"], 5, exclude_questions=[frozenset({"1", "2"})]) == [[]]


def test_equal_scores_are_ordered_by_id():
    (hits,) = retriever([5] * 9).retrieve(plane(0), ["e1"], top_k=3)
    assert ids(hits) == ["e1-0000", "e1-0001", "e1-0002"]


@given(st.lists(st.integers(0, 180), min_size=1, max_size=30), st.integers(1, 12))
def test_top_k_is_the_head_of_the_full_ranking(degrees, top_k):
    found = retriever(degrees)
    (everything,) = found.retrieve(plane(0), ["e1"], top_k=len(degrees))
    (head,) = found.retrieve(plane(0), ["e1"], top_k=top_k)
    assert head == everything[:top_k]
    assert [hit.score for hit in everything] == sorted((hit.score for hit in everything), reverse=True)


@pytest.mark.parametrize("top_k", [1, 5, 600])
def test_the_head_is_the_same_where_there_are_too_many_scores_to_sort(top_k):
    entries = 2_000
    degrees = np.random.default_rng(0).integers(0, 90, entries)  # many ties
    found = retriever(degrees, questions=[(f"q{i % 7}",) for i in range(entries)], near_duplicates={"q0": ("q1",)})
    cosines = np.round(np.cos(np.radians(degrees)), 5)
    best = sorted((i for i in range(entries) if i % 7 > 1), key=lambda i: (-cosines[i], i))[:top_k]
    hits, rest = found.retrieve(plane(0, 0), ["e1"], top_k, exclude_questions=["q0", "q5"])
    assert ids(hits) == [f"e1-{i:04d}" for i in best]
    assert len(rest) == top_k and all(hit.entry.questions != ("q5",) for hit in rest)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("top_k", [1, 5])
def test_a_query_vector_that_is_no_direction_finds_nothing_and_its_neighbours_their_own(broken, top_k):
    queries = plane(0, 0, 60)
    queries[1, 3] = broken
    found = retriever([0, 60]).retrieve(queries, ["e1"], top_k)
    assert [ids(hits)[:1] for hits in found] == [["e1-0000"], [], ["e1-0001"]]


def test_no_texts_and_no_levels_give_nothing():
    found = retriever([0])
    assert found.retrieve([], ["e1"], 5) == []
    assert found.retrieve(["x"], ["e3"], 5) == [[]]
    assert found.retrieve(["x"], [], 5) == [[]]
    assert found.retrieve(["x"], ["e1"], 0) == [[]]


def test_wrong_encoder_wrong_dimensions_and_wrong_exclusions_are_errors():
    found = retriever([0])
    with pytest.raises(HiExpError, match="encoder"):
        Retriever(found.hek, HashEncoder(64))
    with pytest.raises(HiExpError, match="dimensions"):
        found.retrieve(np.zeros((1, 5), dtype=np.float32), ["e1"], 1)
    with pytest.raises(HiExpError, match="excluded"):
        found.retrieve(plane(0), ["e1"], 1, exclude_questions=["a", "b"])


def test_calibration_takes_the_percentile_over_other_questions_only():
    # The own title (cosine 1) does not count; the others have cosines 0.5 and 0.
    queries, titles = plane(0), plane(0, 60, 90)
    assert calibrate_score(queries, ["a"], titles, [("a",), ("b",), ("c",)], percentile=100) == pytest.approx(0.5, abs=2e-4)
    assert calibrate_score(queries, ["a"], titles, [("a",), ("b",), ("c",)], percentile=50) == pytest.approx(0.0, abs=2e-4)


def test_calibration_needs_two_questions_and_a_percentile():
    with pytest.raises(HiExpError, match="two questions"):
        calibrate_score(plane(0), ["a"], plane(0), [("a",)])
    with pytest.raises(HiExpError, match="percentile"):
        calibrate_score(plane(0), ["a"], plane(0), [("b",)], percentile=101)
