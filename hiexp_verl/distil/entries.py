"""Drafts become entries: cases (E1) of the drafts that pass, parents of summaries; numbered, near-duplicates merged."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiexp_verl.distil.draft import Draft, Value, clean, most_common
from hiexp_verl.distil.rules import advice_for
from hiexp_verl.distil.validate import admit, closer_than_chance, is_advice
from hiexp_verl.domains.diagnosis import Diagnosis
from hiexp_verl.domains.domain import Domain
from hiexp_verl.models.encoder import Encoder
from hiexp_verl.types import Entry, Level

# Cosines of titles and of descriptions from which entries of a level are near-duplicates.
NEAR: dict[Level, tuple[float, float]] = {"e1": (0.9, 0.9), "e2": (-1.0, 0.95), "e3": (-1.0, 0.85)}
# Fields that two near-duplicates unite.
_UNITED = ("findings", "shapes", "asked_for", "bridges", "hops", "plans", "tags", "children", "questions", "sources", "evidence")
Drafts = Sequence[tuple[Draft, Diagnosis]]


def cases_of(
    diagnoses: Sequence[Diagnosis], drafts: Sequence[Draft | None], encoder: Encoder, domain: Domain, preconditions: bool = False
) -> tuple[list[Entry], Counter[str]]:
    """Return the E1 of the drafts that pass the gates, and the counts of what was left out; of None the distiller counts the reasons.

    With `preconditions`, an E1 has those of the rule for its diagnosis.
    """
    dropped: Counter[str] = Counter()
    admitted: list[tuple[Draft, Diagnosis]] = []
    for diagnosis, draft in zip(diagnoses, drafts, strict=True):
        # Of every distiller: a template has words of the question, too.
        result = admit(draft, diagnosis, domain) if draft is not None else None
        if isinstance(result, Draft):
            # The kind is computed: models call every draft a guide. So is where it is shown.
            rule = advice_for(diagnosis, domain)
            admitted.append((replace(result, kind=rule.kind, when=rule.when if preconditions else ()), diagnosis))
        elif result is not None:
            dropped[f"e1.{result}"] += 1
    fitting = _with_fitting_titles(_specific(admitted, encoder, dropped, domain), encoder, dropped, domain)
    written = [case(draft, diagnosis, domain) for draft, diagnosis in fitting]
    merged = merge_near_duplicates(written, encoder)
    dropped["e1.near_duplicate"] += len(written) - len(merged)
    return number(merged, "e1"), dropped


def _specific(drafts: Drafts, encoder: Encoder, dropped: Counter[str], domain: Domain) -> Drafts:
    """Return the drafts whose advice is specific to their diagnosis: see `closer_than_chance`, with the rules' advice as target."""
    advice_N_D = encoder.encode_passages([draft.description for draft, _ in drafts])
    target_N_D = encoder.encode_passages([advice_for(d, domain).description for _, d in drafts])
    kept = [each for each, fits in zip(drafts, closer_than_chance(advice_N_D, target_N_D), strict=True) if fits]
    dropped["e1.lost_point"] += len(drafts) - len(kept)
    return kept


def _with_fitting_titles(drafts: Drafts, encoder: Encoder, dropped: Counter[str], domain: Domain) -> Drafts:
    """Replace each title that fits other questions as well, or is advice, by the kind of question, which is computed."""
    titled = ((replace(draft, title=d.kind_of_question), draft, d) for draft, d in drafts)
    kinds = [clean(kind, d.masker, d.answers, d.question, domain.redact) or draft for kind, draft, d in titled]
    titles_N_D = encoder.encode_passages([draft.title for draft, _ in drafts])
    kinds_N_D = encoder.encode_passages([kind.title for kind in kinds])
    fitting: list[tuple[Draft, Diagnosis]] = []
    for (draft, d), kind, fits in zip(drafts, kinds, closer_than_chance(titles_N_D, kinds_N_D), strict=True):
        keeps = bool(fits) and not is_advice(draft)
        fitting.append((draft if keeps else kind, d))
        dropped["e1.title_replaced"] += not keeps
    return fitting


