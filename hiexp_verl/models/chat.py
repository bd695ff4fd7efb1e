"""Chat client: messages in, text out, for every OpenAI-compatible server.

All retries are here. A server that does not answer, refuses a request or does not serve the model is a `HiExpError` (the user
can fix it); a prompt that exceeds the context is `PromptTooLong` (the caller handles it).
"""

import asyncio
import json
import logging
import os
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from hiexp_verl.errors import HiExpError
from hiexp_verl.models.vllm_server import serve_vllm
from hiexp_verl.types import Message

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    import openai

T = TypeVar("T")

# Options that some servers reject, and the words in their error messages by which that is recognised.
SCHEMA, STOP_TEXT = "a JSON schema", "include_stop_str_in_output"
_EXTRAS: dict[str, tuple[str, ...]] = {
    SCHEMA: ("response_format", "json_schema", "guided", "grammar", "structured"),
    STOP_TEXT: ("include_stop_str",),
}
_TOO_LONG = ("context length", "maximum context", "max_tokens", "too long", "max_model_len")


class PromptTooLong(HiExpError):
    """The server refused a request because prompt and answer do not fit its context."""


@dataclass(frozen=True)
class Reply:
    """One answer of a model. `text` holds the stop string that ended it, where the server returns it."""

    text: str
    finish_reason: str  # "stop", "length" or another value of the server
    completion_tokens: int  # 0 if the server does not report it
    prompt_tokens: int = 0


