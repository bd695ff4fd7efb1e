"""A HEK as text: the tree of its entries, or one entry with its provenance."""

import textwrap
from collections.abc import Mapping
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

from hiexp_verl.domains import ours
from hiexp_verl.hek.provenance import SideBySide, Transcripts, actions, comparisons, excerpt, most_telling, neighbours, parents_of
from hiexp_verl.hek.store import HEK
from hiexp_verl.text import listed, printable
from hiexp_verl.types import LEVELS, Entry, Evidence, to_json

_INDENT = {"e3": "", "e2": "  ", "e1": "    "}
_MOST = 8  # ids, comparisons or quotes of an entry that are written out; an E3 may rest on hundreds
_MIN_COLUMN = 16  # characters; a narrower terminal breaks the lines


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
    parents = parents_of(hek)
    for level in reversed(LEVELS):
        for entry in hek.entries:
            if entry.level == level and entry.id not in parents:
                _tree(entry, by_id, lines)
    return "\n".join(map(printable, lines))


def inspect_entry(hek: HEK, entry_id: str, transcripts: Transcripts | None = None, width: int = 80, effect: str = "") -> str:
    """Return all fields of one entry, its parents and children, its rollouts side by side and its evidence.

    The columns fit `width` characters. With transcripts, the documents around the evidence are shown. `effect`
    is what showing it did to the reward (`ledger.table`).

    Raises:
        HiExpError: there is no such entry, or the transcripts do not fit its evidence.
    """
    entry = hek.entry(entry_id)
    lines = _fields(hek, entry) + ([f"effect:      {effect}"] if effect else [])
    compared = comparisons(entry, {source.id: source for source in hek.sources})
    domain = ours(hek.header.domain)
    called = domain.action[0] if domain is not None else "action"
    for comparison in compared[:_MOST]:
        lines += ["", *_side_by_side(comparison, width, called)]
    lines += _more(len(compared), "comparisons")
    for evidence in entry.evidence[:_MOST]:
        lines += ["", *_evidence(evidence, transcripts or {}, width)]
    lines += _more(len(entry.evidence), "pieces of evidence")
    return "\n".join(printable(line).rstrip() for line in lines)


def entry_json(hek: HEK, entry_id: str, transcripts: Transcripts | None = None) -> dict[str, Any]:
    """Return the same as a JSON object: the entry's fields, its links, `comparisons`, and per evidence an excerpt or null.

    Raises:
        HiExpError: there is no such entry, or the transcripts do not fit its evidence.
    """
    entry = hek.entry(entry_id)
    excerpts = [excerpt(evidence, transcripts or {}) for evidence in entry.evidence]
    return to_json(entry) | {
        "parents": [parent.id for parent in parents_of(hek).get(entry_id, ())],
        "neighbours": [other.id for other in neighbours(hek, entry)],
        "telling": [list(pair) for pair in _telling(hek, entry)],
        "comparisons": [asdict(c) for c in comparisons(entry, {source.id: source for source in hek.sources})],
        "excerpts": [asdict(found) if found else None for found in excerpts],
    }


def _tree(entry: Entry, by_id: Mapping[str, Entry], lines: list[str]) -> None:
    indent = _INDENT[entry.level]
    lines += [f"{indent}{entry.id} [{entry.kind}] {entry.title}", f"{indent}   {entry.description}"]
    for child in entry.children:
        _tree(by_id[child], by_id, lines)


def _fields(hek: HEK, entry: Entry) -> list[str]:
    lines = [f"{entry.id} ({entry.level.upper()}, {entry.kind})", f"title:       {entry.title}", f"description: {entry.description}"]
    lines += [f"tags:        {', '.join(entry.labels) or 'none'}"]
    lines += [f"shown when:  {' and '.join(entry.when)}"] if entry.when else []
    lines += [f"plan:        {plan.sentence}" for plan in entry.plans]
    lines += [f"counter:     {name} {count}" for name, count in sorted(entry.counters.items())]
    lines += [f"parent:      {parent.id} {parent.title}" for parent in parents_of(hek).get(entry.id, ())]
    lines += [f"neighbour:   {other.id} {other.title}" for other in neighbours(hek, entry)[:_MOST]]
    lines += [f"child:       {child} {hek.entry(child).title}" for child in entry.children]
    lines += [f"telling:     {' beside '.join(pair)}, alike until they part" for pair in _telling(hek, entry)]
    lines += [f"questions:   {len(entry.questions)}: {listed(entry.questions, _MOST) or 'none'}"]
    return [*lines, f"rollouts:    {len(entry.sources)}: {listed(entry.sources, _MOST) or 'none'}"]


def _telling(hek: HEK, entry: Entry) -> list[tuple[str, str]]:
    """Return the ids of the most telling failure and success of an entry that summarises others."""
    found = most_telling(comparisons(entry, {source.id: source for source in hek.sources})) if entry.children else None
    return [(found.failure.id, found.success.id)] if found and found.failure and found.success else []


def _side_by_side(comparison: SideBySide, width: int, called: str) -> list[str]:
    """Return a table of actions, failure left and success right; an arrow marks the first that differs."""
    sides = [side for side in (comparison.failure, comparison.success) if side is not None]
    column = max(_MIN_COLUMN, (width - len("> 99 ") - 3 * (len(sides) - 1)) // len(sides))
    lines = textwrap.wrap(f"question {sides[0].question_id}: {sides[0].question}", width)
    heads = [f"{'success' if side.correct else 'FAILURE'} {side.id}" + (f" ({side.model})" if side.model else "") for side in sides]
    lines += _row("", heads, column)
    lines += ["     " + "-+-".join("-" * column for _ in sides)]
    for number, cells in enumerate(zip_longest(*(actions(side, called) for side in sides))):
        arrow = ">" if number == comparison.differ_at else " "
        lines += _row(f"{arrow} {number + 1}", [f"{cell[0]}: {cell[1] or '(none)'}" if cell else "" for cell in cells], column)
    return lines


def _row(name: str, cells: list[str], column: int) -> list[str]:
    lines = zip_longest(*(textwrap.wrap(cell, column) for cell in cells), fillvalue="")
    return [f"{'' if number else name:<5}" + " | ".join(f"{part:<{column}}" for part in parts) for number, parts in enumerate(lines)]


def _evidence(evidence: Evidence, transcripts: Transcripts, width: int) -> list[str]:
    place = f"characters {evidence.start} to {evidence.end} of message {evidence.message}"
    lines = textwrap.wrap(f"{evidence.what}: {evidence.trajectory}, {place}", width) + _block(f'"{evidence.quote}"', width)
    found = excerpt(evidence, transcripts)
    return lines + (_block(f"{found.before}[[{found.span}]]{found.after}", width) if found else [])


def _block(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 2 * _MIN_COLUMN), initial_indent="  ", subsequent_indent="  ")


def _more(count: int, what: str) -> list[str]:
    return ["", f"... and {count - _MOST} more {what}; --json has all"] if count > _MOST else []
