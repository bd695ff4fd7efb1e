"""What all tests share: no deadlines, and one small run of the demo for the end-to-end ones."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # a loaded one is slow, not wrong
settings.load_profile("any machine")

RECIPE = Path(__file__).parents[1] / "recipes" / "cpu_demo"
SMALL = ["--warm-start", "64", "--train", "8", "--k", "4", "--val", "6", "--steps", "2", "--gspo-steps", "1"]


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    command = [sys.executable, "-m", "recipes.cpu_demo.run", "--out", str(out), *SMALL]
    result = subprocess.run(command, capture_output=True, text=True)
    logs = "".join(path.read_text(errors="replace")[-3000:] for path in out.glob("*/log.txt"))
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:] + logs
    return out
