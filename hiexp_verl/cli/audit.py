"""`hiexp audit`."""

import argparse
import logging
from pathlib import Path
from typing import Any

from hiexp_verl.cli.common import add_verb, print_result
from hiexp_verl.errors import HiExpError


def add_audit(verbs: Any) -> None:
    """Add the verb."""
    epilog = (
        "Exit code 0: nothing overlaps; 1: something does; 2: an error. Near-duplicates share 80% of their words, or have a\n"
        "cosine of the HEK's encoder of at least --near (made for MiniLM; other encoders may need another); their names and\n"
        "numbers agree.\n\n"
        "example: hiexp audit hek --questions test.jsonl"
    )
    parser = add_verb(verbs, "audit", run_audit, "Report what a HEK knows of a test set: questions, answers in entries.", epilog)
    parser.add_argument("hek", type=Path, metavar="HEK")
    parser.add_argument("--questions", type=Path, required=True, metavar="FILE", help="the test set, JSON lines")
    parser.add_argument("--near", type=float, metavar="COSINE", help="default 0.95")
    parser.add_argument("--encoder", help="where the encoder of the HEK lies, if it has moved")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run_audit(arguments: argparse.Namespace) -> int:
    """Print what overlaps; 1 when something does."""
    from dataclasses import asdict

    from hiexp_verl.build.audit import NEAR_COSINE, audit, audit_text
    from hiexp_verl.hek.store import HEK
    from hiexp_verl.jsonl import read_questions

    near = NEAR_COSINE if arguments.near is None else arguments.near
    if not 0 < near <= 1:
        raise HiExpError(f"--near must be above 0 and at most 1, found {near:g}")
    hek = HEK.load(arguments.hek)
    questions = read_questions(arguments.questions)
    found = audit(hek, questions, _encoder(hek, arguments), near)
    print_result(arguments.json, asdict(found), audit_text(found))
    return 0 if found.clean else 1


def _encoder(hek: Any, arguments: argparse.Namespace) -> Any:
    """Open the encoder; one that was not asked for and is not here is done without, and the result says so."""
    from hiexp_verl.hek.locate import open_encoder

    try:
        return open_encoder(hek, arguments.hek, arguments.encoder)
    except HiExpError as error:
        if arguments.encoder:
            raise
        logging.getLogger(__name__).warning("near-duplicates are sought by words only: %s", error)
        return None
