"""Where the project's folders are."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "hiexp_verl"
RECIPES = ROOT / "recipes"
CPU_DEMO = RECIPES / "cpu_demo"
TESTS = ROOT / "tests"
GOLDEN = TESTS / "golden"
TEMPLATES = TESTS / "templates"
SHARED = ROOT.parent / "shared"  # real data that is not part of the project
MULTIHOP = SHARED / "data" / "multihop" / "trajectories.jsonl.gz"

needs_multihop = pytest.mark.skipif(not MULTIHOP.is_file(), reason="the shared multi-hop trajectories are not here")
