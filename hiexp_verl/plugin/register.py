"""The entry point `verl.plugins`: registers our parts with verl, in every process that imports verl.

verl logs what an entry point raises at DEBUG level. Here a failed registration is a visible warning, and is kept for
`hiexp doctor`.
"""

import importlib
import logging
import os
import warnings
from collections.abc import Callable

import wrapt

logger = logging.getLogger(__name__)

Registration = Callable[[], None]
FAILURES: dict[str, str] = {}
CPU = os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"


def _platform() -> None:
    from hiexp_verl.plugin.launch import CPU_ENVIRONMENT

    for name, value in CPU_ENVIRONMENT.items():
        os.environ.setdefault(name, value)  # in the driver Ray is not up yet, and its workers inherit it
    importlib.import_module("hiexp_verl.plugin.cpu.platform")


def _rollout() -> None:
    from verl.workers.rollout.base import _ROLLOUT_REGISTRY
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    # Named by string and loaded on use: a worker that unpickles our class may be importing it right now.
    _ROLLOUT_REGISTRY[("vllm_cpu", "async")] = "hiexp_verl.plugin.cpu.vllm.ServerAdapter"
    RolloutReplicaRegistry.register("vllm_cpu", lambda: importlib.import_module("hiexp_verl.plugin.cpu.vllm").vLLMCPUReplica)


def _by_import(name: str) -> None:
    importlib.import_module(f"hiexp_verl.plugin.{name}")


AT_ONCE: dict[str, Registration] = {
    **({"platform cpu": _platform} if CPU else {}),  # first: several verl modules ask for the platform while they are imported
    "config group hiexp": lambda: importlib.import_module("hiexp_verl.plugin.presets").store(cpu=CPU),
}
# The others run when verl imports the module with their registry: each of the dozen processes of a run imports verl, and
# few need the trainer or the agent loop, which take longer to import than verl itself.
WHEN_IMPORTED: dict[str, tuple[str, Registration]] = {
    "advantage hiexp_grpo": ("verl.trainer.ppo.core_algos", lambda: _by_import("advantage")),
    "tool parser search_tags": ("verl.experimental.agent_loop.tool_parser", lambda: _by_import("search_tool")),
    "agent loop hiexp_agent": ("verl.experimental.agent_loop.tool_agent_loop", lambda: _by_import("agent_loop")),
    "trainers": (
        "verl.trainer.ppo.v1.trainer_sync",
        lambda: _by_import("trainer"),
    ),
    **({"rollout engine vllm_cpu": ("verl.workers.rollout.replica", _rollout)} if CPU else {}),
}


def register() -> None:
    """Register all our parts with verl; a part that fails is reported, the others are still registered."""
    for what, add in AT_ONCE.items():
        _try(what, add)
    for what, (module, add) in WHEN_IMPORTED.items():
        wrapt.register_post_import_hook(lambda _, what=what, add=add: _try(what, add), module)


def _try(what: str, add: Registration) -> None:
    try:
        add()
    except Exception as error:  # verl would swallow it
        FAILURES[what] = f"{type(error).__name__}: {error}"
        message = f"hiexp_verl could not register the {what} with verl ({FAILURES[what]}); run `hiexp doctor`"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        logger.warning(message, exc_info=True)


register()
