"""Micro-batching: concurrent calls that arrive within milliseconds of each other share one batch."""

import asyncio
import concurrent.futures
import queue
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
MAX_BATCH = 64
MAX_WAIT_SECONDS = 0.004  # about the time of one query in the encoder


class Batcher(Generic[Item, Result]):
    """Collects concurrent calls for a few milliseconds and answers them as one batch.

    Args:
        answer: answers a batch, one result per item; an error is raised to every caller of that batch.
        workers: batches at a time; calls that arrive meanwhile form the next.
    """

    def __init__(self, answer: Callable[[list[Item]], Awaitable[Sequence[Result]]], workers: int = 1) -> None:
        self._answer = answer
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._workers = workers
        self._free = asyncio.Semaphore(workers)
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
        if not self._running:
            self._free = asyncio.Semaphore(self._workers)  # a semaphore belongs to one event loop
        while self._waiting:
            await self._free.acquire()  # what arrives meanwhile joins the next batch
            waiting = [(item, future) for item, future in self._waiting if not future.done()]  # a cancelled caller needs no answer
            batch, self._waiting = waiting[:MAX_BATCH], waiting[MAX_BATCH:]
            if not batch:
                self._free.release()
                break
            task = asyncio.create_task(self._serve(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _serve(self, batch: "list[tuple[Item, asyncio.Future[Result]]]") -> None:
        try:
            try:
                results = await self._answer([item for item, _ in batch])
            finally:
                self._free.release()  # first: the next batch starts before the callers of this one continue
            if len(results) != len(batch):
                raise ValueError(f"{len(results)} results for a batch of {len(batch)}")
        except BaseException as error:  # raised to every caller
            for _, future in batch:
                if not future.done():  # a caller may have been cancelled
                    future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)


class MicroBatcher(Batcher[Item, Result]):
    """A `Batcher` that runs each batch in a thread.

    Args:
        run: answers a batch, one result per item; an error is raised to every caller of that batch.
        workers: batches at a time; 1 for a `run` that uses all cores, such as an encoder.
        timeout: seconds for one batch. After a time-out its callers get a `TimeoutError`, its thread is abandoned and the next
            batch gets a new one, so `run` may be called while the first call still runs.
    """

    def __init__(self, run: Callable[[list[Item]], Sequence[Result]], workers: int = 1, timeout: float | None = None) -> None:
        super().__init__(self._in_thread, workers)
        self._run = run
        self._timeout = timeout
        self._idle: list[_Thread[Item, Result]] = []

    async def _in_thread(self, items: list[Item]) -> Sequence[Result]:
        thread = self._idle.pop() if self._idle else _Thread(self._run)
        answer = asyncio.wrap_future(thread.submit(items))
        await asyncio.wait([answer], timeout=self._timeout)
        if not answer.done():
            thread.abandon()
            raise TimeoutError(f"no answer within {self._timeout:g} s")
        self._idle.append(thread)
        return answer.result()


class _Thread(Generic[Item, Result]):
    """A daemon thread that runs one batch at a time and may hang.

    Not a `ThreadPoolExecutor`: its threads are joined when the process ends.
    """

    def __init__(self, run: Callable[[list[Item]], Sequence[Result]]) -> None:
        self._run = run
        self._inbox: queue.SimpleQueue[tuple[list[Item], concurrent.futures.Future[Sequence[Result]]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True, name="hiexp-batch").start()

    def submit(self, items: list[Item]) -> "concurrent.futures.Future[Sequence[Result]]":
        future: concurrent.futures.Future[Sequence[Result]] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()  # it cannot be cancelled, only abandoned
        self._inbox.put((items, future))
        return future

    def abandon(self) -> None:
        """End the thread when its batch returns."""
        self._inbox.put(None)

    def _work(self) -> None:
        while (work := self._inbox.get()) is not None:
            items, future = work
            try:
                results = self._run(items)
            except BaseException as error:  # the thread must survive for the next batch
                future.set_exception(error)
            else:
                future.set_result(results)
            del work, items, future  # free the batch while the thread waits
