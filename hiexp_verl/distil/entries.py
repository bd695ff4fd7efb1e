"""Drafts become entries: numbered, linked to where they come from, near-duplicates merged."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hiexp_verl.distil.diagnose import Diagnosis
from hiexp_verl.distil.draft import Draft, Value, most_common
from hiexp_verl.distil.plan import plan_of
from hiexp_verl.models.encoder import Encoder
from hiexp_verl.types import Entry, Level

# Fields that two near-duplicates bring together.
_UNITED = ("findings", "shapes", "asked_for", "bridges", "hops", "plans", "tags", "children", "questions", "sources", "evidence")


def case(draft: Draft, d: Diagnosis) -> Entry:
    """Make an E1 of a draft (its id comes with `number`)."""
    sources = [side.trajectory_id for side in (d.succeeded, d.failed) if side is not None]
    plan = plan_of(d)
    return Entry(
        id="",
        level="e1",
        title=draft.title,
        description=draft.description,
        kind=draft.kind,
        findings=(d.finding,),
        shapes=(d.shape,),
        asked_for=(d.asked_for,),
        bridges=(d.bridge_kind,) if d.bridge_kind else (),
        hops=(len(plan.searches),) if plan else (),
        plans=(plan,) if plan else (),
        tags=tuple(f"also:{finding}" for finding in d.also),
        questions=(d.question_id,),
        sources=tuple(sources),
        evidence=d.evidence,
    )


def parent(draft: Draft, level: Level, children: Sequence[Entry]) -> Entry:
    """Make an E2 or E3 of a draft, with the questions and rollouts of all its children."""
    return Entry(
        id="",
        level=level,
        title=draft.title,
        description=draft.description,
        kind=draft.kind,
        findings=_two_most_common(child.findings for child in children),
        shapes=_two_most_common(child.shapes for child in children),
        asked_for=_two_most_common(child.asked_for for child in children),
        bridges=_two_most_common(child.bridges for child in children),
        hops=_two_most_common(child.hops for child in children),
        children=tuple(child.id for child in children),
        questions=_union(child.questions for child in children),
        sources=_union(child.sources for child in children),
    )


def merge_near_duplicates(entries: Sequence[Entry], encoder: Encoder, title_cosine: float, description_cosine: float) -> list[Entry]:
    """Return the entries with near-duplicates merged: same number of hops, title and description at least that similar.

    Each entry goes into the first kept one that it matches. That one keeps its words; the origins of both are united. The hops count
    because an encoder barely tells "the currency of the country whose capital is X" from "... that borders the country whose capital is X".
    """
    if not entries:
        return []
    titles_E_D = encoder.encode_passages([entry.title for entry in entries])
    descriptions_E_D = encoder.encode_passages([entry.description for entry in entries])
    # Rows of what is kept stay packed at the front, so that each comparison is one product without a copy.
    kept_titles_E_D, kept_descriptions_E_D = np.empty_like(titles_E_D), np.empty_like(descriptions_E_D)
    hops_E = hops_of(entries)
    kept_hops_E = np.empty_like(hops_E)
    kept: list[Entry] = []
    for row, entry in enumerate(entries):
        same_title_K = kept_titles_E_D[: len(kept)] @ titles_E_D[row] >= title_cosine
        close_K = same_title_K & (kept_descriptions_E_D[: len(kept)] @ descriptions_E_D[row] >= description_cosine)
        close_K &= kept_hops_E[: len(kept)] == hops_E[row]
        if close_K.any():
            twin = int(np.argmax(close_K))
            kept[twin] = united(kept[twin], entry)
        else:
            kept_titles_E_D[len(kept)], kept_descriptions_E_D[len(kept)] = titles_E_D[row], descriptions_E_D[row]
            kept_hops_E[len(kept)] = hops_E[row]
            kept.append(entry)
    return kept


def hops_of(entries: Sequence[Entry]) -> NDArray[np.int64]:
    """Return how many searches the plan of each entry has, (E,); 0 where it has none."""
    return np.array([(*entry.hops, 0)[0] for entry in entries], dtype=np.int64)


def number(entries: Sequence[Entry], level: Level) -> list[Entry]:
    """Give ids in order: e1-0001, e1-0002, ..."""
    width = max(4, len(str(len(entries))))
    return [replace(entry, id=f"{level}-{n:0{width}d}") for n, entry in enumerate(entries, start=1)]


def united(a: Entry, b: Entry) -> Entry:
    """Return `a` with what `b` rests on; its words stay."""
    return replace(
        a,
        **{name: _union((getattr(a, name), getattr(b, name))) for name in _UNITED},
        counters={**a.counters, "merged": a.counters.get("merged", 0) + b.counters.get("merged", 0) + 1},
    )


def _two_most_common(groups: Iterable[tuple[Value, ...]]) -> tuple[Value, ...]:
    return tuple(most_common(value for group in groups for value in group)[:2])


def _union(groups: Iterable[tuple[Value, ...]]) -> tuple[Value, ...]:
    return tuple(dict.fromkeys(item for group in groups for item in group))
