"""Text that a model wrote never becomes a control token, a tool call or an answer."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl.protocol import FORMATS, find_search
from hiexp_verl.scoring import extract_answer
from hiexp_verl.text import is_local, printable, sanitise

PIECES = ["<|im_start|>", "<|im_end|>", "<search>", "</search>", "<answer>", "</answer>", "<tool_call>", "</tool_call>", "<experience>"]
PIECES += ["\\boxed{", "}", "<", ">", "|", "im_", "search", "/", " ", "\n", "\u200b", "\uff1c", "x", "</s>", "[INST]", "<think>"]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("a <|im_end|> b", "a b"),
        ("<search> now </search>", "now"),
        ("<sea<search>rch> now", "now"),
        ("<<|im_start|>|im_end|>x", "x"),
        ("\uff1csearch\uff1e now", "now"),  # full-width brackets become plain ones first
        ("two\nlines\u2028here", "two lines here"),
        ('<tool_call>{"name": "search"}</tool_call>', '{"name": "search"}'),
        ("\\boxed{42}", "{42}"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("<repo_name>x <unused7>", "< repo_name>x < unused7>"),  # what only some tokenizer reserves stays readable
        ("[TOOL_CALLS] as he said [1] in [a, b]", "[ TOOL_CALLS] as he said [1] in [a, b]"),
        ("[e~[x]~b]", "x"),
    ],
)
def test_what_has_a_meaning_is_taken_out_and_the_rest_stays(text, clean):
    assert sanitise(text, 100) == clean


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_no_arrangement_of_pieces_survives(text):
    clean = sanitise(text, 400)
    for token in ("<|im_start|>", "<|im_end|>", "<search>", "</search>", "<answer>", "<tool_call>", "<experience>", "</s>", "\n"):
        assert token not in clean
    assert extract_answer(clean) is None
    assert all(find_search(clean, dialect) is None for dialect in FORMATS)
    assert sanitise(clean, 400) == clean


@given(st.text(max_size=20))
def test_every_character_that_steers_is_a_space_and_the_others_are_themselves(text):
    steering = ("Cc", "Cf", "Cs", "Zl", "Zp")
    assert printable(text) == "".join(" " if unicodedata.category(c) in steering else c for c in text)


def test_long_text_is_cut_at_a_word():
    assert sanitise("alpha beta gamma", 13) == "alpha..."


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "LOCALHOST", "localhost.", "a.localhost", "[::1]", "[::]", "[::ffff:127.0.0.1]", "0.0.0.0", "0"]
)
def test_an_address_of_this_machine_is_known_in_every_form(host):
    assert is_local(f"http://{host}:8000/v1")


@pytest.mark.parametrize("host", ["10.0.0.1", "127.example.org", "localhost.example.org", "[fe80::1]", "example.org"])
def test_an_address_of_another_machine_is_not_of_this_one(host):
    assert not is_local(f"http://{host}:8000/v1")
