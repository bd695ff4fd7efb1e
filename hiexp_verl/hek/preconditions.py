"""Preconditions of an E1 (`Entry.when`): all of them must hold at a search before the guide shows the entry there.

| precondition | holds where |
| --- | --- |
| `search>=N`, `search<=N` | the search is the episode's N-th, or a later (an earlier) one; a turn makes one search |
| `empty`, `not empty` | the search has found no documents |
| `repeated`, `not repeated` | its query asks the same as an earlier one of the episode |

They are computed from the episode so far. Sources: Steve-Evolving and ReCreate, which let a model judge them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hiexp_verl.errors import HiExpError

_BOUND = re.compile(r"search(>=|<=)([1-9][0-9]{0,2})")
_STATES = ("empty", "repeated")
HELP = "search>=N, search<=N, empty, repeated, 'not empty', 'not repeated'"


@dataclass(frozen=True)
class SearchState:
    """What a search of an episode is."""

    search: int  # its number, from 1
    empty: bool  # it has found no documents
    repeated: bool  # its query asks the same as an earlier one


def check_preconditions(when: Sequence[str]) -> None:
    """Check that these are preconditions.

    Raises:
        HiExpError: one is not.
    """
    for each in when:
        if not _BOUND.fullmatch(each) and each.removeprefix("not ") not in _STATES:
            raise HiExpError(f"{each[:80]!r} is not a precondition; use {HELP}")


def hold(when: Sequence[str], state: SearchState) -> bool:
    """Return whether all preconditions hold; without any they do."""
    return all(_holds(each, state) for each in when)


def _holds(precondition: str, state: SearchState) -> bool:
    if bound := _BOUND.fullmatch(precondition):
        number = int(bound[2])
        return state.search >= number if bound[1] == ">=" else state.search <= number
    name = precondition.removeprefix("not ")
    return getattr(state, name) == (name == precondition)
