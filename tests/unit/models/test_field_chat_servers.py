"""The chat client adapts to what OpenAI-compatible servers of the field refuse and send."""

import asyncio

import pytest

from hiexp_verl.errors import HiExpError
from hiexp_verl.models.chat import ChatClient, PromptTooLong
from hiexp_verl.models.chat_replies import names_in
from hiexp_verl.protocol import FORMATS, call_tags, searches
from hiexp_verl.rollout.episode import EpisodeSettings, Players, episode
from tests.support.chat_server import completion, server
from tests.support.factories import question
from tests.support.scripted_policy import SEARCH

SEARCHED = [
    {"role": "system", "content": "Search."},
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "<search>it</search>"},
    {"role": "tool", "content": "It was me."},
]


def ask(url, messages=SEARCHED, **options):
    async def one():
        client = ChatClient(url, "m", retries=2)
        try:
            return [await client.chat(messages, max_tokens=8, **options) for _ in range(2)]
        finally:
            await client.close()

    return asyncio.run(one())


def refusing(words, refused):
    """Answer a request for which `refused` holds with a 400 of these words."""
    return lambda request, n: (400, {"error": {"message": words}}) if refused(request) else (200, completion("me"))


@pytest.mark.parametrize(
    ("words", "field", "instead"),
    [
        ("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", "max_tokens", 8),
        ("Unsupported parameter: 'stop' is not supported with this model.", "stop", None),
        ("seed: Extra inputs are not permitted", "seed", None),
        ("seed is not a valid field", "seed", None),
        ("Unknown parameter: 'max_tokens'.", "max_tokens", 8),
        ("Invalid 'stop': array too long. Expected an array with maximum length 4", "stop", None),
        ("Unsupported value: 'temperature' does not support 0.0. Only the default (1) value is supported.", "temperature", None),
    ],
)
def test_a_field_that_the_server_names_is_given_up_once_and_said(caplog, words, field, instead):
    with server(refusing(words, lambda request: field in request)) as (url, requests):
        assert [reply.text for reply in ask(url, seed=1, stop=["x"])] == ["me", "me"]
    assert [field in request for request in requests] == [True, False, False]
    assert requests[-1].get("max_completion_tokens") == instead
    assert caplog.text.count(f"does not support {field}") == 1


def test_only_words_about_length_are_a_prompt_that_is_too_long():
    words = "max_tokens is too large: 8. This model's maximum context length is 4 tokens"
    with server(refusing(words, lambda request: True)) as (url, requests), pytest.raises(PromptTooLong):
        ask(url)
    assert len(requests) == 1
    refused = server(refusing("temperature must be a number", lambda request: True))
    with refused as (url, requests), pytest.raises(HiExpError, match="refuses the request"):
        ask(url)
    assert len(requests) == 1


def test_the_complaint_of_a_server_that_sends_no_message_is_read():
    body = {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}
    with server(lambda request, n: (422, body) if "seed" in request else (200, completion("me"))) as (url, _):
        assert [reply.text for reply in ask(url, seed=1)] == ["me", "me"]
    with server(lambda request, n: (422, {"detail": "no room"})) as (url, _), pytest.raises(HiExpError, match="no room"):
        ask(url)


@pytest.mark.parametrize(
    "words",
    [
        "prompt is too long: 208310 tokens > 200000 maximum",
        "Input length (5000 tokens) exceeds the maximum allowed length (4096 tokens).",
        "the request exceeds the available context size, try increasing it",
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096.",
    ],
)
def test_a_prompt_that_is_too_long_is_known_by_the_words_of_every_server(words):
    with server(refusing(words, lambda request: True)) as (url, _), pytest.raises(PromptTooLong):
        ask(url)


@pytest.mark.parametrize(
    ("words", "role"),
    [
        ("Unexpected role 'tool' after role 'assistant'", "tool"),
        ("Not the same number of function calls and responses", "tool"),
        ("'tool' is not one of ['system', 'assistant', 'user', 'function'] - 'messages.3.role'", "tool"),
        ('messages: Unexpected role "tool". Allowed roles are "user" or "assistant"', "tool"),
        ("Unsupported value: 'messages[0].role' does not support 'system' with this model.", "system"),
        ("messages with role 'tool' must be a response to a preceding message with 'tool_calls'.", "tool"),
        ("Conversation roles must alternate user/assistant/user/assistant/...", "tool"),
        ("System role not supported", "system"),
    ],
)
def test_a_turn_that_the_server_refuses_goes_into_a_turn_of_the_user(caplog, words, role):
    with server(refusing(words, lambda request: any(m["role"] == role for m in request["messages"]))) as (url, requests):
        assert [reply.text for reply in ask(url)] == ["me", "me"]
    roles = [message["role"] for message in requests[-1]["messages"]]
    assert roles == {"tool": ["system", "user", "assistant", "user"], "system": ["user", "assistant", "tool"]}[role]
    assert requests[-1]["messages"][-1]["content"] == "It was me."
    if role == "system":
        assert requests[-1]["messages"][0]["content"] == "Search.\n\nWho?"
    assert caplog.text.count(f"does not support {role}") == 1 and len(requests) == 3


