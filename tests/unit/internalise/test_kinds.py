"""Which tokens are a query, an answer, or thought."""

import pytest

from hiexp_verl.internalise.kinds import KINDS, kinds_of


def named(pieces):
    return [KINDS[kind] for kind in kinds_of(pieces)]


@pytest.mark.parametrize(("opening", "closing"), [("<search>", "</search>"), ("<tool_call>", "</tool_call>")])
def test_tags_belong_to_what_they_enclose(opening, closing):
    pieces = ["I", " search", opening, " the", " king", closing, "<|im_end|>"]
    assert named(pieces) == ["thought", "thought", "query", "query", "query", "query", "thought"]


def test_tags_in_pieces_of_a_token_and_an_answer_after_a_thought():
    pieces = ["so", " <", "answer", ">", " Par", "is", " </", "answer", ">", " done"]
    # " <" begins before the tag: it is of the thought. " </" begins within it.
    assert named(pieces) == [*["thought"] * 2, *["answer"] * 7, "thought"]


def test_what_is_not_closed_goes_on_to_the_end_and_nothing_is_thought():
    assert named(["<search>", " a", " b"]) == ["query"] * 3
    assert named(["a", "<answer>", "b"]) == ["thought", "answer", "answer"]
    assert named(["a", "", "b"]) == ["thought"] * 3 and named([]) == []
