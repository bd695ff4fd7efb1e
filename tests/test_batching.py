"""Concurrent calls are answered in batches, faults reach every caller."""

import asyncio
import threading

from hiexp_verl.batching import MAX_BATCH, MicroBatcher


def test_concurrent_calls_share_batches_and_get_their_own_answers():
    sizes = []

    def double(items):
        sizes.append(len(items))
        return [2 * item for item in items]

    async def ask():
        batcher = MicroBatcher(double)
        return await asyncio.gather(*(batcher(i) for i in range(200)))

    assert asyncio.run(ask()) == [2 * i for i in range(200)]
    assert max(sizes) == MAX_BATCH and len(sizes) == 4  # 64 + 64 + 64 + 8


def test_a_fault_reaches_every_caller_and_the_next_batch_works():
    def fail_once(items):
        if "bad" in items:
            raise ValueError("no")
        return items

    async def ask():
        batcher = MicroBatcher(fail_once)
        first = await asyncio.gather(batcher("bad"), batcher("beside"), return_exceptions=True)
        return first, await batcher("good")

    first, second = asyncio.run(ask())
    assert [type(e) for e in first] == [ValueError, ValueError] and second == "good"


def test_as_many_batches_run_at_a_time_as_there_are_workers():
    together = threading.Barrier(2, timeout=5)  # breaks unless two batches are in flight at once

    def wait(items):
        together.wait()
        return items

    async def ask():
        batcher = MicroBatcher(wait, workers=2)
        return await asyncio.gather(*(batcher(i) for i in range(2 * MAX_BATCH)))

    assert asyncio.run(ask()) == list(range(2 * MAX_BATCH))
