"""Drafts become entries: numbered, linked to where they come from, near-duplicates merged."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hiexp_verl.distil.diagnose import Diagnosis
from hiexp_verl.distil.draft import Draft
from hiexp_verl.distil.plan import TAG, hops, plan_of
from hiexp_verl.distil.rules import tag_values, tags_of
from hiexp_verl.masking import with_article
from hiexp_verl.models.encoder import Encoder
from hiexp_verl.types import Entry, Level


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
        tags=(*tags_of(d), *([f"hops:{hops(plan)}", TAG + plan] if plan else [])),
        preconditions=preconditions_of(d),
        questions=(d.question_id,),
        sources=tuple(sources),
        evidence=d.evidence,
    )


_SHAPE_IS = {
    "compare": "the question compares things",
    "common": "the question asks what things share",
    "verify": "the question is answered with yes or no",
    "indirect": "the question describes something without naming it",
    "direct": "the question asks for one fact about something named",
}


def preconditions_of(d: Diagnosis) -> tuple[str, ...]:
    """Return what must hold of a question for advice from this diagnosis to apply."""
    return (_SHAPE_IS[d.shape], *([f"{with_article(d.bridge_kind)} must be found first"] if d.bridge_kind else []))


def parent(draft: Draft, level: Level, children: Sequence[Entry]) -> Entry:
    """Make an E2 or E3 of a draft, with the questions and rollouts of all its children."""
    return Entry(
        id="",
        level=level,
        title=draft.title,
        description=draft.description,
        kind=draft.kind,
        tags=tuple(
            f"{name}:{value}" for name in ("finding", "shape", "asked", "bridge", "hops") for value in tag_values(children, name)[:2]
        ),
        preconditions=_held_by_most(children),
        children=tuple(child.id for child in children),
        questions=_union(child.questions for child in children),
        sources=_union(child.sources for child in children),
    )


def _held_by_most(children: Sequence[Entry]) -> tuple[str, ...]:
    counts = Counter(precondition for child in children for precondition in child.preconditions)
    return tuple(precondition for precondition, count in counts.items() if 2 * count > len(children))


def merge(entries: Sequence[Entry], encoder: Encoder, title_cosine: float, description_cosine: float) -> list[Entry]:
    """Merge each entry into the first one before it of as many hops whose title and description are at least that similar.

    An encoder barely tells "the currency of the country whose capital is X" from "... that borders the country whose capital is X".
    The first keeps its words and preconditions; children, questions, rollouts, evidence and tags are united, and counted as merged.
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
    return np.array([int((tag_values([entry], "hops") or ["0"])[0]) for entry in entries], dtype=np.int64)


def number(entries: Sequence[Entry], level: Level) -> list[Entry]:
    """Give ids in order: e1-0001, e1-0002, ..."""
    width = max(4, len(str(len(entries))))
    return [replace(entry, id=f"{level}-{n:0{width}d}") for n, entry in enumerate(entries, start=1)]


def united(a: Entry, b: Entry) -> Entry:
    """Return `a` with what `b` rests on; its words stay."""
    return replace(
        a,
        tags=_union((a.tags, b.tags)),
        children=_union((a.children, b.children)),
        questions=_union((a.questions, b.questions)),
        sources=_union((a.sources, b.sources)),
        evidence=tuple(dict.fromkeys((*a.evidence, *b.evidence))),
        counters={**a.counters, "merged": a.counters.get("merged", 0) + b.counters.get("merged", 0) + 1},
    )


def _union(groups: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item for group in groups for item in group))
