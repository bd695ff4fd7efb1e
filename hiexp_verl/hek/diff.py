"""What changed between two HEKs: entries, levels, header; as data and as text."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, fields
from operator import attrgetter
from typing import Any

import numpy as np

from hiexp_verl.hek.store import HEK
from hiexp_verl.text import sanitise
from hiexp_verl.types import LEVELS, Entry, Evidence, Plan

# Ids are positions and shift from build to build, so words and origin come first. Each entry of A is paired with the first
# unpaired one of B that is equal in all of these; what the first line leaves goes to the second, and so on.
_SAME_ENTRY = (
    attrgetter("level", "title", "description", "id"),
    attrgetter("level", "title", "description"),
    attrgetter("level", "title", "id"),
    attrgetter("level", "description", "id"),
    attrgetter("level", "questions", "id"),  # both texts were rewritten
    attrgetter("level", "title"),
)
_COMPARED = tuple(each.name for each in fields(Entry) if each.name not in ("id", "level"))
_BOOKKEEPING = ("content_hash",)  # differs with anything else


@dataclass(frozen=True)
class Changed:
    """One entry in two states; `fields` maps each field that differs to (before, after)."""

    before: Entry
    after: Entry
    fields: dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Diff:
    """From A to B."""

    identical: bool
    levels: dict[str, tuple[int, int]]  # level -> number of entries in A and B
    added: tuple[Entry, ...]
    removed: tuple[Entry, ...]
    changed: tuple[Changed, ...]
    renumbered: dict[str, str]  # id in A -> other id of the same entry in B
    encoded_anew: tuple[str, ...]  # ids in B of entries whose title is the same and whose vector is not
    sources: dict[str, tuple[str, ...]]  # "added", "removed", "changed" -> ids of trajectories
    header: dict[str, tuple[Any, Any]]  # "thresholds.tool_min_score" -> (before, after); None: absent


def diff(a: HEK, b: HEK) -> Diff:
    """Compare two HEKs entry by entry; links to children are compared as links, not as ids."""
    pairs = _pairs(a.entries, b.entries)
    before = [a.entries[i] for i in pairs]
    after = [b.entries[j] for j in pairs.values()]
    id_of = {old.id: new.id for old, new in zip(before, after, strict=True)}
    compared = [Changed(old, new, _fields(old, new, id_of)) for old, new in zip(before, after, strict=True)]
    moved_vectors = [
        b.entries[j].id
        for i, j in pairs.items()
        if a.entries[i].title == b.entries[j].title and not np.array_equal(a.vectors_E_D[i], b.vectors_E_D[j])
    ]
    return Diff(
        identical=a.content_hash() == b.content_hash(),
        levels={level: (a.levels[level], b.levels[level]) for level in LEVELS},
        added=_others(b.entries, pairs.values()),
        removed=_others(a.entries, pairs),
        changed=tuple(change for change in compared if change.fields),
        renumbered={old: new for old, new in id_of.items() if old != new},
        encoded_anew=tuple(moved_vectors),
        sources=_sources(a, b),
        header=_header(a, b),
    )


def _pairs(a: Sequence[Entry], b: Sequence[Entry]) -> dict[int, int]:
    """Return which row of A is which row of B, in the order of A."""
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for key in _SAME_ENTRY:
        waiting: dict[Hashable, list[int]] = defaultdict(list)
        for j in reversed(range(len(b))):
            if j not in taken:
                waiting[key(b[j])].append(j)
        for i, entry in enumerate(a):
            if i not in pairs and waiting[key(entry)]:
                pairs[i] = waiting[key(entry)].pop()
                taken.add(pairs[i])
    return dict(sorted(pairs.items()))


def _others(entries: Sequence[Entry], rows: Any) -> tuple[Entry, ...]:
    paired = set(rows)
    return tuple(entry for row, entry in enumerate(entries) if row not in paired)


def _fields(old: Entry, new: Entry, id_of: dict[str, str]) -> dict[str, tuple[Any, Any]]:
    states = {name: (getattr(old, name), getattr(new, name)) for name in _COMPARED}
    # Under the ids of B, where another entry may have the id of a removed one.
    states["children"] = tuple(id_of.get(child, f"{child} (removed)") for child in old.children), new.children
    return {name: pair for name, pair in states.items() if pair[0] != pair[1]}


def _sources(a: HEK, b: HEK) -> dict[str, tuple[str, ...]]:
    before, after = {source.id: source for source in a.sources}, {source.id: source for source in b.sources}
    return {
        "added": tuple(source for source in after if source not in before),
        "removed": tuple(source for source in before if source not in after),
        "changed": tuple(source for source in after if source in before and before[source] != after[source]),
    }


def _header(a: HEK, b: HEK) -> dict[str, tuple[Any, Any]]:
    before, after = _flat(asdict(a.header)), _flat(asdict(b.header))
    keys = [key for key in dict.fromkeys([*before, *after]) if key not in _BOOKKEEPING]
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


_MOST_CHARS = 400  # of a value
_PROSE = ("title", "description", "kind")  # shown in both states; of lists, what came and what went


def diff_text(found: Diff) -> str:
    """Return counts per level, then entries (+ added, - removed, ~ changed), then the header."""
    if found.identical:
        return "identical"
    lines = [", ".join(f"{level.upper()} {_arrow(*counts)}" for level, counts in found.levels.items())]
    lines += [line for entry in found.removed for line in _entry("-", entry)]
    lines += [line for entry in found.added for line in _entry("+", entry)]
    lines += [line for change in found.changed for line in _changed(change)]
    if found.renumbered:
        lines.append(f"{len(found.renumbered)} unchanged in what they are, with another id: {_some(found.renumbered.items())}")
    if found.encoded_anew:
        lines.append(f"{len(found.encoded_anew)} with the same title and another vector: {', '.join(found.encoded_anew[:8])}")
    lines += [f"trajectories {what}: {len(ids)}" for what, ids in found.sources.items() if ids]
    lines += [f"{key}: {_arrow(*pair)}" for key, pair in found.header.items()]
    return "\n".join(lines) if len(lines) > 1 else f"{lines[0]}\nthe same entries and sources in another order"


def _entry(mark: str, entry: Entry) -> list[str]:
    return [f"{mark} {entry.id} [{entry.kind}] {_shown(entry.title)}", f"{mark}    {_shown(entry.description)}"]


def _changed(change: Changed) -> list[str]:
    old, new = change.before, change.after
    lines = [f"~ {old.id if old.id == new.id else f'{old.id} -> {new.id}'} {_shown(new.title)}"]
    for name, (before, after) in change.fields.items():
        if isinstance(before, tuple) and set(before) != set(after):
            lines += [f"   {name}: - {_shown(item)}" for item in before if item not in after]
            lines += [f"   {name}: + {_shown(item)}" for item in after if item not in before]
        elif name in _PROSE:
            lines += [f"   {name}: - {_shown(before)}", f"   {name}: + {_shown(after)}"]
        else:
            lines.append(f"   {name}: {_arrow(before, after)}")
    return lines


def _arrow(before: Any, after: Any) -> str:
    return _shown(before) if before == after else f"{_shown(before)} -> {_shown(after)}"


def _some(pairs: Any, most: int = 4) -> str:
    listed = [f"{old} -> {new}" for old, new in pairs]
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")


def _shown(value: Any) -> str:
    if value is None or value == "" or value == ():
        return "none"
    if isinstance(value, Evidence):
        value = f"{value.what} in {value.trajectory}: {value.quote}"
    if isinstance(value, Plan):
        value = value.sentence
    if isinstance(value, tuple):
        value = ", ".join(map(_shown, value))
    # A HEK from elsewhere may hold anything, and this goes to a terminal.
    return sanitise(str(value), _MOST_CHARS)
