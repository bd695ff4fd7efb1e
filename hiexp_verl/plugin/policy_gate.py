"""The policy's own rollout servers as the distiller of the loop (`hiexp.loop.distiller=policy`): the builder asks them through a gate.

Servers that share their devices with the trainer sleep while it trains, and change their weights before they wake. The gate is open
from the end of a step, when they have its weights, to the end of the next step's rollouts. It closes before verl puts them to sleep, and
waits for the answers in flight. vLLM aborts what is left; an answer that was aborted is asked for again.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import RayError

from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.models.chat_replies import Reply
from hiexp_verl.models.tokenizer import prompt_ids
from hiexp_verl.types import Message

logger = logging.getLogger(__name__)

CONCURRENCY = 8  # answers in flight, beside the rollouts of a step
PATIENCE = 120.0  # seconds for the answers in flight, each of a few hundred tokens
ABORTED = ("aborted", "abort")


class Gate:
    """Lets requests to verl's client through while it is open; an actor of its own."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._opened, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._in_flight = 0

    async def open(self) -> None:
        """Let requests through."""
        self._opened.set()

    async def close(self, seconds: float) -> int:
        """Let no further request through; return how many are still in flight after so many seconds."""
        self._opened.clear()
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except asyncio.TimeoutError:
            logger.warning("%d answers of the distiller did not end in %g s", self._in_flight, seconds)
        return self._in_flight

    async def ask(self, ids: list[int], sampling: dict[str, Any]) -> list[int]:
        """Return the token ids of an answer, once the gate is open."""
        while True:
            while not self._opened.is_set():  # it may have closed again before a waiting request goes on
                await self._opened.wait()
            self._in_flight += 1
            self._idle.clear()
            try:
                output = await self._client.generate(request_id=uuid4().hex, prompt_ids=ids, sampling_params=dict(sampling))
            finally:
                self._in_flight -= 1
                if not self._in_flight:
                    self._idle.set()
            if output.stop_reason not in ABORTED:
                return list(output.token_ids)
            await asyncio.sleep(0.1)


class PolicyModel:
    """The policy as a model that a distiller asks; travels to the builder's process."""

    model = "policy"

    def __init__(self, gate: Any, tokenizer: Any, template_kwargs: Mapping[str, Any], max_model_len: int | None) -> None:
        self._gate, self._tokenizer, self._limit = gate, tokenizer, max_model_len
        self._template_kwargs = {str(key): value for key, value in template_kwargs.items()}

    def complete(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        on_reply: Callable[[int, Reply], None] | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
        **_: Any,
    ) -> list[str]:
        """Answer all conversations; "" where one does not fit the context. No schema is enforced: each engine has its own way.

        Raises:
            HiExpError: the gate or a server has failed.
        """

        def one(messages: Sequence[Message]) -> Reply:
            ids = prompt_ids(self._tokenizer, messages, **self._template_kwargs)
            if self._limit is not None and len(ids) + max_tokens > self._limit:
                return Reply("", "length", 0, len(ids))
            answer = ray.get(self._gate.ask.remote(ids, {"temperature": temperature, "seed": seed, "max_tokens": max_tokens}))
            return Reply(self._tokenizer.decode(answer, skip_special_tokens=True), "stop", len(answer), len(ids))

        texts: list[str] = []
        threads = ThreadPoolExecutor(CONCURRENCY)
        try:
            for index, reply in enumerate(threads.map(one, conversations)):
                texts.append(reply.text)
                if on_reply is not None:
                    on_reply(index, reply)
        except RayError as error:
            raise HiExpError(f"the policy's servers did not answer the distiller ({first_line(error)})") from error
        finally:
            threads.shutdown(cancel_futures=True)
        return texts


class Gatekeeper:
    """Opens and closes the gate for a trainer, whatever has become of it; `client` is verl's client of the rollout servers."""

    def __init__(self, client: Any) -> None:
        self.gate: Any = ray.remote(Gate).options(num_cpus=0).remote(client)

    def open(self) -> None:
        """Let the distiller ask."""
        self.gate.open.remote()

    def close(self) -> None:
        """Return when no answer is in flight. A gate that has died has none."""
        try:
            ray.get(self.gate.close.remote(PATIENCE), timeout=PATIENCE + 30)
        except RayError as error:
            logger.warning("the gate of the distiller does not answer: %s", first_line(error))
