"""What the READMEs tell a user to type is what the program takes."""

import re
import shlex
from pathlib import Path

import pytest

from hiexp_verl.cli import build_parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "recipes").glob("*/README.md"))]


def commands(page: Path) -> list[list[str]]:
    """The shell commands in the page's code blocks, comments left out."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_hiexp_command_is_understood(page):
    for command in commands(page):
        if command[0] == "hiexp":
            arguments, rest = build_parser().parse_known_args(command[1:])
            assert not rest or command[1] == "train", f"{shlex.join(command)}: {rest}"
            assert callable(arguments.verb)


def test_the_pages_have_commands():
    assert {len([c for c in commands(page) if c[0] == "hiexp"]) > 0 for page in PAGES} == {True}


def test_nothing_is_installed_by_name_from_an_index_that_does_not_have_it():
    for page in PAGES:
        for command in commands(page):
            if command[:2] == ["pip", "install"]:
                assert not any(word.startswith("hiexp") and "@" not in word for word in command[2:]), shlex.join(command)
