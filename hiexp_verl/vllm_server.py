"""Serve a model directory with vLLM on this machine for as long as a `with` block lasts."""

import importlib.metadata
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hiexp_verl.errors import HiExpError

logger = logging.getLogger(__name__)

# vLLM's CPU worker in a process of its own costs 14 s at the start, and the engine that waits for it spins on a core.
SINGLE_PROCESS_ENGINE = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": str(os.cpu_count() or 1),
}

_TAIL = 600  # characters of the server's log that an error quotes
_STOP_SECONDS = 20.0


@contextmanager
def serve_vllm(
    model_dir: Path, max_model_len: int = 4096, startup_seconds: float = 600.0, kv_cache_gib: int = 1, options: tuple[str, ...] = ()
) -> Iterator[str]:
    """Start `vllm serve` on a free local port, wait until it is healthy, yield its base URL, stop it at the end.

    The model is served under the name of its directory. On the CPU build of vLLM the key-value cache is held to
    `kv_cache_gib`, and graphs are not compiled (minutes of start-up for nothing on so few requests).

    Raises:
        HiExpError: the directory holds no model, vLLM is not installed, or the server dies or does not become healthy.
    """
    if not (model_dir / "config.json").is_file():
        raise HiExpError(f"model {model_dir} is no model directory: found no config.json; give a Hugging Face model folder or a URL")
    cpu_build = is_cpu_build()
    if not cpu_build and not _installed("vllm"):
        raise HiExpError(f"model {model_dir} needs vLLM to be served, which is not installed; install it or give the URL of a server")
    max_model_len = min(max_model_len, context_length(model_dir))
    port = _free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(model_dir), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--served-model-name", model_dir.resolve().name, "--max-model-len", str(max_model_len), *options]
    environment = dict(os.environ)
    if cpu_build:
        # Prompts are prefilled whole: of a prompt in chunks, a request with a seed rewinds its random generator, which
        # a CPU's cannot do, and the engine dies ("CPU Generator does not use offset").
        command += ["--enforce-eager", "--no-enable-chunked-prefill", "--max-num-batched-tokens", str(max(8192, max_model_len))]
        environment.setdefault("VLLM_CPU_KVCACHE_SPACE", str(kv_cache_gib))
        for name, value in SINGLE_PROCESS_ENGINE.items():
            environment.setdefault(name, value)
    with tempfile.TemporaryFile(prefix="hiexp-vllm-") as log, tempfile.TemporaryDirectory(prefix="hiexp-vllm-") as shim:
        if cpu_build and not _installed("vllm"):
            _answer_for_vllm(Path(shim), environment)
        # A group of its own, so that the engine's worker processes stop together with the server.
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            _wait_until_healthy(server, port, model_dir, startup_seconds, log)
            yield f"http://127.0.0.1:{port}/v1"
        except HiExpError as error:
            if "its log ends" in str(error) or _healthy(port):
                raise
            # What the client saw is only that nobody answers; the cause stands in the server's log.
            kept = _keep(log)
            raise HiExpError(f"vLLM stopped while it served {model_dir} ({kept} is its log, which ends: {_tail(log)})") from error
        finally:
            _stop(server)


def is_cpu_build() -> bool:
    """Whether the vLLM that is installed here is the CPU build."""
    return _installed("vllm-cpu")


def context_length(model_dir: Path) -> int:
    """Return the most tokens that the model was made for (max_position_embeddings), or no limit where it does not say.

    Raises:
        HiExpError: config.json is missing or not JSON.
    """
    try:
        config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HiExpError(f"model {model_dir} is no model directory: config.json is missing or damaged ({error})") from error
    length = config.get("max_position_embeddings") if isinstance(config, dict) else None
    return length if isinstance(length, int) else sys.maxsize


def _answer_for_vllm(folder: Path, environment: dict[str, str]) -> None:
    """Let the server's processes, and no others, find a distribution named `vllm`.

    The CPU build is named vllm-cpu, but its platform detection asks the metadata of `vllm` for a version with "cpu" in it.
    """
    version = importlib.metadata.version("vllm-cpu")
    version = version if "cpu" in version else f"{version}+cpu"
    info = folder / f"vllm-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n", encoding="utf-8")
    inherited = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = str(folder) + (os.pathsep + inherited if inherited else "")


def _wait_until_healthy(server: "subprocess.Popen[bytes]", port: int, model_dir: Path, startup_seconds: float, log: IO[bytes]) -> None:
    start = time.monotonic()
    next_message = 0.0
    while not _healthy(port):
        waited = time.monotonic() - start
        if server.poll() is not None:
            raise HiExpError(f"vLLM stopped with code {server.returncode} while loading {model_dir}; its log ends: {_tail(log)}")
        if waited > startup_seconds:
            raise HiExpError(f"vLLM did not become healthy within {startup_seconds:.0f} s on {model_dir}; its log ends: {_tail(log)}")
        if waited >= next_message:
            logger.info("waiting for vLLM to load %s (%.0f s)", model_dir, waited)
            next_message = waited + 15
        time.sleep(0.5)
    logger.info("vLLM serves %s after %.0f s", model_dir, time.monotonic() - start)


def _healthy(port: int) -> bool:
    try:
        # No proxy: the server is on this machine, whatever the environment says.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}/health", timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _stop(server: "subprocess.Popen[bytes]") -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, sign)
        except ProcessLookupError:
            return
        try:
            server.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        if _group_is_gone(server.pid):
            return


def _group_is_gone(group: int) -> bool:
    for _ in range(20):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def _keep(log: IO[bytes]) -> str:
    log.seek(0)
    with tempfile.NamedTemporaryFile("wb", prefix="hiexp-vllm-", suffix=".log", delete=False) as kept:
        kept.write(log.read())
    return kept.name


def _tail(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode("utf-8", "replace").split("\n")
    # The cause is the last line that names an error; the last lines of all are the shutdown of the workers.
    errors = [line for line in lines if "Error" in line or "error:" in line]
    return " ".join(" ".join((errors or lines)[-2:]).split())[-_TAIL:]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
