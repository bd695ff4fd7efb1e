"""A difference of two HEKs, as a person reads it."""

from typing import Any

from hiexp_verl.hek.diff import Changed, Diff
from hiexp_verl.text import sanitise
from hiexp_verl.types import Entry, Evidence

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
    if isinstance(value, tuple):
        value = ", ".join(map(_shown, value))
    # A HEK from elsewhere may hold anything, and this goes to a terminal.
    return sanitise(str(value), _MOST_CHARS)
