"""Whether an episode made the searches of a plan that it was shown."""

from collections.abc import Sequence

from hiexp_verl.text import content_words
from hiexp_verl.types import FOUND, GIVEN, Plan

_HALF = 0.5  # of the words of a planned search, names that are not known yet aside: a query is worded anew


def followed(plan: Plan, queries: Sequence[str]) -> bool:
    """Return whether the queries have one for each search of the plan, in its order; others may stand between them."""
    left = iter(queries)
    return all(any(_makes(search, query) for query in left) for search in plan.searches)


def _makes(search: str, query: str) -> bool:
    words = content_words(search.replace(FOUND, " ").replace(GIVEN, " "))
    return len(words & content_words(query)) >= _HALF * len(words)
