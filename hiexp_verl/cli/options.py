"""What the verbs share."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from reprlib import repr as brief
from typing import Any, Literal, get_args

from hiexp_verl.config import Engine
from hiexp_verl.domains import DOMAINS
from hiexp_verl.errors import HiExpError
from hiexp_verl.models.chat import MAX_MODEL_LEN
from hiexp_verl.protocol import FORMATS
from hiexp_verl.rollout.as_trained import DEFAULTS
from hiexp_verl.text import printable, without_credentials

QUESTIONS_HELP = "JSON lines, a JSON list, parquet or CSV, with id, question, answer or answers, or as verl or Search-R1 writes them"
SEED_HELP = "of the sampling; every turn of every question derives its own (default 0)"
ENCODER_HELP = "directory or name of the encoder of the HEK, if it has moved"
JSON_HELP = "machine-readable output"
DOMAIN_HELP = f"{', '.join(DOMAINS)}, or package.module:NAME of your own, which is code and is run (docs/own_domain.md)"
Verb = Callable[[argparse.Namespace], int]
SET_HELP = (
    "budgets of experience by their names in training: prompt.top_k=3 prompt.max_tokens=160 tool.min_score=0.5 "
    "(default: those that the checkpoint was trained with, or training's defaults)"
)
PRECONDITIONS_HELP = 'show E1 only where their finding comes up ("when" of rules_e1.jsonl): of a repeated query at a repeated one'
MAX_MODEL_LEN_HELP = "tokens of prompt and answer for a model directory (default %(default)s, or what the model was made for)"


def add_verb(verbs: Any, name: str, run: Verb, help: str, epilog: str = "") -> argparse.ArgumentParser:
    """Add the parser of a verb; `run(arguments)` returns the exit code."""
    parser = verbs.add_parser(
        name, allow_abbrev=False, help=help, description=help, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(verb=run)
    return parser


def add_hek(parser: argparse.ArgumentParser, encoder: bool = False, json: bool = False, nargs: Literal["?"] | None = None) -> None:
    """Add the HEK that a verb reads, where its encoder is, and JSON output."""
    parser.add_argument(
        "hek", type=Path, nargs=nargs, metavar="HEK", help="directory of a HEK (its current version), or of a version (hek/0001)"
    )
    if encoder:
        parser.add_argument("--encoder", help=ENCODER_HELP)
    if json:
        parser.add_argument("--json", action="store_true", help=JSON_HELP)


def add_episode_arguments(parser: argparse.ArgumentParser, temperature: float) -> None:
    """Add the options of playing episodes: domain, model, search, experience, sampling."""
    parser.add_argument("--domain", help=f"{DOMAIN_HELP} (default: that of the checkpoint's training, or search)")
    parser.add_argument("--search", default="bm25", choices=get_args(Engine), help="as hiexp.search.engine (default bm25)")
    parser.add_argument(
        "--corpus",
        metavar="FILE",
        help="JSONL (.gz), TSV or parquet with id, title, text, for bm25 and dense; what the tool of your domain runs on",
    )
    parser.add_argument("--search-url", metavar="URL", help="of a retrieval server in the Search-R1 wire format, for http")
    parser.add_argument("--search-encoder", metavar="DIR_OR_NAME", help="for dense (default: --encoder, or the encoder of the HEK)")
    parser.add_argument(
        "--model",
        required=True,
        help="directory of a model or of a verl checkpoint (served by vLLM), URL, or URL#MODEL of an OpenAI-compatible server; "
        "the shards of a checkpoint are merged by verl, which runs code in them: give only those of people you trust",
    )
    parser.add_argument("--hek", type=Path, help="show experience of this HEK")
    parser.add_argument("--other-domain", action="store_true", help="the HEK may be of another domain: a control")
    parser.add_argument("--encoder", help=ENCODER_HELP)
    trained = "(default: as the checkpoint was trained, or %s)"
    parser.add_argument("--format", choices=FORMATS, help="dialect of search calls " + trained % DEFAULTS["format"])
    parser.add_argument("--instructions", type=Path, metavar="FILE", help="system prompt, instead of the dialect's (experience follows it)")
    parser.add_argument("--temperature", type=float, default=temperature, help=f"(default {temperature:g}; 0 is greedy)")
    parser.add_argument("--top-p", type=float, default=1.0, help="probability mass of nucleus sampling (default 1: all tokens)")
    parser.add_argument("--max-tokens", type=int, help="per turn " + trained % DEFAULTS["max_tokens"])
    parser.add_argument("--max-model-len", type=int, default=MAX_MODEL_LEN, help=MAX_MODEL_LEN_HELP)
    parser.add_argument("--max-searches", type=int, help="per episode " + trained % DEFAULTS["max_searches"])
    parser.add_argument("--top-k", type=int, help="passages per search " + trained % DEFAULTS["top_k"])
    parser.add_argument("--max-words", type=int, help="words per passage " + trained % DEFAULTS["max_words"])
    parser.add_argument("--max-chars", type=int, help="characters of all passages of a search " + trained % DEFAULTS["max_chars"])
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=SET_HELP)
    parser.add_argument("--batch-size", type=int, default=16, help="episodes at a time (default 16); with vLLM, more are faster")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")
    parser.add_argument(
        "--same-model",
        action="store_true",
        help="with --resume: accept another address of the model; you know that the weights are the same",
    )


MAX_INTEGER = 1 << 32


def check_arguments(argv: Sequence[str], options: Mapping[str, Any]) -> None:
    """Refuse what no verb can use.

    Raises:
        HiExpError: an argument is not UTF-8 or has a zero byte, or a number among the options is out of all bounds.
    """
    for argument in argv:
        if "\0" in argument:
            raise HiExpError(f"the argument {argument!r} has a zero byte, which no name of a file can have")
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise HiExpError(
                f"the argument {argument.encode('utf-8', 'backslashreplace').decode()!r} is not UTF-8; write it, or name the file, in UTF-8"
            ) from error
    for name, value in options.items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int) and abs(number) > MAX_INTEGER:
                raise HiExpError(f"--{name.replace('_', '-')} is {brief(number)}; the largest number is {MAX_INTEGER}")


def print_result(json_wanted: bool, value: Any, text: str) -> None:
    """Print the value as JSON, or the text."""
    say(json.dumps(value, indent=1) if json_wanted else text)


def tell(fault: str) -> int:
    """Print a fault on stderr and return the exit code; the words of a file or a server in it cannot steer the terminal."""
    print(f"hiexp: {printable(without_credentials(fault))}", file=sys.stderr)
    return 2


def say(text: str) -> None:
    """Print a text of several lines; what a model wrote into a HEK cannot steer the terminal."""
    print("\n".join(map(printable, text.split("\n"))))
