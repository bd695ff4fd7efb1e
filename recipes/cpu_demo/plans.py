"""Which plans of a HEK are right: their searches, put for other countries, find what they should."""

from collections.abc import Sequence

from hiexp_verl.hek.store import HEK
from hiexp_verl.masking import kind_of
from hiexp_verl.search import SearchEngine
from hiexp_verl.types import FOUND, GIVEN, Plan, Question

_ASKED = 10  # questions that a plan is tried on


def right_plans(hek: HEK, questions: Sequence[Question], search: SearchEngine, top_k: int) -> dict[str, bool]:
    """Return for each E2 with a plan whether it solves most of the questions of its kind, the first ten; without such, it does not.

    `questions` are of `lay_words`, other ones than those that the HEK was made of.
    """
    by_kind: dict[str, list[Question]] = {}
    for question in questions:
        by_kind.setdefault(kind_of(question.question), []).append(question)
    found = {}
    for entry in hek.entries:
        if entry.level == "e2" and entry.plans:
            asked = by_kind.get(entry.plans[0].question, [])[:_ASKED]
            found[entry.id] = sum(solves(entry.plans[0], question, search, top_k) for question in asked) > len(asked) / 2
    return found


def solves(plan: Plan, question: Question, search: SearchEngine, top_k: int) -> bool:
    """Return whether every search of the plan finds its thing: the countries on the way, then an answer."""
    names, wanted = (question.meta["name"], *question.meta["bridge"]), [*((name,) for name in question.meta["bridge"]), question.answers]
    if len(plan.searches) != len(names):
        return False
    queries = [each.replace(GIVEN, name).replace(FOUND, name) for each, name in zip(plan.searches, names, strict=True)]
    rankings = search.search(queries, top_k)
    return all(
        any(text in passage.text for text in texts for passage, _ in ranking) for texts, ranking in zip(wanted, rankings, strict=True)
    )
