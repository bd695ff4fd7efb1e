"""`hiexp edit` and `hiexp remove`: change a HEK by hand, as a new version with a reason."""

import argparse
from pathlib import Path
from typing import Any

from hiexp_verl.cli.common import add_verb
from hiexp_verl.types import KINDS


def add_edit(verbs: Any) -> None:
    """Add the verb."""
    epilog = 'example: hiexp edit hek e1-0003 --description "Search the country first." --reason "named the wrong hop"'
    parser = add_verb(verbs, "edit", run_edit, "Change the words of one entry, as a new version.", epilog)
    parser.add_argument("hek", type=Path, metavar="HEK")
    parser.add_argument("entry", metavar="ENTRY", help="id of an entry, as `hiexp inspect` shows it")
    parser.add_argument("--title", help="when the advice applies; what queries are compared with")
    parser.add_argument("--description", help="the advice")
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--reason", required=True, metavar="WHY")
    parser.add_argument("--encoder", help="where the encoder of the HEK lies, if it has moved; only a new title needs it")
    parser.add_argument("--force", action="store_true", help="also when the new words tell an answer that the HEK knows")


def run_edit(arguments: argparse.Namespace) -> int:
    """Save the edited HEK as the next version."""
    from hiexp_verl.build.gates import tells
    from hiexp_verl.errors import HiExpError
    from hiexp_verl.hek.inspect import inspect_entry
    from hiexp_verl.hek.locate import open_encoder
    from hiexp_verl.hek.revise import edit
    from hiexp_verl.hek.store import HEK, root_of

    root = root_of(arguments.hek)
    hek = HEK.load(arguments.hek)
    encoder = open_encoder(hek, arguments.hek, arguments.encoder) if arguments.title else None
    edited = edit(hek, arguments.entry, arguments.reason, arguments.title, arguments.description, arguments.kind, encoder)
    new_words = f"{arguments.title or ''}\n{arguments.description or ''}"
    own = set(hek.entry(arguments.entry).questions)
    told = [s for s in hek.sources if s.correct and s.question_id in own and tells(new_words, s.question, [s.prediction])]
    if told and not arguments.force:
        raise HiExpError(f"the new words tell the answer {told[0].prediction!r} to {told[0].question!r}; leave it out, or give --force")
    version = edited.save(root)
    print(f"{inspect_entry(edited, arguments.entry)}\nin {version}")
    return 0


def add_remove(verbs: Any) -> None:
    """Add the verb."""
    epilog = 'example: hiexp remove hek e1-0003 e1-0007 --reason "tell an answer"'
    parser = add_verb(verbs, "remove", run_remove, "Take entries out of a HEK, as a new version.", epilog)
    parser.add_argument("hek", type=Path, metavar="HEK")
    parser.add_argument("entries", nargs="+", metavar="ENTRY", help="ids of entries, as `hiexp inspect` shows them")
    parser.add_argument("--reason", required=True, metavar="WHY")
    parser.add_argument("--with-orphans", action="store_true", help="also remove what would lose all its children")


def run_remove(arguments: argparse.Namespace) -> int:
    """Save the HEK without the entries as the next version."""
    from hiexp_verl.hek.revise import remove
    from hiexp_verl.hek.store import HEK, root_of

    root = root_of(arguments.hek)
    left = remove(HEK.load(arguments.hek), arguments.entries, arguments.reason, arguments.with_orphans)
    version = left.save(root)
    print(f"{left.header.reason}\n{', '.join(f'{count} {level.upper()}' for level, count in left.levels.items())} left in {version}")
    return 0