def case(draft: Draft, d: Diagnosis, domain: Domain) -> Entry:
    """Return the E1 of a draft (its id comes with `number`)."""
    plan = domain.plan_of(d)
    return Entry(
        id="",
        level="e1",
        title=draft.title,
        description=draft.description,
        kind=draft.kind,
        when=draft.when,
        findings=(d.finding,),
        shapes=(d.shape,),
        asked_for=(d.asked_for,),
        bridges=(d.bridge_kind,) if d.bridge_kind else (),
        hops=(len(plan.searches),) if plan else (),
        plans=(plan,) if plan else (),
        tags=tuple(f"also:{finding}" for finding in d.also),
        questions=(d.question_id,),
        sources=tuple(side.trajectory_id for side in (d.succeeded, d.failed) if side is not None),
        evidence=d.evidence,
    )


def parent(draft: Draft, level: Level, children: Sequence[Entry], tags: tuple[str, ...] = ()) -> Entry:
    """Return the E2 or E3 of a draft, with the two most common values of its children, and all their questions and rollouts."""

    def shared(name: str) -> tuple[Any, ...]:
        return tuple(most_common(value for child in children for value in getattr(child, name))[:2])

    return Entry(
        id="",
        level=level,
        title=draft.title,
        description=draft.description,
        kind=draft.kind,
        findings=shared("findings"),
        shapes=shared("shapes"),
        asked_for=shared("asked_for"),
        bridges=shared("bridges"),
        hops=shared("hops"),
        tags=tags,
        children=tuple(child.id for child in children),
        questions=_union(child.questions for child in children),
        sources=_union(child.sources for child in children),
    )


def merge_near_duplicates(entries: Sequence[Entry], encoder: Encoder) -> list[Entry]:
    """Return entries of one level with near-duplicates merged: as similar as `NEAR`, with the same number of hops.

    Each entry goes into the first kept one that it matches. That one keeps its words; the origins of both are united. The hops count
    because an encoder barely tells "the currency of the country whose capital is X" from "... that borders the country whose capital is X".
    """
    if not entries:
        return []
    title_cosine, description_cosine = NEAR[entries[0].level]
    titles_E_D = np.array(encoder.encode_passages([entry.title for entry in entries]))
    descriptions_E_D = np.array(encoder.encode_passages([entry.description for entry in entries]))
    hops_E = hops_of(entries)
    kept: list[Entry] = []  # their rows are moved to the front, so that each comparison is one product without a copy
    for row, entry in enumerate(entries):
        count = len(kept)
        close_K = (titles_E_D[:count] @ titles_E_D[row] >= title_cosine) & (hops_E[:count] == hops_E[row])
        close_K &= descriptions_E_D[:count] @ descriptions_E_D[row] >= description_cosine
        if close_K.any():
            first = int(np.argmax(close_K))
            kept[first] = united(kept[first], entry)
        else:
            for each in (titles_E_D, descriptions_E_D, hops_E):
                each[count] = each[row]
            kept.append(entry)
    return kept


def hops_of(entries: Sequence[Entry]) -> NDArray[np.int64]:
    """Return the number of searches in the plan of each entry, (E,); 0 without a plan."""
    return np.array([(*entry.hops, 0)[0] for entry in entries], dtype=np.int64)


def number(entries: Sequence[Entry], level: Level) -> list[Entry]:
    """Return the entries with ids in order: e1-0001, e1-0002, ..."""
    width = max(4, len(str(len(entries))))
    return [replace(entry, id=f"{level}-{n:0{width}d}") for n, entry in enumerate(entries, start=1)]


def united(a: Entry, b: Entry) -> Entry:
    """Return `a` with what `b` rests on; its words stay."""
    return replace(
        a,
        **{name: _union((getattr(a, name), getattr(b, name))) for name in _UNITED},
        counters={**a.counters, "merged": a.counters.get("merged", 0) + b.counters.get("merged", 0) + 1},
    )


def _union(groups: Iterable[tuple[Value, ...]]) -> tuple[Value, ...]:
    return tuple(dict.fromkeys(item for group in groups for item in group))
