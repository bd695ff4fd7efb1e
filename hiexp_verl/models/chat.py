"""Chat client: messages in, text out, for every OpenAI-compatible server.

A server that does not answer, refuses a request or does not serve the model is a `HiExpError` (the user can fix it); a prompt
that exceeds the context is `PromptTooLong` (the caller handles it).
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar
from weakref import WeakKeyDictionary

from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_attempt, wait_exponential
from typing_extensions import Unpack

from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.models.chat_replies import PassingError, Reply, names_in, no_chat_server, reply_of
from hiexp_verl.models.http import async_openai_client
from hiexp_verl.models.vllm_server import serve_vllm
from hiexp_verl.text import check_address, without_credentials
from hiexp_verl.types import Message

if TYPE_CHECKING:
    import openai

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Fields of a request that some servers reject, and the words by which their error messages are recognised.
_OPTIONAL: dict[str, tuple[str, ...]] = {
    "response_format": ("response_format", "json_schema", "guided", "grammar", "structured"),
    "extra_body": ("include_stop_str",),
    "seed": ("seed",),
    "stop": ("stop",),
    "top_p": ("top_p",),
    "temperature": ("temperature",),
}
_LIMIT, _NEW_LIMIT = "max_tokens", "max_completion_tokens"  # newer models of OpenAI refuse the first
_QUOTES = ("", "'", "`", '"')
_NO_LIMIT = (
    *(f"{word} {quote}max_tokens" for word in ("parameter:", "argument supplied:", "parameter", "field") for quote in ("", "'", "`", '"')),
    *(
        f"max_tokens{quote} is {word}"
        for quote in ("", "'", "`", '"')
        for word in ("unsupported", "not supported", "deprecated", "not allowed")
    ),
)
_TOO_LONG = (
    *(
        "context length",
        "maximum context",
        "context window",
        "context size",
        "max_model_len",
        "reduce the length",
        "context_length_exceeded",
    ),
    *("prompt is too long", "input is too long", "too many tokens", "tokens exceed", "tokens) exceeds", "`max_new_tokens` must be"),
)
# What servers say that allow a tool's turn only after `tool_calls`, and of chat templates without that role or that of the system.
_NO_TOOL_TURN = (
    "tool_calls",
    "role 'tool'",
    "role: tool",
    "tool_call_id",
    "roles must alternate",
    "only user and assistant",
    "only user, assistant",
    "function calls and responses",
    'role "tool"',
    "'tool' is not one of",
    "'system', 'user' or 'assistant'",
)
_NO_SYSTEM_TURN = ("system role", "role 'system'", "system message", "support 'system'", "role: system", 'role "system"')
# Words of a refusal of one field, beside its name.
_UNSUPPORTED = (
    *("support", "unknown", "unrecognized", "unexpected", "not permitted", "not allowed", "extra", "invalid", "only the default"),
    *("not a valid", "cannot both", "only one", "deprecated", "array too long"),
)


class PromptTooLong(HiExpError):
    """The server refused a request because prompt and answer do not fit its context."""


class ChatOptions(TypedDict, total=False):
    """Options of a request; where one is missing, the server's default applies."""

    temperature: float  # 0 if it is missing
    top_p: float
    seed: int | None
    stop: Sequence[str]  # strings that end the answer; they stay in its text
    schema: dict[str, Any]  # JSON schema of the answer, for servers that support one


