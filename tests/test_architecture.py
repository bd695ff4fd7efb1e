"""The package keeps its shape: only the plugin knows verl, imports point one way, importing is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "hiexp_verl"
HEAVY = {"verl", "ray", "torch", "vllm", "hydra", "omegaconf"}
LAYERS = [
    {
        "errors",
        "child",
        "types",
        "text",
        "hashing",
        "packages",
        "batching",
        "rows",
        "fields",
        "jsonl",
        "questions",
        "transcript",
        "config",
        "scoring",
        "queries",
        "words",
    },
    {
        "encoder",
        "llm",
        "policy_tokenizer",
        "vllm_engine",
        "vllm_server",
        "vllm_offline",
        "vllm_worker",
        "train",
        "search",
        "gguf",
        "assets",
        "factbook",
        "hotpot",
    },
    {"hek"},
    {"build"},
    {"run"},
    {"report"},
    {"plugin"},
    {"doctor", "cli"},
]
# Where torch or vLLM is the matter itself, and is imported inside functions.
LAZY = {"doctor.py", "gguf.py", "assets.py", "vllm_worker.py", "on_ray.py"}


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, top_level_only: bool) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.append(node.module)
    return found


def test_only_the_plugin_knows_verl():
    for path in PACKAGE.rglob("*.py"):
        heavy = {m.split(".")[0] for m in imports(path, top_level_only=path.name in LAZY)} & HEAVY
        assert not heavy or layer(path) == "plugin", f"{path} imports {sorted(heavy)}; move that code to plugin/"


def test_imports_point_down_the_layers():
    rank = {name: i for i, names in enumerate(LAYERS) for name in names}
    for path in PACKAGE.rglob("*.py"):
        if layer(path) == "__init__":
            continue
        for module in imports(path, top_level_only=False):
            if module.startswith("hiexp_verl."):
                target = module.split(".")[1]
                assert rank[target] <= rank[layer(path)], f"{path} imports upwards: {module}"


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
