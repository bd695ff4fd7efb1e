"""Plans: the searches of a success without its names, which another question of its kind can follow word for word.

Advice says what to do ("find out the name first"), a plan shows how ("... shares a land border with"). Computed, so it is the
same with every distiller.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from hiexp_verl.distil.diagnose import Diagnosis
from hiexp_verl.distil.draft import fit_with, most_common
from hiexp_verl.masking import Masker, redact
from hiexp_verl.scoring import normalise
from hiexp_verl.text import content_words, same_query, sanitise
from hiexp_verl.types import FOUND, GIVEN, Entry, Plan

MOST_SEARCHES = 3
_MOST_CHARS = 80  # of a search
_LETTER = re.compile(r"\b(?:an? |the )?[XYZW]\b")
_NAMES = re.compile(rf"{re.escape(GIVEN)}|{FOUND}")
_POSSESSIVE = re.compile("['\u2019]s\\b")
_QUOTES = re.compile('["\u201c\u201d]')


def plan_of(d: Diagnosis) -> Plan | None:
    """Return the kind of question with the searches of a success, or None where none is a plan for other questions.

    Of several plans the one with the fewest searches.
    """
    for queries in d.ways:
        searches = masked_searches(queries, d.question, d.answers, d.masker)
        if searches is not None:
            kind = _LETTER.sub(GIVEN, _QUOTES.sub("", redact(d.kind_of_question, d.answers, d.question)))
            return Plan(sanitise(kind, 1000), searches)
    return None


def masked_searches(queries: Sequence[str], question: str, answers: Sequence[str], masker: Masker) -> tuple[str, ...] | None:
    """Return the searches of an episode without names, repeated ones once; None where they are no plan for other questions.

    Searches are a plan when a later one uses a name that an earlier one found, each says more than a name (but the first, which may
    look up the one given), and none has the answer or a number or repeats the question.
    """
    masked: list[str] = []
    for query in (_masked(query, question, answers, masker) for query in queries):
        if not any(query == earlier or same_query(query, earlier) for earlier in masked):
            masked.append(query)
    if len(masked) <= MOST_SEARCHES and any(FOUND in query for query in masked[1:]):
        more_than_names = masked[1:] if masked[0] == GIVEN else masked
        if all(content_words(_NAMES.sub("", query)) for query in more_than_names):
            return tuple(masked)
    return None


def _masked(query: str, question: str, answers: Sequence[str], masker: Masker) -> str:
    """Return the search without names, or "" when it fits no other question."""
    text = _QUOTES.sub("", sanitise(query, 1000))
    if redact(text, answers, question) != text or normalise(text) == normalise(question):
        return ""
    asked = f" {normalise(_POSSESSIVE.sub('', question))} "
    names = {*masker.names(text), *masker.names(question)}  # those of the question in whatever case
    for name in sorted((name for name in names if normalise(name)), key=len, reverse=True):
        place = GIVEN if f" {normalise(name)} " in asked else FOUND
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", place, text, flags=re.IGNORECASE)
    return "" if len(text) > _MOST_CHARS or re.search(r"\d", text) else text


def with_plans(patterns: Sequence[Entry], cases: Sequence[Entry]) -> list[Entry]:
    """Return the E2 with the plan at their end that most of their cases share.

    A plan for the kind of question in the title comes first; of equally frequent plans, that of the case in the title. An entry
    whose cases have no plan keeps its words; sentences of it make room for a plan where there is not enough.
    """
    by_id = {case.id: case for case in cases}
    planned = []
    for pattern in patterns:
        title = _LETTER.sub(GIVEN, pattern.title)
        children = sorted((by_id[child] for child in pattern.children), key=lambda case: case.title not in pattern.title)
        plans = most_common(plan for case in children for plan in case.plans)  # stable, and so is `min`
        plan = min(plans, key=lambda plan: plan.question not in title, default=None)
        if plan is not None:
            pattern = replace(pattern, description=fit_with(pattern.description, plan.sentence), plans=(plan,))
        planned.append(pattern)
    return planned
