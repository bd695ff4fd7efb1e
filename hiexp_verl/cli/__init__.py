"""The command line: each verb reads paths, calls one function, prints a short summary."""

import argparse
import logging
import os
import signal
import sys
from typing import NoReturn

from hiexp_verl import __version__
from hiexp_verl.cli import (
    build,
    constitution,
    data,
    doctor,
    evaluate,
    evolve,
    hek_change,
    hek_show,
    internalise,
    ledger,
    report,
    rollout,
    train,
)
from hiexp_verl.cli.options import Verb, check_arguments, tell
from hiexp_verl.errors import HiExpError
from hiexp_verl.text import printable, without_credentials

RENAMED = {"--control": "--arm", "--controls": "--arms"}
MODULES = (doctor, rollout, evaluate, evolve, report, data, build, hek_show, ledger, constitution, hek_change, internalise, train)


def main(argv: list[str] | None = None) -> int:
    """Run a verb; a user's fault, or one of the system, is one line on stderr and exit code 2, an interrupt 130."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Formatter())
    logging.getLogger("hiexp_verl").setLevel(logging.INFO)  # libraries log warnings only
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a served vLLM is stopped when we are
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and arguments.verb is not train.run_train:
        renamed = [f" ({old} is called {new} now)" for old, new in RENAMED.items() if old in rest]
        parser.error(f"unrecognized arguments: {' '.join(rest)}{''.join(renamed)}")
    arguments.overrides = rest  # in the order given; hydra's own flags are among them
    verb: Verb = arguments.verb
    try:
        check_arguments(argv if argv is not None else sys.argv[1:], vars(arguments))
        return verb(arguments)
    except HiExpError as error:
        return tell(str(error))
    except KeyboardInterrupt:
        goes_on = "; what was finished is kept, the same command with --resume goes on" if hasattr(arguments, "resume") else ""
        print(f"hiexp: interrupted{goes_on}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has closed it (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain once more at exit
        return 141
    except OSError as error:  # whatever a file system refuses: a name that is too long, a folder in place of a file, no permission
        where = f"{error.filename}: " if error.filename else ""
        return tell(f"{where}{error.strerror or error}; check the path and its permissions")


class _Formatter(logging.Formatter):
    """What is logged, for a terminal: also the warnings of libraries, and whatever a file or a server says in them."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, without_credentials(super().format(record)).split("\n")))


class _Parser(argparse.ArgumentParser):
    """A parser whose errors cannot steer the terminal: some quote an argument as it is."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every verb."""
    parser = _Parser(prog="hiexp", description="Search agents that learn from their own experience.")
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for module in MODULES:
        module.add(verbs)
    return parser
