"""The searches of a success without its names: the part of experience that another question of its kind can follow word for word.

A policy reads in general what to do ("find out the name first") and sees once how ("... shares a land border with").
Computed, never written by a model, and so the same with every distiller.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from hiexp_verl.distil.diagnose import Diagnosis
from hiexp_verl.distil.draft import fit_with, most_common
from hiexp_verl.masking import redact
from hiexp_verl.scoring import normalise
from hiexp_verl.text import content_words, same_query, sanitise
from hiexp_verl.types import Entry, Plan

GIVEN, FOUND = "...", "the name found"  # in the place of a name of the question, and of any other
MOST_SEARCHES = 3
_MOST_CHARS = 80  # of a search
_LETTER = re.compile(r"\b(?:an? |the )?[XYZW]\b")
_NAMES = re.compile(rf"{re.escape(GIVEN)}|{FOUND}")
_QUOTES = re.compile('["\u201c\u201d]')


def plan_of(d: Diagnosis) -> Plan | None:
    """Return the kind of question with the searches of a success, or None where none is a plan for other questions.

    Of several plans the one with the fewest searches; what was asked twice counts once. Searches are a plan when a later one goes
    on from a name that an earlier one found, each says more than a name (but the first, which may look up the one given), and none
    tells the answer, holds a number or is the question once more.
    """
    for queries in d.ways:
        masked: list[str] = []
        for query in (_masked(query, d) for query in queries):
            if not any(query == earlier or same_query(query, earlier) for earlier in masked):
                masked.append(query)
        if len(masked) <= MOST_SEARCHES and any(FOUND in query for query in masked[1:]) and _say_more_than_a_name(masked):
            kind = _LETTER.sub(GIVEN, _QUOTES.sub("", redact(d.kind_of_question, d.answers, d.question)))
            return Plan(sanitise(kind, 1000), tuple(masked))
    return None


def _say_more_than_a_name(masked: Sequence[str]) -> bool:
    return all(content_words(_NAMES.sub("", query)) for query in masked[masked[0] == GIVEN :])


def _masked(query: str, d: Diagnosis) -> str:
    """Return the search without names, or "" when it fits no other question."""
    text = _QUOTES.sub("", sanitise(query, 1000))
    if redact(text, d.answers, d.question) != text or normalise(text) == normalise(d.question):
        return ""
    asked = f" {normalise(d.question)} "
    names = {*d.masker.names(text), *d.masker.names(d.question)}  # those of the question in whatever case
    for name in sorted((name for name in names if normalise(name)), key=len, reverse=True):
        place = GIVEN if f" {normalise(name)} " in asked else FOUND
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", place, text, flags=re.IGNORECASE)
    return "" if len(text) > _MOST_CHARS or re.search(r"\d", text) else text


def with_plans(patterns: Sequence[Entry], cases: Sequence[Entry]) -> list[Entry]:
    """Return the E2 with a plan of their cases at the end: of those for the kind of question in the title that most of them share.

    Where none is for that kind, that which most share. An entry keeps its words where no case has a plan; they give way, sentence
    by sentence, where there is no room for both.
    """
    by_id = {case.id: case for case in cases}
    return [_with_plan(pattern, [by_id[child] for child in pattern.children]) for pattern in patterns]


def _with_plan(pattern: Entry, cases: Sequence[Entry]) -> Entry:
    quoted = sorted(cases, key=lambda case: case.title not in pattern.title)  # `most_common` is stable
    plans = most_common(plan for case in quoted for plan in case.plans)
    title = _LETTER.sub(GIVEN, pattern.title)
    plans.sort(key=lambda plan: plan.question not in title)
    return replace(pattern, description=fit_with(pattern.description, plans[0].sentence)) if plans else pattern
