"""`hiexp ledger`: what each entry of a HEK did to the reward."""

import argparse
from pathlib import Path
from typing import Any

from hiexp_verl.cli.options import add_hek, add_verb, print_result, say
from hiexp_verl.config import Budgets
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.edit import remove, to_change
from hiexp_verl.hek.store import HEK, root_of
from hiexp_verl.io.datasets import read_trajectories
from hiexp_verl.ledger.credit import credit
from hiexp_verl.ledger.drift import spans_of
from hiexp_verl.ledger.keep import KeepConfig, leaving
from hiexp_verl.ledger.preconditions import firings, firings_json, firings_text
from hiexp_verl.ledger.rows import LEDGER, LedgerRow, read_ledger, rows_of
from hiexp_verl.ledger.table import credits_json, credits_text, spans_json, spans_text
from hiexp_verl.ledger.values import LEAST, fit

_EPILOG = f"""\
Rows come from trainings with hiexp.ledger.enabled=true, which leave them in HEK/{LEDGER}, or from episodes of mixed arms:
`hiexp eval --arms none,full`, or a training with hiexp.group.arms and hiexp.dump_dir.

shown      rollouts that saw the entry, discounted where versions have changed since; groups: questions x steps
with it    mean reward of these rollouts; without: mean reward of the rollouts without experience in their groups
effect     the difference, less that of the rollouts where an entry was left out by chance (look-ups are likelier in trouble)
by version reward with experience, and how much more that is than without, in the same groups: a bank can get worse step by step
holds      of an entry with preconditions (`hiexp edit --when`): they hold in under 2% of the look-ups that find it, or in over 90%
best guess shrunk towards the entries below the same parent, with its 95% interval: of few rollouts an effect is mostly chance

examples: hiexp ledger hek
          hiexp ledger hek --episodes outputs/eval/full/trajectories.jsonl outputs/eval/none/trajectories.jsonl
          hiexp ledger hek --fit                   then hiexp.prompt.select=linucb (or thompson) shows entries by their value
          hiexp ledger hek --retire                what is shown to do harm leaves, as a new version"""


def add(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(verbs, "ledger", run_ledger, "Show what each entry did to the reward, with intervals.", _EPILOG)
    add_hek(parser, json=True)
    parser.add_argument("--episodes", type=Path, nargs="+", default=[], metavar="FILE", help="trajectories to count, instead of the ledger")
    parser.add_argument("--most", type=int, default=40, metavar="N", help="rows of the table, the clearest effects first (default 40)")
    parser.add_argument(
        "--fit", action="store_true", help="save what select=linucb and select=thompson choose entries by, for this version"
    )
    parser.add_argument("--retire", action="store_true", help="save a new version without the entries that harm, or are too many")


def run_ledger(arguments: argparse.Namespace) -> int:
    """Print the table, or save the version without what harms."""
    if arguments.most < 1:
        raise HiExpError(f"--most must be at least 1, found {arguments.most}")
    root = root_of(arguments.hek) if arguments.retire else None
    since = to_change(arguments.hek, root) if root is not None else None
    hek = HEK.load(arguments.hek)
    rows = _rows(arguments)
    if arguments.fit:
        values = fit(rows, hek, Budgets())
        path = values.save(arguments.hek, hek.header.content_hash)
        places = ", ".join(f"{place} ({model.exposures} exposures)" for place, model in values.places.items())
        say(f"saved {path}: {places or f'each place has fewer than {LEAST} exposures, the cosine selects'}")
        return 0
    found = credit(rows, hek.entries)
    if root is not None:
        left = leaving(hek, found.of, KeepConfig())
        if not left:
            say("no entry is shown to do harm, and no level is beyond its capacity; nothing was changed")
            return 0
        reason = "; ".join(f"{each.id} {each.why}" for each in left)
        changed = remove(hek, [each.id for each in left], reason, with_orphans=True)
        say("\n".join([*(f"{each.id}  {each.why}" for each in left), f"saved {changed.save(root, since)}"]))
        return 0
    spans, fired = spans_of(rows), firings(rows, hek.entries)
    text = "\n\n".join(filter(None, (credits_text(hek, found, arguments.most), firings_text(fired), spans_text(spans))))
    print_result(arguments.json, credits_json(hek, found) | {"versions": spans_json(spans)} | firings_json(fired), text)
    return 0


def _rows(arguments: argparse.Namespace) -> list[LedgerRow]:
    if arguments.episodes:
        rows = rows_of(t for path in dict.fromkeys(map(Path.resolve, arguments.episodes)) for t in read_trajectories(path))
    else:
        rows = read_ledger(root_of(arguments.hek))
    if not rows:
        what = " ".join(map(str, arguments.episodes)) or f"{root_of(arguments.hek) / LEDGER}"
        raise HiExpError(f"{what} has no rollouts; train with hiexp.ledger.enabled=true, or give --episodes of mixed arms")
    return rows
