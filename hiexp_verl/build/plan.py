"""The searches of a success without its names: the part of experience that another question of its kind can follow word for word.

A policy is told in general what to do ("find out the name first") and shown once how ("... shares a land border with").
Computed, never written by a model, and so the same with every distiller.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from hiexp_verl.build.diagnose import Diagnosis
from hiexp_verl.build.draft import fit_with, most_common
from hiexp_verl.build.mask import redact
from hiexp_verl.queries import content_words
from hiexp_verl.scoring import normalise
from hiexp_verl.text import sanitise
from hiexp_verl.types import Entry

GIVEN, FOUND = "...", "the name found"  # in the place of a name of the question, and of any other
TAG = "plan:"
MOST_SEARCHES = 3
_MOST_CHARS = 80  # of a search
_LETTER = re.compile(r"\b(?:an? |the )?[XYZW]\b")
_NAMES = re.compile(rf"{re.escape(GIVEN)}|{FOUND}")
_QUOTES = re.compile('["\u201c\u201d]')


def plan_of(d: Diagnosis) -> str:
    """Return a sentence with the searches of the success and the kind of question, or "" where they are no plan for other questions.

    They are one when a later search goes on from a name that an earlier one found, each says more than a name, and none
    tells the answer, holds a number or is the question once more.
    """
    queries = list(dict.fromkeys(d.succeeded.queries)) if d.succeeded is not None else []
    masked = [_masked(query, d) for query in queries]
    if len(masked) > MOST_SEARCHES or not any(FOUND in query for query in masked[1:]):
        return ""
    if not all(content_words(_NAMES.sub("", query)) for query in masked):
        return ""
    kind = _LETTER.sub(GIVEN, _QUOTES.sub("", redact(d.kind_of_question, d.answers, d.question)))
    return plan_sentence(sanitise(kind, 1000), masked)


def plan_sentence(kind: str, searches: Sequence[str]) -> str:
    """Say which searches worked for a kind of question; names in both are `GIVEN` or `FOUND`."""
    steps = ", then ".join(f'"{search}"' for search in searches)
    return f'For "{kind}" these searches worked: {steps}.'


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
    """Return the E2 with the plan that most of their cases share at the end; of equally frequent ones, that of the title's case.

    An entry keeps its words where no case has a plan; they give way, sentence by sentence, where there is no room for both.
    """
    by_id = {case.id: case for case in cases}
    return [_with_plan(pattern, [by_id[child] for child in pattern.children]) for pattern in patterns]


def _with_plan(pattern: Entry, cases: Sequence[Entry]) -> Entry:
    quoted = sorted(cases, key=lambda case: case.title not in pattern.title)  # `most_common` is stable
    plans = most_common(tag.removeprefix(TAG) for case in quoted for tag in case.tags if tag.startswith(TAG))
    return replace(pattern, description=fit_with(pattern.description, plans[0])) if plans else pattern
