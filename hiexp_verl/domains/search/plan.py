"""Plans: the searches of a success without its names, which another question of its kind can follow word for word.

Advice says what to do ("find out the name first"), a plan shows how ("... shares a land border with"). Computed, so it is the
same with every distiller.
"""

import re
from collections.abc import Sequence

from hiexp_verl.domains.diagnosis import Diagnosis, Masking
from hiexp_verl.masking import LETTER, Masker, redact
from hiexp_verl.protocol import searches
from hiexp_verl.scoring import normalise
from hiexp_verl.text import content_words, same_query, sanitise
from hiexp_verl.types import FOUND, GIVEN, Plan, Trajectory

MOST_SEARCHES = 3
_MOST_CHARS = 80  # of a search
_NAMES = re.compile(rf"{re.escape(GIVEN)}|{FOUND}")
_POSSESSIVE = re.compile("['\u2019]s\\b")
_QUOTES = re.compile('["\u201c\u201d]')


def plan_of(d: Diagnosis) -> Plan | None:
    """Return the kind of question with the searches of a success, or None where none is a plan for other questions.

    Of several plans the one with the fewest searches.
    """
    for queries in d.ways:
        planned = masked_searches(queries, d.question, d.answers, d.masker)
        if planned is not None:
            kind = LETTER.sub(GIVEN, _QUOTES.sub("", redact(d.kind_of_question, d.answers, d.question)))
            return Plan(sanitise(kind, 1000), planned)
    return None


def masked_searches(queries: Sequence[str], question: str, answers: Sequence[str], masker: Masking) -> tuple[str, ...] | None:
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


def _masked(query: str, question: str, answers: Sequence[str], masker: Masking) -> str:
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


def plan_in(t: Trajectory) -> tuple[str, ...] | None:
    """Return the searches of an episode as a plan, None where they are none."""
    found = searches(t.messages)
    return masked_searches([each.query for each in found], t.question, t.answers, Masker(t.question, [each.documents for each in found]))
