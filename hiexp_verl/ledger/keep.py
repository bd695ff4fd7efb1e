"""Which entries a HEK keeps: retirement by evidence of harm, and the capacity of a level.

Both only propose: the entries leave by a new version (`hek.edit.remove`), and no version is deleted.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import ceil

from pydantic import Field

from hiexp_verl.hek.store import HEK
from hiexp_verl.ledger.credit import Credit
from hiexp_verl.settings import Count, Number, settings
from hiexp_verl.types import LEVELS, Entry


@settings()
class KeepConfig:
    """When entries leave."""

    n_min: Count = Field(default=100, description="Exposures before an entry can be retired.")
    most: Number = Field(default=0.05, ge=0, le=1, description="Share of a level that one version retires at most.")
    e1: Count = Field(default=2_000, description="Entries of the level; the least useful ones leave.")
    e2: Count = Field(default=200, description="As e1.")
    e3: Count = Field(default=20, description="As e1.")


@dataclass(frozen=True)
class Leaving:
    """An entry that is to leave, and why."""

    id: str
    why: str


def leaving(
    hek: HEK,
    credits: Mapping[str, Credit],
    config: KeepConfig | None = None,
    young: Collection[str] = (),
    suspected: Collection[str] = (),
) -> list[Leaving]:
    """Return the entries to retire, then those beyond the capacity of their level.

    Retired is an entry with `n_min` exposures whose upper bound is below 0, the most harmful first, at most the share `most` of its
    level. Beyond the capacity, entries leave by their lower bound, the lowest first. An entry that is `young` (by content id) has had
    no time to prove itself and stays before others. One that is `suspected` needs the bound alone, however few its exposures.
    """
    config = config or KeepConfig()
    found: list[Leaving] = []
    for level in LEVELS:
        entries = [entry for entry in hek.entries if entry.level == level]
        harmful = [(c.high, entry.id, c) for entry in entries if (c := credits.get(entry.content_id)) and _harms(c, config, suspected)]
        for high, entry_id, credit in sorted(harmful)[: ceil(config.most * len(entries))]:
            effect = f"{credit.shrunk:+.3f} [{credit.low:+.3f}, {high:+.3f}] over {credit.exposures:.0f} exposures"
            found.append(Leaving(entry_id, f"retired: its effect is {effect}"))
        gone = {each.id for each in found}
        left = [entry for entry in entries if entry.id not in gone]
        found += _beyond(left, credits, getattr(config, level), young)
    return found


def _harms(credit: Credit, config: KeepConfig, suspected: Collection[str]) -> bool:
    return credit.high < 0 and (credit.exposures >= config.n_min or (credit.groups > 0 and credit.content in suspected))


def _beyond(entries: list[Entry], credits: Mapping[str, Credit], capacity: int, young: Collection[str]) -> list[Leaving]:
    def worth(entry: Entry) -> tuple[bool, float]:
        known = credits.get(entry.content_id)
        return entry.content_id in young, known.low if known is not None and known.groups else 0.0

    least = sorted(entries, key=worth)[: max(0, len(entries) - capacity)]
    return [Leaving(entry.id, f"beyond the capacity of {capacity} {entry.level.upper()}") for entry in least]
