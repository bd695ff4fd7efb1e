"""Child processes that run vLLM on a model directory: arguments, environment, log, and an end with this process at the latest."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.manifest import version_of

# The environment of vLLM's engine on a CPU. Its worker in a process of its own adds 14 s to the start, and the engine busy-waits
# for it on one core.
CPU_ENGINE = {
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB, 90,000 tokens of SmolLM2-135M; vLLM's default is half of the memory. Requests beyond it wait
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": str(os.cpu_count() or 1),
}
CPU_BLOCK_SIZE = 32  # tokens; in vLLM's default of 128, decoding takes twice as long, and less of a prompt is found in the cache
_PEFT_PREFIX = "base_model.model."
_TAIL = 600  # characters of the log that an error quotes


def is_cpu_build() -> bool:
    """Return whether the installed vLLM is the CPU build."""
    return version_of("vllm-cpu") is not None


@cache
def cpu_dtype() -> str:
    """Return the type in which this CPU multiplies fast: bfloat16, or float32 on an x86 without AVX-512.

    There PyTorch and vLLM emulate bfloat16: measured 33 times slower in a matrix product, 3 times in generation.
    """
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    flags = next((line.split() for line in lines if line.startswith("flags")), None)
    return "float32" if flags is not None and "avx512f" not in flags else "bfloat16"


def context_length(model_dir: Path) -> int:
    """Return the context length of the model (max_position_embeddings), sys.maxsize if its config has none.

    Raises:
        HiExpError: config.json is missing or not JSON.
    """
    try:
        config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HiExpError(f"model {model_dir} is not a model directory: config.json is missing or damaged ({error})") from error
    length = config.get("max_position_embeddings") if isinstance(config, dict) else None
    return length if isinstance(length, int) else sys.maxsize


def check_model_dir(model_dir: Path) -> None:
    """Check a model directory.

    Raises:
        HiExpError: it has no config.json, has LoRA adapters that are not merged (as verl saves them), or is damaged.
    """
    if not (model_dir / "config.json").is_file():
        raise HiExpError(f"model {model_dir} is not a model directory: found no config.json; give a Hugging Face model folder or a URL")
    if any(name.startswith(_PEFT_PREFIX) for file in model_dir.glob("*.safetensors") for name in _tensor_names(file)):
        raise HiExpError(
            f"model {model_dir} keeps LoRA adapters beside the weights; merge them (python -m verl.model_merger merge --backend fsdp "
            "--local_dir THE_ACTOR_FOLDER --target_dir DIR, then peft's merge_and_unload with DIR/lora_adapter)"
        )


def _tensor_names(file: Path) -> list[str]:
    with file.open("rb") as opened:  # 8 bytes of length, then a JSON header
        length = int.from_bytes(opened.read(8), "little")
        try:
            return list(json.loads(opened.read(min(length, file.stat().st_size))))
        except ValueError as error:
            raise HiExpError(f"{file} is damaged ({error}); copy or save the model again") from error


def engine_arguments(model_dir: Path, max_model_len: int) -> dict[str, Any]:
    """Return the arguments of vLLM's engine for a model directory; `max_model_len` is reduced to what the model supports.

    The CPU build does not compile graphs: that takes minutes and does not pay for few requests.

    Raises:
        HiExpError: the directory holds no model, or vLLM is not installed.
    """
    check_model_dir(model_dir)
    if not is_cpu_build() and version_of("vllm") is None:
        raise HiExpError(f"model {model_dir} needs vLLM, which is not installed; install it or give the URL of a server")
    max_model_len = min(max_model_len, context_length(model_dir))
    arguments: dict[str, Any] = {"max_model_len": max_model_len}
    if is_cpu_build():
        # No chunked prefill: with it a request with a seed rewinds its random generator, which fails on a CPU
        # ("CPU Generator does not use offset").
        arguments |= {"enforce_eager": True, "enable_chunked_prefill": False, "max_num_batched_tokens": max(8192, max_model_len)}
        arguments["block_size"] = CPU_BLOCK_SIZE
        arguments |= {"dtype": "float32"} if cpu_dtype() == "float32" else {}
    return arguments


@contextmanager
def engine_process(command: Sequence[str], **options: Any) -> "Iterator[tuple[subprocess.Popen[Any], IO[bytes]]]":
    """Yield a running process of a command that imports vLLM, and its log; stop it at the end. `options` go to Popen."""
    environment = {**(CPU_ENGINE if is_cpu_build() else {}), **os.environ}
    with tempfile.TemporaryFile(prefix="hiexp-vllm-") as log, tempfile.TemporaryDirectory(prefix="hiexp-vllm-") as shim:
        if is_cpu_build() and version_of("vllm") is None:
            _add_vllm_metadata(Path(shim), environment)
        child = start_child(command, env=environment, **{"stdout": log, "stderr": log, **options})
        try:
            yield child, log
        finally:
            stop_child(child)


def log_tail(log: IO[bytes]) -> str:
    """Return the end of a log on one line: the last lines that name an error, else the last lines."""
    log.seek(0)
    lines = log.read().decode("utf-8", "replace").split("\n")
    # The last lines of all are the shutdown of the workers.
    errors = [line for line in lines if "Error" in line or "error:" in line]
    return " ".join(" ".join((errors or lines)[-2:]).split())[-_TAIL:]


def _add_vllm_metadata(folder: Path, environment: dict[str, str]) -> None:
    """Make a distribution named `vllm` visible to the engine's processes.

    The CPU build is named vllm-cpu, but its platform detection looks for "cpu" in the version of `vllm`.
    """
    version = version_of("vllm-cpu") or ""
    version = version if "cpu" in version else f"{version}+cpu"
    info = folder / f"vllm-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n", encoding="utf-8")
    inherited = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = str(folder) + (os.pathsep + inherited if inherited else "")


_STOP_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1
# Loaded here: nothing may be loaded between fork and exec.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def start_child(command: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
    """Return a process started in its own group, so that its children stop with it; `options` go to Popen.

    On Linux it gets SIGTERM when this process ends, also when this process is killed.
    """
    return subprocess.Popen(command, start_new_session=True, preexec_fn=_end_with_parent if _libc else None, **options)


def stop_child(child: "subprocess.Popen[Any]") -> None:
    """Stop the process and its group: SIGTERM, then SIGKILL."""
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
