"""How often the preconditions of an entry hold where a look-up finds it; one that holds hardly ever, or nearly always, is no condition."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hiexp_verl.ledger.rows import LedgerRow
from hiexp_verl.types import Entry

RARELY, MOSTLY = 0.02, 0.9
LEAST = 50  # look-ups below which neither share says anything


@dataclass(frozen=True)
class Firing:
    """An entry with preconditions, in the rollouts of a ledger."""

    entry: str  # id
    when: tuple[str, ...]
    found: int  # look-ups that found it
    fired: int  # of those, where its preconditions held: it was shown, or left out by chance

    @property
    def fault(self) -> str:
        """Return what is wrong with the preconditions, "" where nothing is known to be."""
        if self.found < LEAST:
            return ""
        share = self.fired / self.found
        return "hardly ever" if share < RARELY else "nearly always" if share > MOSTLY else ""


def firings(rows: Iterable[LedgerRow], entries: Sequence[Entry]) -> list[Firing]:
    """Return the entries that have preconditions, with how often these held."""
    fired, unmet = Counter[str](), Counter[str]()
    for row in rows:
        fired.update(each["content"] for each in (*row.shown, *row.masked))
        unmet.update(row.unmet)
    counts = ((entry, fired[entry.content_id], unmet[entry.content_id]) for entry in entries if entry.when)
    return [Firing(entry.id, entry.when, held + not_held, held) for entry, held, not_held in counts]


def firings_json(found: Sequence[Firing]) -> dict[str, Any]:
    """Return the key `preconditions` with one object for each entry; nothing without such entries."""
    return {"preconditions": [{**asdict(each), "fault": each.fault or None} for each in found]} if found else {}


def firings_text(found: Sequence[Firing]) -> str:
    """Return a line for each entry whose preconditions are at fault."""
    return "\n".join(
        f"{each.entry}: {' and '.join(each.when)} holds {each.fault}, {each.fired} of the {each.found} times that it was found"
        for each in found
        if each.fault
    )