class ChatClient:
    """A model behind an OpenAI-compatible server.

    Args:
        base_url: for example http://localhost:8000/v1.
        model: name of the model on the server; empty: `find_model` asks the server.
        concurrency: requests in flight at a time.
        timeout: seconds for one request.
        retries: further attempts after a connection error, a time-out, a 429 or a 5xx.

    Raises:
        HiExpError: the address is malformed.
    """

    def __init__(self, base_url: str, model: str = "", concurrency: int = 16, timeout: float = 300.0, retries: int = 4) -> None:
        check_address(base_url, "http://localhost:8000/v1#MODEL")
        self._address = base_url.rstrip("/")
        self.base_url = without_credentials(self._address)  # as it is shown
        self.model = model
        self._concurrency = concurrency
        self._timeout = timeout
        self._retries = retries
        # A connection pool belongs to one event loop, and `complete` makes a new loop each time.
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[openai.AsyncOpenAI, asyncio.Semaphore]] = WeakKeyDictionary()
        self._rejected: set[str] = set()  # fields and turns that the server does not support

    async def chat(self, messages: Sequence[Message], *, max_tokens: int, **options: Unpack[ChatOptions]) -> Reply:
        """Return one answer; a conversation that ends with the assistant is continued, where the server can (`check_continues`).

        Raises:
            PromptTooLong: prompt plus `max_tokens` exceed the context of the model.
            HiExpError: the server cannot be reached after all retries, or refuses the request.
        """
        import openai

        # The library retries what a server refuses by its status, but not an error with status 200.
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._retries + 1), wait=wait_exponential(0.5, max=8), retry=retry_if_exception_type(PassingError)
        )
        while True:
            request = self._request(messages, max_tokens, options)
            try:
                return await retrying.copy()(self._ask, request, options.get("stop", ()))
            except RetryError as error:
                raise HiExpError(f"the server {self.base_url} does not answer ({error.last_attempt.exception()})") from error
            except (openai.APIError, json.JSONDecodeError) as error:
                refused = isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError)
                if not (refused and self._adapts(request, _complaint(error))):
                    raise _in_words(error, self.base_url) from error

    async def _ask(self, request: dict[str, Any], stop: Sequence[str]) -> Reply:
        client, limit = self._pool()
        async with limit:
            response = await client.chat.completions.create(**request)
        return reply_of(response, stop, self.base_url)

    def complete(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        progress: str = "",
        on_reply: Callable[[int, Reply], None] | None = None,
        **options: Unpack[ChatOptions],
    ) -> list[str]:
        """Answer all conversations, in their order, with a progress bar named `progress` (none when empty).

        `on_reply(index, reply)` is called as each answer arrives, in any order.

        Raises:
            HiExpError: see `chat`. Must not be called from inside a running event loop.
        """

        async def one(index: int, messages: Sequence[Message]) -> str:
            reply = await self.chat(messages, max_tokens=max_tokens, **options)
            if on_reply is not None:
                on_reply(index, reply)
            return reply.text

        async def run() -> list[str]:
            try:
                return await gather_with_progress([one(index, messages) for index, messages in enumerate(conversations)], progress)
            finally:
                await self.close()

        return asyncio.run(run())

    async def find_model(self) -> None:
        """Set the name of the model to that of the only one on the server; close the connections.

        Raises:
            HiExpError: the server cannot be reached, or serves none or several.
        """
        import openai

        try:
            names = names_in(await self._pool()[0].get("/models", cast_to=object), self.base_url)
        except (openai.APIError, json.JSONDecodeError) as error:
            raise _in_words(error, self.base_url) from error
        finally:
            await self.close()
        if len(names) != 1:
            raise HiExpError(f"the server {self.base_url} serves {names or 'no model'}; name one as {self.base_url}#MODEL")
        self.model = names[0]

    async def close(self) -> None:
        """Close the connections of the running event loop (they are opened again when needed)."""
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool[0].close()

    def _pool(self) -> "tuple[openai.AsyncOpenAI, asyncio.Semaphore]":
        loop = asyncio.get_running_loop()
        if loop not in self._pools:
            client = async_openai_client(self._address, self._timeout, self._retries)
            self._pools[loop] = (client, asyncio.Semaphore(self._concurrency))
        return self._pools[loop]

    def _request(self, messages: Sequence[Message], max_tokens: int, options: ChatOptions) -> dict[str, Any]:
        """Return the fields of a request, without those that the server has rejected."""
        request: dict[str, Any] = {"temperature": 0.0, **options}
        limit = _NEW_LIMIT if _LIMIT in self._rejected else _LIMIT
        request |= {"model": self.model, "messages": self._turns(messages), limit: max_tokens}
        if schema := request.pop("schema", None):
            request["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
        more = {"include_stop_str_in_output": True} if "stop" in request else {}
        if messages[-1]["role"] == "assistant":
            more |= {"continue_final_message": True, "add_generation_prompt": False}
        if more:
            request["extra_body"] = more
        return {field: value for field, value in request.items() if value is not None and field not in self._rejected}

    def _turns(self, messages: Sequence[Message]) -> list[Message]:
        """Return the messages with the text of turns that the server does not support in turns of the user."""
        if not self._rejected & {"tool", "system"}:
            return list(messages)
        turns: list[Message] = []
        for message in messages:
            turn = {"role": "user", "content": message["content"]} if message["role"] in self._rejected else dict(message)
            if turns and turns[-1]["role"] == turn["role"] == "user":
                turn = {"role": "user", "content": f"{turns.pop()['content']}\n\n{turn['content']}"}
            turns.append(turn)
        return turns

    def _adapts(self, request: dict[str, Any], complaint: str) -> bool:
        """Leave out what the server rejects, and say so once; return whether to send the request again."""
        words = complaint.lower()
        if any(each in words for each in _TOO_LONG):
            return False
        roles = {message["role"] for message in request["messages"]}
        optional = _OPTIONAL.items()
        for rejected, instead, present, known in (
            (_LIMIT, f"with {_NEW_LIMIT}", _LIMIT in request, (_NEW_LIMIT, *_NO_LIMIT)),
            ("tool", "with the tool's results in turns of the user", "tool" in roles, _NO_TOOL_TURN),
            ("system", "with the system prompt in the user's turn", "system" in roles, _NO_SYSTEM_TURN),
            *((field, "without it", field in request and any(map(words.__contains__, _UNSUPPORTED)), known) for field, known in optional),
        ):
            if present and any(each in words for each in known):
                if rejected not in self._rejected:
                    name = _OPTIONAL[rejected][0] if rejected in _OPTIONAL else rejected
                    logger.warning("%s does not support %s; requests go %s", self.base_url, name, instead)
                self._rejected.add(rejected)
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


MAX_MODEL_LEN = 8192


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
        client = ChatClient(url, model, concurrency)
        if not model:
            asyncio.run(client.find_model())
        yield client
        return
    name = name or Path(spec).resolve().name
    with serve_vllm(Path(spec), name, max_model_len) as base_url:
        yield ChatClient(base_url, name, concurrency)


def _complaint(error: Exception) -> str:
    """Return what a server says against a request: its message, else the body of its reply."""
    text, body = first_line(error), getattr(error, "body", None)
    if body and text == f"Error code: {getattr(error, 'status_code', '')}":  # the library found no message in it
        return f"{text} - {body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)}"[:300]
    code = body.get("code") if isinstance(body, dict) else None
    return f"{text} {code}" if isinstance(code, str) else text


def _in_words(error: Exception, base_url: str) -> HiExpError:
    """Return an error of the client library as one line."""
    import openai

    told = [_complaint(error), *([first_line(error.__cause__)] if error.__cause__ is not None else [])]
    text = without_credentials(" ".join(told))
    if isinstance(error, openai.APIConnectionError | openai.RateLimitError | openai.InternalServerError):
        return HiExpError(f"the server {base_url} does not answer ({text}); start it or correct the address")
    if not isinstance(error, openai.APIStatusError):
        return no_chat_server(base_url, text)
    if error.status_code in (400, 413, 422) and any(words in text.lower() for words in _TOO_LONG):
        return PromptTooLong(f"the prompt does not fit the model at {base_url} ({text}); raise its context length or shorten the prompt")
    hint = {401: "set OPENAI_API_KEY", 403: "set OPENAI_API_KEY", 404: "check the address (it usually ends in /v1) and the model name"}
    return HiExpError(f"the server {base_url} refuses the request ({text}); {hint.get(error.status_code, 'see the log of the server')}")
