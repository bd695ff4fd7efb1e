"""Answer many concurrent calls with few: calls that arrive within milliseconds of each other share one batch."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
MAX_BATCH = 64
MAX_WAIT_SECONDS = 0.004  # one query takes the encoder about as long, so waiting for company is nearly free


class MicroBatcher(Generic[Item, Result]):
    """Collect concurrent calls for a few milliseconds and answer them with one call of `run` in a thread.

    Args:
        run: answers a batch, one result per item; what it raises is raised to every caller of that batch.
        workers: batches at a time. One for what uses all cores itself, such as an encoder.
    """

    def __init__(self, run: Callable[[list[Item]], Sequence[Result]], workers: int = 1) -> None:
        self._run = run
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._threads = ThreadPoolExecutor(max_workers=workers)
        self._workers = workers
        self._running: set[asyncio.Task[None]] = set()
        self._flush: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Result:
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._flush is None or self._flush.done():
            self._flush = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        await asyncio.sleep(MAX_WAIT_SECONDS)
        while self._waiting:
            while len(self._running) >= self._workers:  # what arrives meanwhile joins the next batch
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            task = asyncio.create_task(self._answer(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _answer(self, batch: "list[tuple[Item, asyncio.Future[Result]]]") -> None:
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._threads, self._run, [item for item, _ in batch])
        except Exception as error:  # handed on to every caller, who decides
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
