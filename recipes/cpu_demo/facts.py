"""How the demo's report was run: model, questions, distiller, training, software, command."""

import argparse
import sys

from hiexp_verl.io.manifest import software


def facts(arguments: argparse.Namespace) -> dict[str, str]:
    """Return names with values, for people."""
    a = arguments
    return {
        "policy": "SmolLM2-135M-Instruct",
        "questions": f"factbook: {a.train} for training ({a.k} rollouts each), {a.val} for validation, no country in both",
        "distiller": a.distiller,
        "training": f"{a.steps} steps of GRPO, {a.gspo_steps} of GSPO",
        "software": ", ".join(f"{name} {version}" for name, version in software().items()),
        "command": " ".join(["python", *sys.argv]),
    }
