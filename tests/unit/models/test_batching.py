"""Concurrent calls are answered in batches, faults reach every caller."""

import asyncio
import subprocess
import sys
import threading
import time

from hiexp_verl.models.batching import MAX_BATCH, Batcher, MicroBatcher


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


def test_a_batch_that_hangs_fails_in_time_and_the_next_one_is_answered():
    released = threading.Event()

    def hang_once(items):
        if "hangs" in items:
            released.wait(30)
        return items

    async def ask():
        batcher = MicroBatcher(hang_once, timeout=0.2)
        started = time.monotonic()
        hung = await asyncio.gather(batcher("hangs"), batcher("beside"), return_exceptions=True)
        seconds = time.monotonic() - started
        after = await batcher("good")
        released.set()  # what comes back late disturbs nobody
        await asyncio.sleep(0.05)
        return hung, seconds, after, await batcher("better")

    hung, seconds, after, later = asyncio.run(ask())
    assert [type(error) for error in hung] == [TimeoutError, TimeoutError] and "0.2 s" in str(hung[0])
    assert 0.2 <= seconds < 5 and (after, later) == ("good", "better")


def test_a_thread_that_hangs_does_not_keep_the_process_from_ending():
    code = (
        "import asyncio, time\n"
        "from hiexp_verl.models.batching import MicroBatcher\n"
        "async def ask():\n"
        "    await asyncio.gather(MicroBatcher(lambda items: time.sleep(60), timeout=0.1)(1), return_exceptions=True)\n"
        "asyncio.run(ask())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)


def test_the_same_thread_serves_one_batch_after_the_other():
    async def ask():
        batcher = MicroBatcher(lambda items: [threading.get_ident()] * len(items))
        return {await batcher(i) for i in range(5)}

    assert len(asyncio.run(ask())) == 1  # a new one each time would start an encoder's own pool of threads anew


def test_too_few_results_are_a_fault_and_not_a_wait_for_ever():
    async def ask():
        batcher = MicroBatcher(lambda items: items[:-1])
        return await asyncio.wait_for(asyncio.gather(batcher(1), batcher(2), return_exceptions=True), 5)

    assert [str(error) for error in asyncio.run(ask())] == ["1 results for a batch of 2"] * 2


def test_a_batch_may_be_answered_by_a_coroutine_and_a_caller_that_left_disturbs_nobody():
    sizes = []

    async def double(items):
        sizes.append(len(items))
        await asyncio.sleep(0.05)
        return [2 * item for item in items]

    async def ask():
        batcher = Batcher(double, workers=2)
        first, second = asyncio.create_task(batcher(1)), asyncio.create_task(batcher(2))
        await asyncio.sleep(0.02)
        first.cancel()
        third = await batcher(3)  # while the first batch is under way
        return third, await second, first.cancelled()

    assert asyncio.run(ask()) == (6, 4, True) and sizes == [2, 1]


def test_nothing_is_run_for_callers_that_are_gone():
    batches = []

    async def answer(items):
        batches.append(items)
        await asyncio.sleep(0.05)
        return items

    async def ask():
        batcher = Batcher(answer)
        first = asyncio.create_task(batcher(1))
        await asyncio.sleep(0.02)
        gone = [asyncio.create_task(batcher(number)) for number in (2, 3)]
        await asyncio.sleep(0.01)
        for task in gone:
            task.cancel()
        assert await first == 1
        await asyncio.sleep(0.02)
        return await asyncio.wait_for(batcher(4), 5)

    assert asyncio.run(ask()) == 4 and batches == [[1], [4]]
