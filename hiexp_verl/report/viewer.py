"""The HEK as one HTML page with search, filters and links: opens without a network, holds tens of thousands of entries.

The data are in the page as JSON, and the program (viewer.js) shows them as text only.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from hiexp_verl.hek.provenance import Transcripts, comparisons, excerpt
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.files import atomic_writer
from hiexp_verl.report.html import document, facts, folded, static
from hiexp_verl.types import LEVELS, Entry, Source


def write_viewer(hek: HEK, path: Path, transcripts: Transcripts | None = None, effects: Mapping[str, str] | None = None) -> int:
    """Write the page, atomically, and return its size in bytes; with transcripts, the documents around evidence are in it.

    `effects` has what showing an entry did, by its content id (`ledger.table.effect_text`).

    Raises:
        HiExpError: the transcripts do not fit the evidence.
    """
    # "<" occurs in JSON only within strings: escaped, no text of an entry can end the script element.
    data = json.dumps(_data(hek, transcripts or {}, effects or {}), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    title = "HEK: " + ", ".join(f"{hek.levels[level]:,} {level.upper()}" for level in reversed(LEVELS))
    body = static("viewer.html", title=title, facts=folded("How it was made", facts(_facts(hek))))
    page = document("HEK", body, "viewer.css", "viewer.js", data)
    content = page.encode("utf-8", "replace")
    with atomic_writer(path) as file:
        file.write(content.decode())
    return len(content)


def _data(hek: HEK, transcripts: Transcripts, effects: Mapping[str, str]) -> dict[str, Any]:
    """Return what the page shows. Texts that recur stand once; entries, sources, questions and tags refer by index."""
    asked = {source.question_id: source.question for source in hek.sources}
    rows = {
        "entry": _numbers(entry.id for entry in hek.entries),
        "source": _numbers(source.id for source in hek.sources),
        "question": _numbers(chain(asked, *(entry.questions for entry in hek.entries))),
        "tag": _numbers(chain(*map(_labels, hek.entries))),
        "model": _numbers(source.model for source in hek.sources),
    }
    by_id = {source.id: source for source in hek.sources}
    return {
        "questions": [[question, asked.get(question, "")] for question in rows["question"]],
        "tags": list(rows["tag"]),
        "models": list(rows["model"]),
        # Whether it was right says its side of the comparison.
        "sources": [[s.id, rows["question"][s.question_id], rows["model"][s.model], s.prediction, s.queries] for s in hek.sources],
        "entries": [_entry(entry, by_id, rows, transcripts, effects.get(entry.content_id, "")) for entry in hek.entries],
    }


def _labels(entry: Entry) -> tuple[str, ...]:
    return (*entry.labels, *(f"plan:{plan.sentence}" for plan in entry.plans))


def _numbers(names: Iterable[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def _facts(hek: HEK) -> dict[str, str]:
    header = hek.header
    return {
        "distiller": header.distiller or "unknown",
        "policies": ", ".join(header.models) or "unknown",
        "encoder": f"{header.encoder.name} ({header.encoder.dimensions} dimensions)",
        "thresholds": ", ".join(f"{name} {value:g}" for name, value in sorted(header.thresholds.items())) or "none",
        "content hash": header.content_hash[:16] or "not saved",
    }


def _entry(
    entry: Entry, by_id: dict[str, Source], rows: dict[str, dict[str, int]], transcripts: Transcripts, effect: str
) -> dict[str, Any]:
    """Fields as in `Entry`, empty ones left out; comparisons as [failure, success, differing step], -1 for none."""
    fields = {
        "id": entry.id,
        "level": LEVELS.index(entry.level),
        "title": entry.title,
        "description": entry.description,
        "kind": entry.kind,
        "tags": [rows["tag"][tag] for tag in _labels(entry)],
        "counters": entry.counters,
        "when": entry.when,
        "effect": effect,
        "children": [rows["entry"][child] for child in entry.children],
        "questions": [rows["question"][question] for question in entry.questions],
        "comparisons": [
            [*(rows["source"][side.id] if side else -1 for side in (c.failure, c.success)), -1 if c.differ_at is None else c.differ_at]
            for c in comparisons(entry, by_id)
        ],
        "others": [source for source in entry.sources if source not in by_id],
        "evidence": [
            asdict(evidence) | ({"excerpt": asdict(found)} if (found := excerpt(evidence, transcripts)) else {})
            for evidence in entry.evidence
        ],
    }
    return {name: value for name, value in fields.items() if value or name == "level"}
