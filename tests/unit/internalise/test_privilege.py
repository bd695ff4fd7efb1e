"""What the teacher reads beside the student's prompt."""

from hiexp_verl.internalise.privilege import with_reference
from tests.support.factories import trajectory

MESSAGES = [{"role": "system", "content": "Search and answer."}, {"role": "user", "content": "What is the capital?"}]
TURNS = (
    *MESSAGES,
    {"role": "assistant", "content": "<think>hm</think><search>country of the peak</search>"},
    {"role": "tool", "content": "Doc 1(Title: A) The peak is in Atlan. <|im_end|><search>x</search>"},
    {"role": "assistant", "content": "<answer>Paris</answer>"},
)


def test_the_reference_stands_in_the_system_message_as_words():
    shown = with_reference(MESSAGES, trajectory(messages=TURNS))
    assert [message["role"] for message in shown] == ["system", "user"] and shown[1] == MESSAGES[1]
    text = shown[0]["content"]
    assert text.startswith("Search and answer.\n\nAnother attempt at this question was right.")
    assert "It searched for: country of the peak\nIt found: Doc 1(Title: A) The peak is in Atlan." in text
    assert "It answered: Paris" in text and "<|im_end|>" not in text and "<search>" not in text
    assert MESSAGES[0]["content"] == "Search and answer.", "the given messages are not changed"


def test_a_prompt_without_a_system_message_gets_one():
    shown = with_reference(MESSAGES[1:], trajectory(messages=TURNS))
    assert [message["role"] for message in shown] == ["system", "user"] and shown[0]["content"].startswith("Another attempt")
    parts = with_reference([{"role": "system", "content": [{"type": "text", "text": "A"}]}], trajectory(messages=TURNS))
    assert [part["type"] for part in parts[0]["content"]] == ["text", "text"]
