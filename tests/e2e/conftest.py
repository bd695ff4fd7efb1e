"""The runs that end-to-end tests share: the stages before training in their smallest form, and one whole small demo."""

import os
import subprocess
import sys

import pytest

from hiexp_verl.io.manifest import Manifest
from tests.support.paths import ROOT
from tests.support.training import SMALL

PREPARED = {"seed": 0, "distiller": "rules", "warm_start": 48, "train": 16, "k": 4, "val": 2, "steps": 2, "gspo_steps": 0}


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """The demo's folder before training: questions, a warm-started policy (cached by the hash of its inputs), rollouts, a HEK."""
    from recipes.cpu_demo.run import one_stage
    from recipes.cpu_demo.stages import Demo, DemoSpec

    out = tmp_path_factory.mktemp("prepared") / "out"
    demo, manifest = Demo(DemoSpec(out=out, **PREPARED)), Manifest(kind="recipe", spec={}, outcome={"seconds": {}, "stages": {}})
    stages = {name: (what, stage) for name, what, stage in demo.stages()}
    for name in ("assets", "warm_start", "rollouts", "build"):
        demo.results[name] = one_stage(out, name, *stages[name], manifest)
    return out, demo.results


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The output folder of one small run of the whole demo."""
    out = tmp_path_factory.mktemp("demo") / "out"
    command = [sys.executable, "-m", "recipes.cpu_demo.run", "--out", str(out), *SMALL]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=dict(os.environ))
    logs = "".join(path.read_text(errors="replace")[-3000:] for path in out.glob("*/log.txt"))
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:] + logs
    return out