class ChatClient:
    """A model behind an OpenAI-compatible server.

    Args:
        base_url: for example http://localhost:8000/v1.
        model: name of the model on the server; empty: the only model that the server has.
        concurrency: requests in flight at a time.
        timeout: seconds for one request.
        retries: further attempts after a connection error, a time-out, a 429 or a 5xx.
    """

    def __init__(
        self, base_url: str, model: str = "", api_key: str | None = None, concurrency: int = 16, timeout: float = 300.0, retries: int = 4
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.model = model
        self._api_key = api_key or os.environ.get("OPENAI_API_KEY") or "none"
        self._concurrency = concurrency
        self._timeout = timeout
        self._retries = retries
        # A connection pool belongs to one event loop, and `complete` makes a new loop each time.
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[openai.AsyncOpenAI, asyncio.Semaphore]] = WeakKeyDictionary()
        self._refused: set[str] = set()
        self._logged_attempt = 0

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float = 1.0,
        top_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] | None = None,
        schema: dict[str, Any] | None = None,
    ) -> Reply:
        """Return one answer; `stop` strings stay in its text, `schema` (a JSON schema) constrains it if the server supports that.

        Raises:
            PromptTooLong: prompt plus `max_tokens` exceed the context of the model.
            HiExpError: the server cannot be reached after all retries, or refuses the request.
        """
        request: dict[str, Any] = {
            "model": await self.find_model(),
            "messages": list(messages),
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
            "stop": list(stop) if stop else None,
        }
        return await self._chat({key: value for key, value in request.items() if value is not None}, schema)

    def complete(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
        schema: dict[str, Any] | None = None,
        stop: Sequence[str] | None = None,
        progress: str = "",
        on_reply: Callable[[int, Reply], None] | None = None,
    ) -> list[str]:
        """Answer all conversations, in their order, with a progress bar named `progress` (none when empty).

        `on_reply(index, reply)` is called as each answer arrives, in any order.

        Raises:
            HiExpError: see `chat`. Must not be called from inside a running event loop.
        """

        async def one(index: int, messages: Sequence[Message]) -> str:
            reply = await self.chat(messages, max_tokens=max_tokens, temperature=temperature, seed=seed, schema=schema, stop=stop)
            if on_reply is not None:
                on_reply(index, reply)
            return reply.text

        async def run() -> list[str]:
            try:
                return await gather_with_progress([one(index, messages) for index, messages in enumerate(conversations)], progress)
            finally:
                await self.close()

        return asyncio.run(run())

    async def find_model(self) -> str:
        """Return the name of the model; without one, ask the server and remember the answer.

        Raises:
            HiExpError: the server cannot be reached, or serves none or several.
        """
        if not self.model:
            client, limit = self._pool()

            async def ask() -> list[str]:
                async with limit:
                    return [model.id for model in (await client.models.list()).data]

            names = await self._with_retries(ask, set())
            if not self.model:
                if len(names) != 1:
                    raise HiExpError(f"the server {self.base_url} serves {names or 'no model'}; name one as {self.base_url}#MODEL")
                self.model = names[0]
        return self.model

    async def close(self) -> None:
        """Close the connections of the running event loop (they are opened again when needed)."""
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool[0].close()

    def _pool(self) -> "tuple[openai.AsyncOpenAI, asyncio.Semaphore]":
        loop = asyncio.get_running_loop()
        if loop not in self._pools:
            from openai import AsyncOpenAI, DefaultAsyncHttpxClient

            # A proxy set for downloads would swallow calls to a server on this machine.
            direct = DefaultAsyncHttpxClient(trust_env=False) if _is_local(self.base_url) else None
            client = AsyncOpenAI(base_url=self.base_url, api_key=self._api_key, timeout=self._timeout, max_retries=0, http_client=direct)
            self._pools[loop] = (client, asyncio.Semaphore(self._concurrency))
        return self._pools[loop]

    async def _chat(self, request: dict[str, Any], schema: dict[str, Any] | None) -> Reply:
        client, limit = self._pool()

        extras: set[str] = set()

        async def ask() -> Reply:
            options: dict[str, Any] = dict(request)
            extras.clear()
            if schema is not None and SCHEMA not in self._refused:
                extras.add(SCHEMA)
                options["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
            if "stop" in request and STOP_TEXT not in self._refused:
                extras.add(STOP_TEXT)
                options["extra_body"] = {"include_stop_str_in_output": True}
            async with limit:
                response = await client.chat.completions.create(**options)
            return _reply(response, request.get("stop", []), self.base_url)

        return await self._with_retries(ask, extras)

    async def _with_retries(self, ask: Callable[[], Awaitable[T]], extras: set[str]) -> T:
        """Return the answer after at most `retries` retries; `extras` are the options of this request that a server may reject."""
        import openai

        attempt = 0
        while True:
            try:
                return await ask()
            except openai.BadRequestError as error:
                if not self._drops_extra(str(error), extras):
                    raise _refusal(self.base_url, error) from error
            except (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError) as error:
                if attempt >= self._retries:
                    tried = f"{attempt + 1} attempts, last: {_first_line(error)}"
                    raise HiExpError(f"the server {self.base_url} does not answer ({tried}); start it or correct the address") from error
                attempt += 1
                if attempt > self._logged_attempt:  # once for all concurrent requests
                    self._logged_attempt = attempt
                    logger.warning("%s: %s; trying again (%d of %d)", self.base_url, _first_line(error), attempt, self._retries)
                await asyncio.sleep(min(30.0, 0.25 * 2**attempt) * (0.5 + random.random()))
            except openai.APIStatusError as error:
                raise _refusal(self.base_url, error) from error
            except (openai.APIError, json.JSONDecodeError) as error:
                raise _no_chat_server(self.base_url, _first_line(error)) from error

    def _drops_extra(self, complaint: str, extras: set[str]) -> bool:
        """Drop the option that the server rejects; return whether to send the request again."""
        for extra, words in _EXTRAS.items():
            if extra in extras and any(word in complaint for word in words):
                if extra not in self._refused:
                    logger.warning("%s does not support %s; requests go without it", self.base_url, extra)
                self._refused.add(extra)
                return True
        return False


async def gather_with_progress(work: Sequence[Coroutine[Any, Any, T]], name: str) -> list[T]:
    """Return all results in order, with a progress bar; the first error cancels the rest and is raised."""
    from tqdm import tqdm

    with tqdm(total=len(work), desc=name, disable=not name) as bar:

        async def counted(one: Awaitable[T]) -> T:
            result = await one
            bar.update()
            return result

        tasks = [asyncio.ensure_future(counted(one)) for one in work]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


MAX_MODEL_LEN = 4096


@contextmanager
def open_model(spec: str, concurrency: int = 16, max_model_len: int = MAX_MODEL_LEN, name: str = "") -> Iterator[ChatClient]:
    """Yield a client for `URL#MODEL`, `URL` (the server's only model), or a directory, which vLLM serves during the block.

    The prefixes of the command line, `openai:` and `vllm:`, are accepted. For a directory: `max_model_len` bounds the tokens of
    prompt and answer (at most what the model supports), `name` replaces the name of the directory.

    Raises:
        HiExpError: no such directory, no model in it, the server does not start or does not answer.
    """
    spec = spec.removeprefix("openai:").removeprefix("vllm:")
    if spec.startswith(("http://", "https://")):
        url, _, model = spec.partition("#")
        client = ChatClient(url, model, concurrency=concurrency)
        if not model:
            asyncio.run(_find_model_once(client))
        yield client
        return
    name = name or Path(spec).resolve().name
    with serve_vllm(Path(spec), name, max_model_len) as base_url:
        yield ChatClient(base_url, name, concurrency=concurrency)


async def _find_model_once(client: ChatClient) -> None:
    try:
        await client.find_model()
    finally:
        await client.close()


def _reply(response: object, stop: Sequence[str], base_url: str) -> Reply:
    from openai.types.chat import ChatCompletion

    if not isinstance(response, ChatCompletion) or not response.choices:
        raise _no_chat_server(base_url, f"got {str(response)[:80]!r}")
    choice = response.choices[0]
    text = choice.message.content or ""
    # vLLM names the string that stopped it; restore it when the server left it out.
    reason = getattr(choice, "stop_reason", None)
    if isinstance(reason, str) and reason in stop and not text.endswith(reason):
        text += reason
    usage = response.usage
    tokens = (usage.completion_tokens or 0, usage.prompt_tokens or 0) if usage else (0, 0)
    return Reply(text, choice.finish_reason or "", *tokens)


def _is_local(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    return host == "localhost" or host == "::1" or host.startswith("127.")


def _no_chat_server(base_url: str, found: str) -> HiExpError:
    found = " ".join(found.split())
    return HiExpError(f"{base_url} answers, but not as an OpenAI-compatible server ({found}); correct the address (it usually ends in /v1)")


def _refusal(base_url: str, error: "openai.APIStatusError") -> HiExpError:
    text = _first_line(error)
    if error.status_code == 400 and any(words in text for words in _TOO_LONG):
        return PromptTooLong(f"the prompt does not fit the model at {base_url} ({text}); raise its context length or shorten the prompt")
    hint = {401: "set OPENAI_API_KEY", 403: "set OPENAI_API_KEY", 404: "check the address (it usually ends in /v1) and the model name"}
    return HiExpError(f"the server {base_url} refuses the request ({text}); {hint.get(error.status_code, 'see the log of the server')}")


def _first_line(error: BaseException) -> str:
    cause = error.__cause__
    lines = (str(error) + (f" {cause}" if cause is not None and str(cause) else "")).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
