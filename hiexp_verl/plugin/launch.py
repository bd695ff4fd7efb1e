"""The command line and environment of a training: verl's own entry point, with our flag."""

import os
import sys

from hiexp_verl.models.vllm_process import CPU_ENGINE

# Defaults of a run on the CPU, set by `hiexp train --cpu` and, with VERL_PLATFORM=cpu, by the plugin.
CPU_ENVIRONMENT = {
    "VERL_PLATFORM": "cpu",
    "TOKENIZERS_PARALLELISM": "false",
    **CPU_ENGINE,  # its OMP_NUM_THREADS also keeps Ray from giving the training worker one thread
}


def trainer_command(overrides: list[str], cpu: bool) -> tuple[list[str], dict[str, str]]:
    """Return the command line and the environment for `python -m verl.trainer.main_ppo`."""
    overrides = [o for o in overrides if o != "--"]
    environment = environment_of(cpu)
    names_a_config = any(o.split("=")[0] in ("--config-name", "-cn") for o in overrides)  # a config file sets the flag itself
    if not names_a_config and not any(o.startswith("+hiexp=") for o in overrides):
        overrides = ["+hiexp=grpo", *overrides]
    # verl swallows the errors of an entry point; an import that is named here as well stops the run when it fails.
    modules = [m for m in environment.get("VERL_USE_EXTERNAL_MODULES", "").split(",") if m]
    if "hiexp_verl.plugin.register" not in modules:
        environment["VERL_USE_EXTERNAL_MODULES"] = ",".join([*modules, "hiexp_verl.plugin.register"])
    return [sys.executable, "-m", "verl.trainer.main_ppo", *overrides], environment


def environment_of(cpu: bool) -> dict[str, str]:
    """Return the environment of a run."""
    return {**CPU_ENVIRONMENT, **os.environ, "VERL_PLATFORM": "cpu"} if cpu else dict(os.environ)
