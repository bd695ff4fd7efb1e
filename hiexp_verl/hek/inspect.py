"""The HEK as text: a tree of what it holds, and one entry with everything that is known about it."""

from hiexp_verl.hek.store import HEK
from hiexp_verl.types import LEVELS, Entry

_INDENT = {"e3": "", "e2": "  ", "e1": "    "}


def inspect_hek(hek: HEK) -> str:
    """Return header facts and the tree E3 > E2 > E1; entries that no parent summarises follow their level."""
    header, counts = hek.header, hek.levels
    lines = [
        f"HEK of {sum(counts.values())} entries: " + ", ".join(f"{counts[level]} {level.upper()}" for level in reversed(LEVELS)),
        f"encoder {header.encoder.name} ({header.encoder.dimensions} dimensions), distiller {header.distiller or 'unknown'}",
        "thresholds: " + (", ".join(f"{name} {value:g}" for name, value in sorted(header.thresholds.items())) or "none"),
        "",
    ]
    by_id = {entry.id: entry for entry in hek.entries}
    with_parent = {child for entry in hek.entries for child in entry.children}
    for level in reversed(LEVELS):
        for entry in hek.entries:
            if entry.level == level and entry.id not in with_parent:
                _tree(entry, by_id, lines)
    return "\n".join(lines)


def inspect_entry(hek: HEK, entry_id: str) -> str:
    """Return all fields of one entry, its parents and children.

    Raises:
        HiExpError: there is no such entry.
    """
    entry = hek.entry(entry_id)
    parents = [other for other in hek.entries if entry_id in other.children]
    lines = [f"{entry.id} ({entry.level.upper()}, {entry.kind})", f"title:       {entry.title}", f"description: {entry.description}"]
    lines += [f"tags:        {', '.join(entry.tags) or 'none'}"]
    lines += [f"parent:      {parent.id} {parent.title}" for parent in parents]
    lines += [f"child:       {child} {hek.entry(child).title}" for child in entry.children]
    lines += [f"questions:   {len(entry.questions)}: {_some(entry.questions)}"]
    lines += [f"rollouts:    {len(entry.sources)}: {_some(entry.sources)}"]
    return "\n".join(lines)


def _tree(entry: Entry, by_id: dict[str, Entry], lines: list[str]) -> None:
    indent = _INDENT[entry.level]
    lines += [f"{indent}{entry.id} [{entry.kind}] {entry.title}", f"{indent}   {entry.description}"]
    for child in entry.children:
        _tree(by_id[child], by_id, lines)


def _some(ids: tuple[str, ...], most: int = 8) -> str:
    return ", ".join(ids[:most]) + (", ..." if len(ids) > most else "") if ids else "none"
