"""What a chat template puts after an assistant's words is found, and only what is missing of it is added."""

import pytest

from hiexp_verl.plugin.tokens import closing_ids, missing_ids
from tests.support.chat_families import families, tokenizer_of


@pytest.mark.parametrize("family", families())
def test_the_closing_is_the_end_of_turn_and_the_line_break_of_the_template(family):
    tokenizer = tokenizer_of(family)
    closing = "<|eot_id|>" if family == "llama3" else "<|im_end|>\n"
    assert tokenizer.decode(closing_ids(tokenizer)) == closing
    assert closing_ids(tokenizer, enable_thinking=False) == closing_ids(tokenizer)


@pytest.mark.parametrize(
    ("ids", "missing"),
    [
        ([5, 6], [8, 9]),  # a turn that was cut
        ([5, 8], [9]),
        ([5, 8, 9], []),
        ([5, 9], [8, 9]),
        ([8], [9]),
        ([], [8, 9]),
    ],
)
def test_only_what_is_missing_is_added(ids, missing):
    assert missing_ids(ids, [8, 9]) == missing
    assert missing_ids(ids, []) == []
