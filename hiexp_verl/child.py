"""Child processes that do not outlive this one, however it ends."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

_STOP_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1
# Opened here, since nothing may be loaded between fork and exec.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def start_child(command: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
    """Start a process in a group of its own, so that what it starts stops with it; `options` are those of Popen.

    On Linux it is sent SIGTERM when this process ends, even when that was killed and could not clean up.
    """
    return subprocess.Popen(command, start_new_session=True, preexec_fn=_end_with_parent if _libc else None, **options)


def stop_child(child: "subprocess.Popen[Any]") -> None:
    """Stop the process and its group: politely, then not."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, sign)
        except ProcessLookupError:
            return
        try:
            child.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        if _group_is_gone(child.pid):
            return


def _end_with_parent() -> None:
    assert _libc is not None
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _group_is_gone(group: int) -> bool:
    for _ in range(20):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False
