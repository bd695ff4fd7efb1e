"""Counts of what happened, and commands in a process of their own or in this one."""

import contextlib
import io
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hiexp_verl.cli import main
from hiexp_verl.errors import HiExpError
from hiexp_verl.io.rows import BadRow
from hiexp_verl.models.chat_replies import PassingError
from hiexp_verl.search import SearchFailed
from tests.support.paths import ROOT

Counts = Counter[str]
REFUSED = (HiExpError, BadRow, SearchFailed, PassingError)


def command(arguments: list[str], folder: Path, **options: Any) -> "subprocess.Popen[str]":
    line = [sys.executable, "-m", "hiexp_verl.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(line, cwd=folder, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, **options)


@contextlib.contextmanager
def counted(counts: Counts, done: str, what: str, refused: tuple[type[Exception], ...] = REFUSED) -> Iterator[None]:
    """Count a block as `done`, as refused (in one line) or as a traceback of `what`."""
    try:
        yield
        counts[done] += 1
    except refused as error:
        counts["refused"] += 1
        counts["wrong"] += "\n" in str(error)
    except Exception as error:
        counts["tracebacks"] += 1
        counts[f"traceback: {type(error).__name__}: {error}: {what}"[:400]] += 1


def unfinished(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.name.startswith((".new-", ".out.jsonl.", ".CURRENT."))]


def run_here(line: Sequence[str], folder: Path, counts: Counts) -> str:
    """Run a verb in this process; count its exit code, and what must not reach a terminal. Return what it said."""
    out, told = io.StringIO(), io.StringIO()
    with counted(counts, "ran", repr(line), ()):
        try:
            with contextlib.chdir(folder), contextlib.redirect_stderr(told), contextlib.redirect_stdout(out):
                status = main(list(line))
        except SystemExit as error:  # of argparse
            status = int(error.code or 0)
        counts["refused"] += status == 2
        counts["wrong"] += status not in (0, 1, 2) or "\x1b" in told.getvalue() + out.getvalue()
    return out.getvalue() + told.getvalue()
