"""The command line: each verb reads paths, calls one function, prints a short summary."""

import argparse
import logging
import os
import signal
import sys

from hiexp_verl import __version__
from hiexp_verl.cli import build, data, doctor, evaluate, hek_change, hek_show, report, rollout, train
from hiexp_verl.cli.options import Verb
from hiexp_verl.errors import HiExpError

MODULES = (doctor, rollout, evaluate, report, data, build, hek_show, hek_change, train)


def main(argv: list[str] | None = None) -> int:
    """Run a verb; a user's fault is one line on stderr and exit code 2, an interrupt 130."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("hiexp_verl").setLevel(logging.INFO)  # libraries log warnings only
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a served vLLM is stopped when we are
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and arguments.verb is not train.run_train:
        parser.error(f"unrecognized arguments: {' '.join(rest)}{' (--control is called --arm now)' if '--control' in rest else ''}")
    arguments.overrides = rest  # in the order given; hydra's own flags are among them
    verb: Verb = arguments.verb
    try:
        return verb(arguments)
    except HiExpError as error:
        print(f"hiexp: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        goes_on = "; what was finished is kept, the same command with --resume goes on" if hasattr(arguments, "resume") else ""
        print(f"hiexp: interrupted{goes_on}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has closed it (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain once more at exit
        return 141


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every verb."""
    parser = argparse.ArgumentParser(prog="hiexp", description="Search agents that learn from their own experience.")
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for module in MODULES:
        module.add(verbs)
    return parser
