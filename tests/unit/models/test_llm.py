"""The chat client against a real local server: answers, retries, refusals, garbage, nobody there."""

import asyncio
import socket
import threading

import pytest

from hiexp_verl.errors import HiExpError
from hiexp_verl.models.chat import ChatClient, PromptTooLong, Reply, open_model
from tests.support.chat_server import completion, server

pytest.importorskip("openai")
HELLO = [{"role": "user", "content": "hello"}]


def client(url, **options):
    return ChatClient(url, options.pop("model", "m"), **{"retries": 2, "timeout": 5.0, **options})


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.0)


def test_many_conversations_are_answered_in_order_and_reported_as_they_arrive():
    arrived = {}
    with server(lambda request, n: (200, completion(request["messages"][0]["content"].upper()))) as (url, requests):
        texts = client(url).complete([[{"role": "user", "content": c}] for c in "abc"], max_tokens=5, seed=7, on_reply=arrived.__setitem__)
    assert texts == ["A", "B", "C"]
    assert arrived == {i: Reply(text, "stop", completion_tokens=2, prompt_tokens=1) for i, text in enumerate("ABC")}
    assert all(request["seed"] == 7 and request["temperature"] == 0.0 and request["max_tokens"] == 5 for request in requests)


def test_no_conversations_need_no_server():
    assert client("http://127.0.0.1:9/v1").complete([], max_tokens=5) == []


def test_errors_of_the_moment_are_retried():
    with server(lambda request, n: (200, completion()) if n == 3 else (500 if n == 1 else 429, {"error": {"message": "busy"}})) as (
        url,
        requests,
    ):
        assert client(url).complete([HELLO], max_tokens=5) == ["hi"]
    assert len(requests) == 3


def test_a_server_that_stays_broken_is_one_line():
    with (
        server(lambda request, n: (503, {"error": {"message": "down\nfor good"}})) as (url, requests),
        pytest.raises(HiExpError, match="does not answer") as error,
    ):
        client(url).complete([HELLO], max_tokens=5)
    assert len(requests) == 3
    assert "\n" not in str(error.value)


def test_nobody_there_is_one_line():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(HiExpError, match="does not answer"):
        client(f"http://127.0.0.1:{port}/v1", retries=1).complete([HELLO], max_tokens=5)
    with pytest.raises(HiExpError, match="does not answer"), open_model(f"openai:http://127.0.0.1:{port}/v1"):
        pass


@pytest.mark.parametrize(("status", "hint"), [(401, "OPENAI_API_KEY"), (404, "/v1"), (400, "refuses")])
def test_refusals_say_what_to_do(status, hint):
    with server(lambda request, n: (status, {"error": {"message": "no"}})) as (url, requests), pytest.raises(HiExpError, match=hint):
        client(url).complete([HELLO], max_tokens=5)
    assert len(requests) == 1


@pytest.mark.parametrize("body", ["<html>hello</html>", "[]", '{"choices": []}', "{}", ""])
def test_an_address_of_something_else_is_named(body):
    with server(lambda request, n: (200, body)) as (url, _), pytest.raises(HiExpError, match="OpenAI-compatible"):
        client(url).complete([HELLO], max_tokens=5)


def test_a_prompt_that_does_not_fit_is_told_apart():
    with (
        server(lambda request, n: (400, {"error": {"message": "This model's maximum context length is 8 tokens."}})) as (url, _),
        pytest.raises(PromptTooLong),
    ):
        client(url).complete([HELLO], max_tokens=5)


def test_a_schema_is_sent_and_given_up_when_refused():
    schema = {"type": "object"}

    def answer(request, number):
        return (
            (400, {"error": {"message": "response_format is not supported"}}) if "response_format" in request else (200, completion("{}"))
        )

    with server(answer) as (url, requests):
        asked = client(url)
        assert asked.complete([HELLO] * 3, max_tokens=5, schema=schema) == ["{}"] * 3
        before = len(requests)
        asked.complete([HELLO], max_tokens=5, schema=schema)
    assert requests[0]["response_format"]["json_schema"]["schema"] == schema
    assert before <= 6
    assert len(requests) == before + 1  # not tried again


def test_the_stop_string_stays_in_the_text():
    with server(lambda request, n: (200, completion("<search>a", stop_reason="</search>"))) as (url, requests):
        (text,) = client(url).complete([HELLO], max_tokens=5, stop=["</search>"])
    assert text == "<search>a</search>"
    assert requests[0]["include_stop_str_in_output"] is True


def test_servers_that_do_not_know_the_stop_option_are_asked_without_it():
    def answer(request, number):
        return (
            (400, {"error": {"message": "Unrecognized request argument: include_stop_str_in_output"}})
            if "include_stop_str_in_output" in request
            else (200, completion())
        )

    with server(answer) as (url, requests):
        assert client(url).complete([HELLO], max_tokens=5, stop=["x"]) == ["hi"]
    assert len(requests) == 2


def test_one_chat_returns_text_reason_and_tokens():
    async def ask(url):
        asked = client(url)
        try:
            return await asked.chat(HELLO, max_tokens=5, top_p=0.9)
        finally:
            await asked.close()

    with server(lambda request, n: (200, completion("hi", "length"))) as (url, requests):
        assert asyncio.run(ask(url)) == Reply("hi", "length", 2, 1)
    assert requests[0]["top_p"] == 0.9
    assert "stop" not in requests[0]


def test_the_only_model_of_a_server_is_found():
    with server(lambda request, n: (200, completion())) as (url, requests), open_model(url) as opened:
        opened.complete([HELLO], max_tokens=5)
    assert requests[0]["model"] == "only"


def test_no_more_requests_than_allowed_are_in_flight():
    running, most = 0, 0
    lock = threading.Lock()

    def answer(request, number):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.02)
        with lock:
            running -= 1
        return 200, completion()

    with server(answer) as (url, _):
        client(url, concurrency=2).complete([HELLO] * 8, max_tokens=5)
    assert most == 2


def test_a_directory_without_a_model_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(HiExpError, match=r"config\.json"), open_model(f"vllm:{tmp_path}"):
        pass
