"""What each token that a policy wrote belongs to: a query, its answer, or thought."""

import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from hiexp_verl.protocol import CALL_CLOSE, CALL_OPEN, SEARCH_CLOSE, SEARCH_OPEN
from hiexp_verl.scoring import ANSWER_CLOSE, ANSWER_OPEN

KINDS = ("thought", "query", "answer")  # the number of a kind is its place
_QUERY = "|".join(f"{opening}.*?(?:{closing}|$)" for opening, closing in ((SEARCH_OPEN, SEARCH_CLOSE), (CALL_OPEN, CALL_CLOSE)))
_MARKED = re.compile(rf"(?P<query>{_QUERY})|(?P<answer>{ANSWER_OPEN}.*?(?:{ANSWER_CLOSE}|$))", re.DOTALL)


def kinds_of(pieces: Sequence[str]) -> list[int]:
    """Return the kind of each token of one turn; tags belong to what they enclose, in either dialect.

    Args:
        pieces: the text of each token by itself. Tags are ASCII, which no tokenizer splits within a character.
    """
    text, starts = "".join(pieces), list(accumulate(map(len, pieces), initial=0))[:-1]
    kinds = [0] * len(pieces)
    for found in _MARKED.finditer(text):
        # A token belongs to what its first character stands in.
        first, last = (bisect_left(starts, place) for place in found.span())
        kinds[first:last] = [KINDS.index(found.lastgroup or "thought")] * (last - first)
    return kinds
