"""What changed between two HEKs: entries, levels, header; as data and as text."""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from operator import attrgetter
from typing import Any

from hiexp_verl.hek.store import HEK
from hiexp_verl.text import listed, sanitise
from hiexp_verl.types import LEVELS, Entry, Evidence, Plan

# Ids are positions and shift from build to build, so words and origin come first. Each entry of A is paired with the first
# unpaired one of B that is equal in everything, else in all of these; what one line leaves goes to the next.
_SAME_ENTRY = (
    attrgetter("level", "title", "description", "id"),
    attrgetter("level", "title", "description"),
    attrgetter("level", "title", "id"),
    attrgetter("level", "description", "id"),
    attrgetter("level", "questions", "id"),  # both texts were rewritten
    attrgetter("level", "title"),
)
_UNORDERED = ("children", "questions", "sources", "tags")  # their order has no meaning


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
    sources: dict[str, tuple[str, ...]]  # "added", "removed", "changed" -> ids of trajectories
    header: dict[str, tuple[Any, Any]]  # "thresholds.tool_min_score" -> (before, after); None: absent


def diff(a: HEK, b: HEK) -> Diff:
    """Compare two HEKs entry by entry; links to children are compared as links, not as ids."""
    rows = _pairs(a.entries, b.entries)
    found = set(rows.values())
    pairs = [(a.entries[i], b.entries[j]) for i, j in rows.items()]
    id_of = {old.id: new.id for old, new in pairs}
    compared = [Changed(old, new, _fields(old, new, id_of)) for old, new in pairs]
    return Diff(
        identical=a.content_hash() == b.content_hash(),
        levels={level: (a.levels[level], b.levels[level]) for level in LEVELS},
        added=tuple(entry for row, entry in enumerate(b.entries) if row not in found),
        removed=tuple(entry for row, entry in enumerate(a.entries) if row not in rows),
        changed=tuple(change for change in compared if change.fields),
        renumbered={old: new for old, new in id_of.items() if old != new},
        sources=_sources(a, b),
        header=_header(a, b),
    )


def _pairs(a: Sequence[Entry], b: Sequence[Entry]) -> dict[int, int]:
    """Return which row of A is which row of B, in the order of A."""
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for key in (_content, *_SAME_ENTRY):
        waiting: dict[Hashable, list[int]] = defaultdict(list)
        for j in reversed(range(len(b))):
            if j not in taken:
                waiting[key(b[j])].append(j)
        for i, entry in enumerate(a):
            if i not in pairs and waiting[key(entry)]:
                pairs[i] = waiting[key(entry)].pop()
                taken.add(pairs[i])
    return dict(sorted(pairs.items()))


def _content(entry: Entry) -> str:
    """Return all that an entry holds beside ids of entries."""
    return repr({name: _ordered(name, value) for name, value in vars(entry).items() if name not in ("id", "children")})


def _ordered(name: str, value: Any) -> Any:
    return sorted(value) if name in _UNORDERED else value


def _fields(old: Entry, new: Entry, id_of: dict[str, str]) -> dict[str, tuple[Any, Any]]:
    states = {each.name: (getattr(old, each.name), getattr(new, each.name)) for each in fields(Entry) if each.name not in ("id", "level")}
    # Under the ids of B, where another entry may have the id of a removed one.
    states["children"] = tuple(id_of.get(child, f"{child} (removed)") for child in old.children), new.children
    return {name: pair for name, pair in states.items() if _ordered(name, pair[0]) != _ordered(name, pair[1])}


def _sources(a: HEK, b: HEK) -> dict[str, tuple[str, ...]]:
    before, after = {source.id: source for source in a.sources}, {source.id: source for source in b.sources}
    return {
        "added": tuple(source for source in after if source not in before),
        "removed": tuple(source for source in before if source not in after),
        "changed": tuple(source for source in after if source in before and before[source] != after[source]),
    }


def _header(a: HEK, b: HEK) -> dict[str, tuple[Any, Any]]:
    before, after = _flat(asdict(a.header)), _flat(asdict(b.header))
    keys = dict.fromkeys(key for key in (*before, *after) if key != "content_hash")  # that differs with anything else
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


_MOST_CHARS = 400  # of a value


def diff_text(found: Diff) -> str:
    """Return counts per level, then entries (+ added, - removed, ~ changed), then the header."""
    if found.identical:
        return "identical"
    lines = [", ".join(f"{level.upper()} {_arrow(*counts)}" for level, counts in found.levels.items())]
    for mark, entries in (("-", found.removed), ("+", found.added)):
        for entry in entries:
            lines += [f"{mark} {entry.id} [{entry.kind}] {_shown(entry.title)}", f"{mark}    {_shown(entry.description)}"]
    lines += [line for change in found.changed for line in _changed(change)]
    if found.renumbered:
        lines.append(f"{len(found.renumbered)} with another id: {listed([f'{old} -> {new}' for old, new in found.renumbered.items()])}")
    lines += [f"trajectories {what}: {len(ids)}" for what, ids in found.sources.items() if ids]
    lines += [f"{key}: {_arrow(*pair)}" for key, pair in found.header.items()]
    return "\n".join(lines) if len(lines) > 1 else f"{lines[0]}\nthe same entries and sources, in another order or with other vectors"


def _changed(change: Changed) -> Iterator[str]:
    yield f"~ {_arrow(change.before.id, change.after.id)} {_shown(change.after.title)}"
    for name, states in change.fields.items():
        before, after = (state if isinstance(state, tuple) else (state,) for state in states)
        gone, new = [item for item in before if item not in after], [item for item in after if item not in before]
        yield from (f"   {name}: - {_shown(item)}" for item in gone)
        yield from (f"   {name}: + {_shown(item)}" for item in new)
        if not gone and not new:
            yield f"   {name}: in another order"


def _arrow(before: Any, after: Any) -> str:
    return _shown(before) if before == after else f"{_shown(before)} -> {_shown(after)}"


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
