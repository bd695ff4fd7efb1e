"""Experience is taken out of token ids exactly, or not at all."""

import json

from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl.plugin.tokens import kept_tokens


class Characters:
    """One token a character, but "ab" is one: what is left may be tokenised otherwise than it was."""

    def encode(self, text, *, add_special_tokens):
        ids, i = [], 0
        while i < len(text):
            pair = text[i : i + 2] == "ab"
            ids.append(1 if pair else ord(text[i]))
            i += 2 if pair else 1
        return ids

    def decode(self, token_ids, *, skip_special_tokens):
        return "".join("ab" if t == 1 else chr(t) for t in token_ids)


TOKENIZER = Characters()


def encoded(*stretches):
    ids, mask = [], []
    for text, written in stretches:
        new = TOKENIZER.encode(text, add_special_tokens=False)
        ids, mask = ids + new, mask + [written] * len(new)
    return ids, mask


def test_a_block_is_taken_out_of_tool_text_and_nowhere_else():
    ids, mask = encoded(("say X", 1), ("docs X end", 0), ("X", 1))
    kept = kept_tokens(ids, mask, ["X"], TOKENIZER)
    assert kept is not None
    assert TOKENIZER.decode(kept[0], skip_special_tokens=False) == "say Xdocs  endX"
    assert kept[1] == [0, 1, 2, 3, 4, *[None] * 9, 15]


def test_what_is_left_is_tokenised_as_the_text_would_be():
    ids, mask = encoded(("aXb", 0))
    assert kept_tokens(ids, mask, ["X"], TOKENIZER) == ([1], [None])


def test_several_blocks_of_parallel_calls_are_found_in_any_stretch():
    ids, mask = encoded(("A1 A2", 0), ("w", 1), ("A3", 0))
    kept = kept_tokens(ids, mask, ["1", "2", "3"], TOKENIZER)
    assert kept is not None and TOKENIZER.decode(kept[0], skip_special_tokens=False) == "A AwA"


def test_a_block_that_is_not_there_or_tokens_that_are_not_the_tokenizer_s_change_nothing():
    ids, mask = encoded(("docs", 0), ("X", 1))
    assert kept_tokens(ids, mask, ["X"], TOKENIZER) is None
    odd = [ord("a"), ord("b"), ord("X")]  # the tokenizer would make one token of the first two
    assert kept_tokens(odd, [0, 0, 0], ["X"], TOKENIZER) is None


@given(st.lists(st.tuples(st.text("abc ", max_size=6), st.integers(0, 1)), max_size=6))
def test_without_blocks_nothing_changes(stretches):
    ids, mask = encoded(*stretches)
    assert kept_tokens(ids, mask, [], TOKENIZER) == (ids, list(range(len(ids))))


def test_a_template_that_writes_tool_text_as_json_is_known():
    block = '\n<x>\n- Say "Ü".\n</x>'
    ids, mask = encoded((json.dumps(f"docs{block}"), 0))
    assert kept_tokens(ids, mask, [block], TOKENIZER) == ([ord(c) for c in '"docs"'], [None] * 6)
    ids, mask = encoded((json.dumps(f"docs{block}", ensure_ascii=False), 0))
    assert kept_tokens(ids, mask, [block], TOKENIZER) == ([ord(c) for c in '"docs"'], [None] * 6)
