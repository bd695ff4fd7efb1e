"""`hiexp versions` and `hiexp rollback`: what versions a HEK has, and which is in use."""

import argparse
from pathlib import Path
from typing import Any

from hiexp_verl.cli.common import add_verb, print_result


def add_versions(verbs: Any) -> None:
    """Add the verb."""
    epilog = "example: hiexp versions hek"
    parser = add_verb(verbs, "versions", run_versions, "List the versions of a HEK: entries, origin, reason; * is the current one.", epilog)
    parser.add_argument("hek", type=Path, metavar="HEK")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run_versions(arguments: argparse.Namespace) -> int:
    """Print one line per version."""
    from dataclasses import asdict

    from hiexp_verl.hek.versions import versions, versions_text

    listed = versions(arguments.hek)
    print_result(arguments.json, [asdict(version) for version in listed], versions_text(listed))
    return 0


def add_rollback(verbs: Any) -> None:
    """Add the verb."""
    epilog = "Nothing is deleted; --to a later version undoes it.\n\nexample: hiexp rollback hek --to 0002"
    parser = add_verb(verbs, "rollback", run_rollback, "Use an earlier version of a HEK again.", epilog)
    parser.add_argument("hek", type=Path, metavar="HEK")
    parser.add_argument("--to", metavar="VERSION", help="default: the one that the current version was made from, or the one before it")


def run_rollback(arguments: argparse.Namespace) -> int:
    """Point CURRENT at the version."""
    from hiexp_verl.hek.versions import rollback

    print(f"current is {rollback(arguments.hek, arguments.to)}")
    return 0
