"""README and docs: links resolve, commands are those of the program, generated pages are up to date, Python blocks run."""

import ast
import re
import shlex

import pytest

from docs.generate import PAGES as GENERATED
from hiexp_verl.cli import build_parser
from tests.support.pages import blocks, commands
from tests.support.paths import ROOT

DOCS = sorted((ROOT / "docs").glob("*.md"))
RECIPES = sorted((ROOT / "recipes").glob("*/README.md"))
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "LOG.md", *DOCS, *RECIPES]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
each_page = pytest.mark.parametrize("page", PAGES, ids=NAMES)
IMAGE = re.compile(r"""(?:src|srcset)="([^"]+)\"""")


def anchors(page) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@each_page
def test_every_link_leads_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)]+)\)", text) + IMAGE.findall(text):
        path, _, anchor = target.partition("#")
        if "://" not in target:
            file = page.parent / path if path else page
            assert file.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(file), f"{page.name}: {target}"


@each_page
def test_every_hiexp_command_is_understood(page):
    for command in commands(page):
        if command[0] == "hiexp":
            arguments, rest = build_parser().parse_known_args(command[1:])
            assert not rest or command[1] == "train", f"{shlex.join(command)}: {rest}"
            assert callable(arguments.verb)


@each_page
def test_make_targets_exist(page):
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for command in commands(page):
        if command[0] == "make":
            assert command[1] in targets


def test_nothing_is_installed_by_name_from_an_index_that_does_not_have_it():
    for page in PAGES:
        for command in commands(page):
            if command[:2] == ["pip", "install"]:
                assert not any(word.startswith("hiexp") and "@" not in word for word in command[2:]), shlex.join(command)


def test_the_readme_is_one_page():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 900
    assert all(f"](docs/{page.name})" in text for page in DOCS), "every page is linked"


def test_contributing_has_the_layers_of_the_package():
    (layers,) = [block for block in blocks(ROOT / "CONTRIBUTING.md", "text") if "errors" in block]
    order = re.search(r"^LAYERS = (\[.*?\])", (ROOT / "tests/unit/test_architecture.py").read_text(), re.DOTALL | re.MULTILINE)
    assert order and re.findall(r"\w+", layers) == ast.literal_eval(order[1])


@pytest.mark.parametrize("name", GENERATED)
def test_generated_pages_are_up_to_date(name):
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert written == GENERATED[name](), "run `python -m docs.generate`"


@each_page
def test_python_blocks_are_python(page):
    for block in blocks(page, "python"):
        ast.parse(block)


@pytest.mark.verl
@pytest.mark.parametrize("page", ["README.md", "docs/quickstart_verl.md", "docs/quickstart_cpu.md"])
def test_overrides_of_training_compose(page):
    pytest.importorskip("verl")
    from tests.support.verl_fixtures import compose

    overrides = [
        c[3:] if c[0] == "python" else c[2:] for c in commands(ROOT / page) if "verl.trainer.main_ppo" in c or c[:2] == ["hiexp", "train"]
    ]
    assert overrides
    for words in overrides:
        settings = [word for word in words if not word.startswith("-") and "=" in word]
        flag = [] if any(word.startswith("+hiexp=") for word in settings) else ["+hiexp=grpo"]
        engine = [] if any("rollout.name" in word for word in settings) else ["actor_rollout_ref.rollout.name=vllm"]
        assert compose(*flag, *engine, *settings).hiexp.hek == "hek"
