"""A constitution: a few E2 and E3 of a HEK in the system prompt, the same for every question (the arm `constitution`).

They are chosen by greedy cover within a budget of tokens. The next entry e is the one with the highest

    max(0, tau_e) x (questions that e rests on and no entry chosen before) / tokens of e

An E2 rests on the questions of its cluster, an E3 on those of all clusters below it. Where no entry adds a question, the cover begins
again with the entries that are left. tau is the effect by the ledger; of a HEK without a ledger every tau is 1. Entries that rest on
one question alone are left out, since leave-one-out would hide them from it.

Source: OmniReflect (one text of general rules for every task), with measured effects in place of a judge.
"""

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from hiexp_verl.config import Arm
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.blocks import LEVELS_OF, Block, fit_block, line_of, rough_tokens
from hiexp_verl.hek.store import HEK, root_of
from hiexp_verl.io.files import atomic_writer, make_folder
from hiexp_verl.types import Entry, Hit

ARM: Arm = "constitution"
_FOLDER = "constitution"


def chosen(hek: HEK, max_tokens: int, effects: Mapping[str, float] | None = None) -> list[Entry]:
    """Return the entries of the constitution, the first choice first.

    Args:
        max_tokens: of the whole block, by estimate (`blocks.rough_tokens`).
        effects: tau by content id, 0 where one is missing; None: every tau is 1.
    """
    left = [entry for entry in hek.entries if entry.level in LEVELS_OF["prompt"] and len(set(entry.questions)) > 1]
    taken: list[Entry] = []
    covered: set[str] = set()
    while left := [entry for entry in left if tokens_of(block_of([*taken, entry])) <= max_tokens]:
        worth = {entry.id: _worth(entry, covered, effects) for entry in left}
        best = max(left, key=lambda entry: worth[entry.id])  # of equal ones the first
        if worth[best.id] > 0:
            taken.append(best)
            left.remove(best)
            covered |= set(best.questions)
        elif covered:
            covered = set()
        else:
            break
    return taken


def _worth(entry: Entry, covered: Collection[str], effects: Mapping[str, float] | None) -> float:
    effect = 1.0 if effects is None else max(0.0, effects.get(entry.content_id, 0.0))
    return effect * len(set(entry.questions).difference(covered)) / rough_tokens(f"{line_of(Hit(entry, 0.0))}\n")


def block_of(entries: Sequence[Entry]) -> Block:
    """Return the block of these entries."""
    return fit_block("prompt", ordered([Hit(entry, 0.0) for entry in entries]), sys.maxsize, rough_tokens)


def tokens_of(block: Block) -> int:
    """Return the tokens that a block adds to the context, by the count that it was made with."""
    return sum(row["tokens"] for row in block.entries)


def ordered(hits: Sequence[Hit]) -> list[Hit]:
    """Return the hits with a value that keeps their order, whatever their cosines are."""
    return [Hit(hit.entry, hit.score, value=float(len(hits) - place)) for place, hit in enumerate(hits)]


def save(version: Path, content_hash: str, entries: Sequence[Entry]) -> Path:
    """Write the constitution of a version beside the versions; return the path.

    Raises:
        HiExpError: the disk is full, or the folder is not writable.
    """
    path = _path(version, content_hash)
    make_folder(path.parent)
    with atomic_writer(path) as file:
        json.dump([entry.content_id for entry in entries], file)
    return path


def constitution_for(version: Path, content_hash: str, arms: Collection[Arm]) -> tuple[str, ...]:
    """Return the content ids of the constitution of a version, the first choice first; nothing where no arm shows it.

    Raises:
        HiExpError: an arm shows it and there is none, or its file is damaged.
    """
    if ARM not in arms:
        return ()
    path = _path(version, content_hash)
    if not path.is_file():
        raise HiExpError(f"the arm {ARM} shows what is chosen for {version}, and nothing is; run `hiexp constitution {version}` first")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not (isinstance(found, list) and found and all(isinstance(each, str) for each in found)):
        raise HiExpError(f"{path} is not a list of content ids; remove it and run `hiexp constitution {version}` again")
    return tuple(found)


def _path(version: Path, content_hash: str) -> Path:
    return root_of(version) / _FOLDER / f"{content_hash[:32]}.json"
