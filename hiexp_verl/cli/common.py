"""What the verbs share."""

import argparse
import json
from collections.abc import Callable
from typing import Any

Verb = Callable[[argparse.Namespace], int]
MAX_MODEL_LEN_HELP = "tokens of prompt and answer for a model directory (default 4096, or what the model was made for)"


def add_verb(verbs: Any, name: str, run: Verb, help: str, epilog: str = "") -> argparse.ArgumentParser:
    """Add the parser of a verb; `run(arguments)` returns the exit code."""
    parser = verbs.add_parser(
        name, allow_abbrev=False, help=help, description=help, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(verb=run)
    return parser


def print_result(json_wanted: bool, value: Any, text: str) -> None:
    """Print the value as JSON, or the text."""
    print(json.dumps(value, ensure_ascii=False, indent=1) if json_wanted else text)
