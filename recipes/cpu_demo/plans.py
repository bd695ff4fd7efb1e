"""Plans on questions of `lay_words`: their searches as they are sent, what each should find, and which plans of a HEK are right."""

from collections.abc import Sequence

from hiexp_verl.hek.store import HEK
from hiexp_verl.masking import kind_of
from hiexp_verl.search import SearchEngine
from hiexp_verl.types import FOUND, GIVEN, Passage, Plan, Question

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
    """Return whether every search of the plan finds its thing."""
    if len(plan.searches) != len(names_of(question)):
        return False
    rankings = search.search(queries_of(plan.searches, question), top_k)
    return all(mention([p for p, _ in ranking], texts) for texts, ranking in zip(wanted_by(question), rankings, strict=True))


def names_of(question: Question) -> tuple[str, ...]:
    """Return what the searches are made with, in order: the name in the question, then the countries found."""
    return (question.meta["name"], *question.meta["bridge"])


def wanted_by(question: Question) -> list[tuple[str, ...]]:
    """Return what each search should find, one of the texts: the countries on the way, then an answer."""
    return [*((country,) for country in question.meta["bridge"]), question.answers]


def queries_of(searches: Sequence[str], question: Question) -> list[str]:
    """Return the searches of a plan for this question as they are sent."""
    return [each.replace(GIVEN, name).replace(FOUND, name) for each, name in zip(searches, names_of(question), strict=True)]


def mention(passages: Sequence[Passage], texts: Sequence[str]) -> bool:
    """Return whether a passage has one of the texts."""
    return any(text in passage.text for text in texts for passage in passages)
