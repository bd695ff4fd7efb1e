"""The process that asks math-verify, one JSON line in and one out; `verifier.Verifier` starts it, and kills it when it hangs.

math-verify's own time limits are off: they need `signal.alarm`, which in a thread raises, or scores everything 0 in silence.
"""

import json
import logging
import os
import resource
import sys
from functools import lru_cache
from typing import Any

_MEMORY = 2 << 30  # bytes of address space: 10^{10^{10}} must not take the machine's
_RUNAWAY = 30  # CPU seconds of one question, after which the system ends a worker whose parent died


def main() -> None:
    """Answer until the input ends. The first line out says that the worker is ready, or why it is not."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not look like a reply

    def reply(row: dict[str, Any]) -> None:
        replies.write(json.dumps(row) + "\n")
        replies.flush()

    try:
        logging.disable(logging.WARNING)  # it warns once that its time limits are off
        _limit(resource.RLIMIT_AS, _MEMORY)
        verdict("1", "1")
    except Exception as error:
        return reply({"fault": repr(error)})
    reply({"ready": True})
    for line in sys.stdin:
        _limit(resource.RLIMIT_CPU, int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2])) + _RUNAWAY)
        row = json.loads(line)
        reply(verdict(row["answer"], row["gold"]))


def verdict(answer: str, gold: str) -> dict[str, bool]:
    """Return whether math-verify takes the answer for the gold answer, and which of the two it could not read."""
    from math_verify import verify

    try:
        equal = verify(list(_read(gold)), list(_read(answer)), allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True)
        equal = equal and not _contradicts(answer, gold)
    except MemoryError:  # ends the process: what fills it would fail every later question, too
        raise
    except Exception:  # of sympy, on what it cannot compare
        return {"equal": False, "failures": True}
    return {"equal": bool(equal), "read_gold": _is_read(gold), "read_answer": _is_read(answer)}


@lru_cache(maxsize=4096)
def _read(answer: str) -> tuple[Any, ...]:
    """Return what math-verify makes of the whole answer, never of a part of it: an expression, and the text."""
    from math_verify import LatexExtractionConfig, parse

    text = rf"\boxed{{{answer}}}"
    return tuple(parse(text, [LatexExtractionConfig(boxed_match_priority=0)], extraction_mode="first_match", parsing_timeout=0))


def _is_read(answer: str) -> bool:
    return any(not isinstance(part, str) for part in _read(answer))


def _contradicts(answer: str, gold: str) -> bool:
    """Return whether another number stands before an equals sign: math-verify takes the last side of "5 = 6" alone."""
    from math_verify import verify

    if "=" in gold:
        return False
    sides = [part for side in answer.split("=")[:-1] for part in _read(side.strip()) if getattr(part, "is_number", False)]
    return not all(verify(list(_read(gold)), [side], timeout_seconds=None) for side in sides)


def _limit(kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


if __name__ == "__main__":
    main()
