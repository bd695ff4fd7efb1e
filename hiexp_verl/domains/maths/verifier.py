"""A pool of processes that ask math-verify; a question that takes too long costs its process, and is counted."""

import json
import logging
import os
import queue
import selectors
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import cache
from importlib.util import find_spec
from typing import Any

from cachetools import LRUCache
from typing_extensions import Self

from hiexp_verl.errors import HiExpError

logger = logging.getLogger(__name__)

# What every verifier must get right before it scores anything: (answer, gold answer, equal).
KNOWN: tuple[tuple[str, str, bool], ...] = (
    (r"\frac{x}{2}", "0.5x", True),
    ("x^2-1", "(x-1)(x+1)", True),
    (r"\{2, 1\}", r"\{1, 2\}", True),
    (r"2\sqrt{2}", r"\sqrt{8}", True),
    ("[2,5)", "[2,5)", True),
    (r"\frac{x}{3}", "0.5x", False),
    ("x^2+1", "(x-1)(x+1)", False),
    (r"\{2, 3\}", r"\{1, 2\}", False),
    ("(2,5)", "[2,5)", False),
    ("5 = 6", "6", False),
)
_LOST = {  # what a question without a verdict is counted as
    "timeouts": "took too long",
    "crashes": "ended its process",
    "failures": "raised an error",
}
_STARTING: dict[int, threading.Lock] = {}  # by process
_MANY_LOST = 20  # without a verdict in a row: more than one odd answer can be the reason
_START_SECONDS = 120.0  # of the start and of each known pair; importing sympy takes 1 s, on a busy machine far longer


class _Hung(Exception):
    pass


class Verifier:
    """Answers whether two answers are equal, by math-verify in `workers` processes; safe in threads, not across a fork.

    Args:
        workers: processes; each takes 70 MB.
        seconds: after which a question counts as a time-out: not equal, counted, and its process is replaced.

    `counts` has: asked, repeated (known from before), timeouts, crashes (the process died), failures (sympy raised), unread_gold,
    unread_answer.
    """

    def __init__(self, workers: int = 1, seconds: float = 10.0) -> None:
        self.seconds = seconds
        self.counts: Counter[str] = Counter()
        self._lost_in_a_row = 0
        self._known: LRUCache[tuple[str, str], bool] = LRUCache(1 << 14)  # the rollouts of a question give few different answers
        self._lock = threading.Lock()
        self._free: queue.LifoQueue[_Worker] = queue.LifoQueue()
        self._workers = [_Worker() for _ in range(workers)]
        for worker in self._workers:
            self._free.put(worker)

    def __enter__(self) -> Self:
        """Return the verifier, tested."""
        try:
            self.test()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def test(self) -> None:
        """Check that known pairs are scored as they must be.

        Raises:
            HiExpError: one is not, or math-verify is missing or does not start.
        """
        for answer, gold, expected in KNOWN:
            reply = self._ask(answer, gold, _START_SECONDS)
            if reply.get("equal") is not expected:
                raise HiExpError(
                    f"math-verify does not score as it must: {answer!r} against {gold!r} gave {reply}, expected equal={expected}; "
                    "reinstall it with pip install hiexp_verl[maths]"
                )

    def equal(self, answer: str, gold: str) -> bool:
        """Return whether the answer equals the gold answer; a time-out, a crash and a failure are False, counted and logged.

        After many of these in a row it is tested again: were math-verify the reason, all answers would score 0.

        Raises:
            HiExpError: math-verify is missing, does not start, or fails the test.
        """
        with self._lock:
            if (known := self._known.get((answer, gold))) is not None:
                self.counts["repeated"] += 1
                return known
        reply = self._ask(answer, gold, self.seconds)
        verdict, lost = bool(reply.get("equal")), [kind for kind in _LOST if reply.get(kind)]
        with self._lock:
            self.counts.update(["asked", *lost, *(f"un{key}" for key in ("read_gold", "read_answer") if reply.get(key) is False)])
            self._lost_in_a_row = self._lost_in_a_row + 1 if lost else 0
            if is_doubtful := self._lost_in_a_row == _MANY_LOST:
                self._lost_in_a_row = 0
            if not lost:  # a busy machine may have been the reason
                self._known[answer, gold] = verdict
        if reply.get("read_gold") is False:
            logger.warning("math-verify cannot read the gold answer %r; only the same text scores 1", gold[:80])
        for kind in lost:
            logger.warning("math-verify %s on %r against %r; it scores 0", _LOST[kind], answer[:80], gold[:80])
        if is_doubtful:
            self.test()
        return verdict

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.end()

    def _ask(self, answer: str, gold: str, seconds: float) -> dict[str, Any]:
        worker = self._free.get()
        try:
            return worker.ask({"answer": answer, "gold": gold}, seconds)
        finally:
            self._free.put(worker)


class _Worker:
    """One process; started at the first question, and again after one that it did not survive."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, row: dict[str, str], seconds: float) -> dict[str, Any]:
        process = self._process if self._process is not None and self._process.poll() is None else self._start()
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(row).encode() + b"\n")
            process.stdin.flush()
            line = _line(process, seconds)
        except _Hung:
            self.end()
            return {"timeouts": True}
        except OSError:  # it died since
            line = b""
        except BaseException:  # interrupted: its reply must not be read as that to the next question
            self.end()
            raise
        if not line:
            self.end()
            return {"crashes": True}
        return json.loads(line)

    def _start(self) -> subprocess.Popen[bytes]:
        check_installed()
        path = os.pathsep.join(filter(None, sys.path))  # the package may be on it by hand
        command = [sys.executable, "-m", "hiexp_verl.domains.maths.worker"]
        pipe, log = subprocess.PIPE, subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, env=os.environ | {"PYTHONPATH": path})
        try:
            line = _line(self._process, _START_SECONDS)
        except _Hung:
            line = b""
        ready = json.loads(line or b"{}")
        if not ready.get("ready"):
            self.end()
            raise HiExpError(
                f"math-verify does not start ({ready.get('fault', 'no reply')}); reinstall it with pip install hiexp_verl[maths]"
            )
        return self._process

    def end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                try:
                    stream.close() if stream is not None else None
                except OSError:  # what was not written yet
                    continue


def _line(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """Return the next line that the process writes, b"" when it ended.

    Raises:
        _Hung: there is none after these seconds.
    """
    assert process.stdout is not None
    end, line = time.monotonic() + seconds, b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not selector.select(max(0.0, end - time.monotonic())):
                raise _Hung
            if not (part := os.read(process.stdout.fileno(), 1 << 16)):
                return b""
            line += part
    return line


def check_installed() -> None:
    """Check that math-verify is there.

    Raises:
        HiExpError: it is not.
    """
    if find_spec("math_verify") is None:
        raise HiExpError("scoring mathematics needs math-verify, which is not installed; pip install hiexp_verl[maths]")


def shared() -> Verifier:
    """Return the verifier of this process, started and tested at the first call.

    Raises:
        HiExpError: math-verify is missing, does not start, or fails the test.
    """
    pid = os.getpid()  # a fork must not read its parent's replies, nor wait for a lock that its parent held
    with _STARTING.setdefault(pid, threading.Lock()):  # threads that score at once start one verifier
        return _shared(pid)


@cache
def _shared(_pid: int) -> Verifier:
    return Verifier(workers=min(4, os.cpu_count() or 1)).__enter__()
