"""Apply a distiller's edits (`distil.edits`) to a proposal: what it adds, rewords, suspects, or leaves out.

Of several edits of one entry the first counts; the entries of the others are added. A reworded entry keeps its place, its
preconditions and all that it rests on; its new words have no exposures yet, and are judged by their neighbours and by the gate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hiexp_verl.distil.distillers import Distiller
from hiexp_verl.distil.entries import united
from hiexp_verl.hek.edit import remove
from hiexp_verl.hek.store import HEK
from hiexp_verl.types import Entry

NEAREST = 5  # entries that a new one is held against
LEAST_COSINE = 0.5  # of titles; below it two entries are about different things


@dataclass
class Edits:
    """What edits say, by content id."""

    unneeded: set[str] = field(default_factory=set)  # new entries
    reworded: dict[str, str] = field(default_factory=dict)  # a new entry -> the one whose place it takes
    suspected: set[str] = field(default_factory=set)  # entries of the version

    @classmethod
    def asked(cls, distiller: Distiller, new: HEK, parent: HEK) -> "Edits":
        """Ask what becomes of each new E1 that is near one of the version; raises what the distiller raises."""
        known = {entry.content_id for entry in parent.entries}
        pairs = [
            (entry, near)
            for row, entry in enumerate(new.entries)
            if entry.level == "e1" and entry.content_id not in known and (near := _nearest(new, row, parent))
        ]
        edits = cls()
        touched: set[str] = set()
        for (entry, _), edit in zip(pairs, distiller.edit(pairs), strict=True):
            target = edit.target.content_id if edit.target is not None else None
            if edit.op == "NONE":
                edits.unneeded.add(entry.content_id)
            elif target is not None and target not in touched:
                touched.add(target)
                if edit.op == "UPDATE":
                    edits.reworded[entry.content_id] = target
                else:
                    edits.suspected.add(target)
        return edits

    def applied(self, merged: HEK) -> tuple[HEK, dict[str, str]]:
        """Return the merged HEK with each reworded entry in the place of the old one, and why the old ones went."""
        entries, vectors_E_D = list(merged.entries), merged.vectors_E_D.copy()
        rows = {entry.content_id: row for row, entry in enumerate(entries)}
        moved: dict[str, str] = {}  # id of a new entry -> that of the one whose place it takes
        went: dict[str, str] = {}
        for new, old in self.reworded.items():
            if new not in rows or old not in rows:  # it was a near-duplicate, and is united already
                continue
            source, place = rows[new], rows[old]
            moved[entries[source].id] = entries[place].id
            vectors_E_D[place] = merged.vectors_E_D[source]
            before = entries[place]
            entries[place] = replace(united(entries[source], before), id=before.id, when=before.when)
            went[old] = "reworded"
        if not moved:
            return merged, {}
        linked = tuple(replace(entry, children=tuple(dict.fromkeys(moved.get(each, each) for each in entry.children))) for entry in entries)
        return remove(replace(merged, entries=linked, vectors_E_D=vectors_E_D), list(moved), "reworded"), went


def _nearest(new: HEK, row: int, parent: HEK) -> Sequence[Entry]:
    """Return the E1 of the parent whose titles are nearest, the nearest first."""
    rows = [i for i, entry in enumerate(parent.entries) if entry.level == "e1"]
    cosines = parent.vectors_E_D[rows] @ new.vectors_E_D[row]
    order = [i for i in np.argsort(-cosines, kind="stable")[:NEAREST] if cosines[i] >= LEAST_COSINE]
    return [parent.entries[rows[i]] for i in order]
