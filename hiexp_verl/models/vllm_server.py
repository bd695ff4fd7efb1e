"""A vLLM server for a model directory, for the duration of a `with` block."""

import logging
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hiexp_verl.errors import HiExpError
from hiexp_verl.models.vllm_process import engine_arguments, engine_process, log_tail

logger = logging.getLogger(__name__)

_STARTUP_SECONDS = 600.0


@contextmanager
def serve_vllm(model_dir: Path, name: str, max_model_len: int) -> Iterator[str]:
    """Yield the base URL of a healthy `vllm serve` on a free local port; stop it at the end.

    Raises:
        HiExpError: the directory holds no model, vLLM is not installed, or the server dies or does not become healthy.
    """
    arguments = engine_arguments(model_dir, max_model_len)
    port = _free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(model_dir), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--served-model-name", name]
    for name, value in arguments.items():
        flag = name.replace("_", "-")
        command += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    with engine_process(command) as (server, log):
        _wait_until_healthy(server, port, model_dir, log)
        try:
            yield f"http://127.0.0.1:{port}/v1"
        except HiExpError as error:
            if _healthy(port):
                raise
            # The client only sees that the server does not answer; the cause is in the log, which is kept.
            tail = log_tail(log)
            with tempfile.NamedTemporaryFile("wb", prefix="hiexp-vllm-", suffix=".log", delete=False) as kept:
                log.seek(0)
                kept.write(log.read())
            raise HiExpError(f"vLLM stopped while it served {model_dir} (log: {kept.name}; it ends: {tail})") from error


def _wait_until_healthy(server: "subprocess.Popen[bytes]", port: int, model_dir: Path, log: IO[bytes]) -> None:
    start = time.monotonic()
    next_message = 0.0
    while not _healthy(port):
        waited = time.monotonic() - start
        if server.poll() is not None:
            raise HiExpError(f"vLLM stopped with code {server.returncode} while loading {model_dir}; its log ends: {log_tail(log)}")
        if waited > _STARTUP_SECONDS:
            raise HiExpError(f"vLLM did not become healthy within {_STARTUP_SECONDS:.0f} s on {model_dir}; its log ends: {log_tail(log)}")
        if waited >= next_message:
            logger.info("waiting for vLLM to load %s (%.0f s)", model_dir, waited)
            next_message = waited + 15
        time.sleep(0.5)
    logger.info("vLLM serves %s after %.0f s", model_dir, time.monotonic() - start)


def _healthy(port: int) -> bool:
    import httpx

    try:
        # No proxy, whatever the environment sets: the server is on this machine.
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
