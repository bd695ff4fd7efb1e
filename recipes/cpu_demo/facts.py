"""How the demo's report was run: model, questions, distiller, training, software, command."""

import sys

from hiexp_verl.io.manifest import software
from recipes.cpu_demo.stages import DemoSpec


def facts(spec: DemoSpec) -> dict[str, str]:
    """Return names with values, for people."""
    return {
        "policy": "SmolLM2-135M-Instruct",
        "questions": f"factbook: {spec.train} for training ({spec.k} rollouts each), {spec.val} for validation, no country in both",
        "distiller": spec.distiller,
        "training": f"{spec.steps} steps of GRPO, {spec.gspo_steps} of GSPO",
        "software": ", ".join(f"{name} {version}" for name, version in software().items()),
        "command": " ".join(["python", *sys.argv]),
    }
