"""Run the stages of a YAML file in order: `python -m recipes.experience_builder.run FILE [stage.option=value ...] [--only STAGE]`."""

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import yaml

from hiexp_verl.cli import main as hiexp


def commands(stages: dict[str, dict[str, Any]], overrides: list[str]) -> dict[str, list[str]]:
    """Return the `hiexp` command line of each stage; an override is `stage.option=value`."""
    for override in overrides:
        name, _, value = override.partition("=")
        stage, _, option = name.partition(".")
        if stage not in stages or not option:
            raise SystemExit(f"no stage {stage!r} in {override!r}; write {' or '.join(stages)}, a dot, an option, = and a value")
        stages[stage][option] = yaml.safe_load(value)  # as in the file: true is a flag
    return {stage: [stage, *_words(options)] for stage, options in stages.items()}


def _words(options: dict[str, Any]) -> list[str]:
    """Return options as a command line has them: true is a flag, null or false is left out."""
    given = {name: value for name, value in options.items() if value is not None and value is not False}
    pairs = [(f"--{name}",) if value is True else (f"--{name}", os.path.expanduser(str(value))) for name, value in given.items()]
    return [word for pair in pairs for word in pair]


def main(argv: list[str] | None = None) -> int:
    """Run every stage, or one of them; stop at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="stage.option=value")
    parser.add_argument("--only", help="run this stage alone")
    arguments = parser.parse_args(argv)
    stages = yaml.safe_load(arguments.file.read_text(encoding="utf-8"))
    for stage, command in commands(stages, arguments.overrides).items():
        if arguments.only in (None, stage):
            print(f"== hiexp {shlex.join(command)}", flush=True)
            if code := hiexp(command):
                return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
