"""The entry point `verl.plugins`: imported by every process that imports verl.

verl swallows whatever an entry point raises, at DEBUG level. Here a failed registration is a visible warning, and is
kept for `hiexp doctor`.
"""

import importlib
import logging
import os
import warnings

logger = logging.getLogger(__name__)

FAILURES: dict[str, str] = {}
CPU = os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"


def _platform() -> None:
    if CPU:  # first of all: several verl modules ask for the platform while they are imported
        from hiexp_verl.train import CPU_ENVIRONMENT

        for name, value in CPU_ENVIRONMENT.items():
            os.environ.setdefault(name, value)  # in the driver Ray is not up yet, and its workers inherit it
        importlib.import_module("hiexp_verl.plugin.cpu_platform")


def _config_group() -> None:
    importlib.import_module("hiexp_verl.plugin.settings").store(cpu=CPU)


def _rollout() -> None:
    if CPU:
        from verl.workers.rollout.base import _ROLLOUT_REGISTRY
        from verl.workers.rollout.replica import RolloutReplicaRegistry

        # Named by string and loaded on use: a worker that unpickles our class may be importing it right now.
        _ROLLOUT_REGISTRY[("vllm_cpu", "async")] = "hiexp_verl.plugin.vllm_cpu.ServerAdapter"
        RolloutReplicaRegistry.register("vllm_cpu", lambda: importlib.import_module("hiexp_verl.plugin.vllm_cpu").vLLMCPUReplica)


def _by_import(name: str) -> None:
    importlib.import_module(f"hiexp_verl.plugin.{name}")


def _trainer() -> None:
    with warnings.catch_warnings():
        if "RAY_RAYLET_PID" not in os.environ:
            # verl's trainer imports every training engine and warns of those whose packages are missing. Only Ray's workers
            # build engines; in the driver the five warnings would stand before the one line that refuses a run.
            warnings.filterwarnings("ignore", message=".* engine is not available", category=UserWarning)
        _by_import("trainer")


STEPS = {
    "platform cpu": _platform,
    "config group hiexp": _config_group,
    "advantage hiexp_grpo": lambda: _by_import("advantage"),
    "tool parser search_tags": lambda: _by_import("search_parser"),
    "agent loop hiexp_agent": lambda: _by_import("agent_loop"),
    "trainer hiexp_sync": _trainer,
    "rollout engine vllm_cpu": _rollout,
}


def register() -> None:
    """Make everything of ours known to verl; a step that fails is reported and the others go on."""
    for what, step in STEPS.items():
        try:
            step()
        except Exception as error:  # verl would swallow it; reporting it is the point
            FAILURES[what] = f"{type(error).__name__}: {error}"
            message = f"hiexp_verl could not register the {what} with verl ({FAILURES[what]}); run `hiexp doctor`"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
            logger.warning(message, exc_info=True)


register()
