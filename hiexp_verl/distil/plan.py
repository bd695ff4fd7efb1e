"""Plans at the end of E2 made of clusters; `Domain.plan_of` computes those of their cases."""

from collections.abc import Sequence
from dataclasses import replace

from hiexp_verl.distil.draft import fit_with, most_common
from hiexp_verl.masking import LETTER
from hiexp_verl.types import GIVEN, Entry


def with_plans(patterns: Sequence[Entry], cases: Sequence[Entry]) -> list[Entry]:
    """Return the E2 with the plan at their end that most of their cases share.

    A plan for the kind of question in the title comes first; of equally frequent plans, that of the case in the title. An entry
    whose cases have no plan keeps its words; sentences of it make room for a plan where there is not enough.
    """
    by_id = {case.id: case for case in cases}
    planned = []
    for pattern in patterns:
        title = LETTER.sub(GIVEN, pattern.title)
        children = sorted((by_id[child] for child in pattern.children), key=lambda case: case.title not in pattern.title)
        plans = most_common(plan for case in children for plan in case.plans)  # stable, and so is `min`
        plan = min(plans, key=lambda plan: plan.question not in title, default=None)
        if plan is not None:
            pattern = replace(pattern, description=fit_with(pattern.description, plan.sentence), plans=(plan,))
        planned.append(pattern)
    return planned
