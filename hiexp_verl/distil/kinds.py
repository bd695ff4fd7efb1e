"""Patterns (E2) per kind of question: the searches that worked best for it, by tally over all its rollouts, right and wrong.

The plan of one lucky success may be luck; a plan counts when it solved several questions of its kind.
Computed, so the same with every distiller.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hiexp_verl.distil.draft import Draft
from hiexp_verl.distil.entries import parent
from hiexp_verl.domains.domain import Domain
from hiexp_verl.hek.same_question import text_key
from hiexp_verl.types import GIVEN, MAX_DESCRIPTION_CHARS, MAX_TITLE_CHARS, Entry, Plan, Trajectory


@dataclass
class _Tally:
    """How often the same searches were right and wrong, and on which questions they were right."""

    right: list[Trajectory] = field(default_factory=list)
    wrong: int = 0

    @property
    def questions(self) -> dict[str, str]:
        """Ids of the questions solved, one per text."""
        return {text_key(t.question): t.question_id for t in self.right}

    @property
    def score(self) -> float:
        """How good the plan is, see `tally_score`."""
        return tally_score(len(self.right), self.wrong)


def tally_score(right: int, wrong: int) -> float:
    """Return the mean of the posterior of being right, with a prior of 0.2 right in 1.2 rollouts."""
    return (right + 0.2) / (right + wrong + 1.2)


def patterns_of_kinds(
    trajectories: Sequence[Trajectory], cases: Sequence[Entry], support: int, domain: Domain
) -> tuple[list[Entry], Counter[str]]:
    """Return one E2 per kind of question whose best plan solved at least `support` questions, and the counts of kinds left out.

    The title is the question without its names, the description the plan. Children are the cases of these questions.
    """
    tallies: dict[str, dict[tuple[str, ...], _Tally]] = defaultdict(lambda: defaultdict(_Tally))
    for t in trajectories:
        kind, plan = domain.kind_of(t.question), domain.plan_in(t)
        if GIVEN in kind and plan is not None and GIVEN in plan[0]:
            tally = tallies[kind][plan]
            if t.correct:
                tally.right.append(t)
            else:
                tally.wrong += 1
    patterns, dropped = [], Counter[str]()
    for kind, plans in sorted(tallies.items()):
        supported = [each for each in plans.items() if len(each[1].questions) >= support]
        plan, best = max(supported, key=lambda each: (each[1].score, len(each[1].right)), default=((), None))
        if best is None:
            dropped["e2.no_support"] += 1
        elif len(kind) > MAX_TITLE_CHARS or len(Plan(kind, plan).sentence) > MAX_DESCRIPTION_CHARS:
            dropped["e2.too_long"] += 1
        else:
            patterns.append(_pattern(kind, Plan(kind, plan), best, cases))
    return patterns, dropped


def _pattern(kind: str, plan: Plan, tally: _Tally, cases: Sequence[Entry]) -> Entry:
    questions = tuple(sorted(tally.questions.values()))
    children = [case for case in cases if set(case.questions) & set(questions)]
    above = parent(Draft(kind, plan.sentence, "guide"), "e2", children)
    return replace(
        above,
        hops=(len(plan.searches),),
        plans=(plan,),
        questions=questions,
        sources=tuple(t.id for t in tally.right),
        counters={"right": len(tally.right), "wrong": tally.wrong},
    )
