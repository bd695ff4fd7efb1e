"""The package keeps its shape: only the plugin knows verl, imports point one way, importing is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import hiexp_verl
from tests.support.paths import PACKAGE

HEAVY = {"verl", "ray", "torch", "vllm", "hydra", "omegaconf"}
# A module imports only from its left. Recipes and benchmarks stand above.
LAYERS = [
    "errors",
    "types",
    "settings",
    "config_loop",
    "config",
    "scoring",
    "text",
    "io",
    "models",
    "search",
    "protocol",
    "wording",
    "masking",
    "domains",
    "hek",
    "importers",
    "distil",
    "guide",
    "ledger",
    "rollout",
    "evaluate",
    "evolve",
    "internalise",
    "plugin",
    "report",
    "cli",
]
WITHOUT_THE_BUILDER = {"guide", "ledger", "rollout", "evaluate", "plugin"}  # training never loads it
# Where torch or vLLM is the matter itself, and is imported inside functions.
LAZY = {"doctor.py", "vllm_worker.py", "ray.py"}


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def home_of(name: str) -> str:
    """Return the module, below the package, that `from hiexp_verl import name` loads."""
    value = getattr(hiexp_verl, name, None)
    module = getattr(value, "__module__", None) or f"{PACKAGE.name}.{name}"
    return module.removeprefix(f"{PACKAGE.name}.")


def imports(path: Path, top_level_only: bool) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == PACKAGE.name and node.level == 0:
            found += [f"{PACKAGE.name}.{home_of(alias.name)}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.append(node.module)
    return found


def test_only_the_plugin_knows_verl():
    for path in PACKAGE.rglob("*.py"):
        heavy = {m.split(".")[0] for m in imports(path, top_level_only=path.name in LAZY)} & HEAVY
        assert not heavy or layer(path) == "plugin", f"{path} imports {sorted(heavy)}; move that code to plugin/"


def ours(path: Path) -> list[str]:
    """Return the layers that a file imports from."""
    return [m.split(".")[1] for m in imports(path, top_level_only=False) if m.startswith("hiexp_verl.") and m != "hiexp_verl.__version__"]


def test_a_name_imported_from_the_package_itself_counts_as_its_layer(tmp_path):
    code = tmp_path / "code.py"
    code.write_text("from hiexp_verl import HEK, Entry, __version__, build, distil, rollout\n")
    assert ours(code) == ["hek", "types", "distil", "distil", "rollout"]


def test_a_module_imports_only_from_the_layers_to_its_left():
    for path in PACKAGE.rglob("*.py"):
        if layer(path) == "__init__":
            continue
        for target in ours(path):
            assert LAYERS.index(target) <= LAYERS.index(layer(path)), f"{path} imports {target}, which stands to its right"


def test_guide_rollout_evaluate_and_plugin_do_not_import_the_builder():
    for path in PACKAGE.rglob("*.py"):
        if layer(path) in WITHOUT_THE_BUILDER:
            assert "distil" not in ours(path), f"{path} imports the builder"


def test_the_library_does_not_import_recipes_or_benchmarks():
    for path in PACKAGE.rglob("*.py"):
        above = {m.split(".")[0] for m in imports(path, top_level_only=False)} & {"recipes", "benchmarks", "tests"}
        assert not above, f"{path} imports {sorted(above)}"


def test_importing_the_package_imports_neither_verl_nor_torch():
    code = "import sys, hiexp_verl, hiexp_verl.cli; sys.exit(', '.join(sorted({'verl', 'torch', 'ray', 'transformers'} & set(sys.modules))) or 0)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_no_machine_is_named():
    for path in [*PACKAGE.rglob("*"), *(PACKAGE.parent / "recipes").rglob("*")]:
        if path.is_file() and path.suffix in {".py", ".txt", ".yaml", ".md", ".html"}:
            text = path.read_text(encoding="utf-8")
            for word in ("/work/", "/root/", "../shared"):
                assert word not in text, f"{path} names {word}"