def test_an_error_with_status_200_is_retried_where_it_may_pass(monkeypatch):
    busy = {**completion(), "choices": None, "error": {"code": 429, "message": "Rate limit exceeded"}}
    monkeypatch.setattr("asyncio.sleep", lambda seconds, sleep=asyncio.sleep: sleep(0))
    with server(lambda request, n: (200, busy if n == 1 else completion("me"))) as (url, _):
        assert [reply.text for reply in ask(url)] == ["me", "me"]
    cut = completion("I", "error", error={"code": 502, "message": "Provider returned error"})
    with server(lambda request, n: (200, cut if n == 1 else completion("me"))) as (url, _):
        assert [reply.text for reply in ask(url)] == ["me", "me"]
    with server(lambda request, n: (200, busy)) as (url, requests), pytest.raises(HiExpError, match="error 429: Rate limit exceeded"):
        ask(url)
    assert len(requests) == 3
    for error in ({"code": "rate_limit_exceeded", "message": "wait"}, {"type": "overloaded_error", "message": "wait"}, "model is loading"):
        with server(lambda request, n, error=error: (200, {"error": error} if n == 1 else completion("me"))) as (url, _):
            assert [reply.text for reply in ask(url)] == ["me", "me"]
    bad = {**busy, "error": {"code": 400, "message": "no such model"}}
    with server(lambda request, n: (200, bad)) as (url, _), pytest.raises(HiExpError, match=r"refuses the request .no such model"):
        ask(url)


CALL = {"id": "1", "type": "function", "function": {"name": "search", "arguments": '{"query": "it"}'}}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": [{"type": "text", "text": "me"}, {"type": "image"}, {"type": "text", "text": "!"}]}, "me!"),
        ({"content": None, "reasoning_content": "me"}, "me"),
        ({"content": "me", "reasoning_content": "Hm"}, "me"),
        ({"content": "\n\n", "reasoning_content": "me"}, "me"),
        ({"content": None, "thinking": "me"}, "me"),
        ({"content": "", "reasoning_details": [{"type": "reasoning.text", "text": "me"}]}, "me"),
        ({"content": {"type": "text", "text": "me"}}, "me"),
        ({"content": None, "refusal": "I cannot."}, "I cannot."),
        (
            {"content": None, "function_call": {"name": "search", "arguments": '{"query": "it"}'}},
            '\n<tool_call>\n{"name": "search", "arguments": {"query": "it"}}\n</tool_call>',
        ),
        ({"content": None, "tool_calls": [CALL]}, '\n<tool_call>\n{"name": "search", "arguments": {"query": "it"}}\n</tool_call>'),
        ({"content": "me", "tool_calls": None}, "me"),
        ({"content": "me", "tool_calls": [{"id": "1", "function": None}]}, "me"),
    ],
)
def test_what_a_server_took_out_of_the_content_is_read(message, text):
    body = completion()
    body["choices"][0]["message"] = {"role": "assistant", **message}
    with server(lambda request, n: (200, body)) as (url, _):
        assert ask(url)[0].text == text


def test_a_call_that_a_server_parsed_is_a_search_in_both_dialects():
    def answer(request, n):
        body = completion("<answer>Paris</answer>")
        if len(request["messages"]) == 2:
            body["choices"][0]["message"] = {"role": "assistant", "content": "Hm.", "tool_calls": [CALL]}
        return 200, body

    async def play(url, dialect):
        return await episode(question(), Players(ChatClient(url, "m"), SEARCH), EpisodeSettings(format=dialect))

    with server(answer) as (url, requests):
        for dialect in FORMATS:
            played = asyncio.run(play(url, dialect))
            assert ([s.query for s in searches(played.messages)], played.prediction) == (["it"], "Paris")
            assert played.messages[2]["content"].startswith("Hm.") and played.messages[2]["content"].endswith(call_tags(dialect)[1])
    assert len(requests) == 4


@pytest.mark.parametrize("choices", [None, [], {}, [{"message": None}], [None]])
def test_a_response_without_an_answer_is_one_line(choices):
    answers = server(lambda request, n: (200, {**completion(), "choices": choices}))
    with answers as (url, _), pytest.raises(HiExpError, match="not as an OpenAI-compatible server") as error:
        ask(url)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        ({"data": [{"id": "a"}, {"object": "model"}]}, ["a"]),
        ([{"id": "a"}, "b"], ["a", "b"]),
        ({"models": [{"name": "llama3", "model": "llama3:8b"}]}, ["llama3:8b"]),
        ({"data": []}, []),
    ],
)
def test_a_list_of_models_is_read_in_every_shape(listed, names):
    assert names_in(listed, "http://x") == names


@pytest.mark.parametrize("listed", [{"data": None}, "<html>", None, {"data": "a"}])
def test_what_is_no_list_of_models_is_named(listed):
    with pytest.raises(HiExpError, match="its list of models is"):
        names_in(listed, "http://x")
