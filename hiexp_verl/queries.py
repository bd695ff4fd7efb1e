"""When two queries ask the same, and how far two rollouts searched alike. Pure functions."""

from collections.abc import Sequence

from hiexp_verl.scoring import normalise
from hiexp_verl.words import word_set

_SAME = 0.8  # Jaccard overlap of words from which a query counts as asked again
FUNCTION_WORDS = word_set(
    """
    of in on at to for by from with and or is are was were be been do does did has have had which what who whom whose when where why
    how that this these those it its he she they his her their there as than then vs versus both same first name
    """
)


def content_words(text: str) -> frozenset[str]:
    """Return the normalised words of a text without those that only hold it together."""
    return frozenset(normalise(text).split()) - FUNCTION_WORDS


def same_query(one: str, other: str) -> bool:
    """Whether two queries hold nearly the same words, in whatever order."""
    a, b = content_words(one), content_words(other)
    return bool(a | b) and len(a & b) >= _SAME * len(a | b)


def alike_from_start(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the number of leading queries that ask the same in both."""
    alike = [same_query(a, b) for a, b in zip(one, other, strict=False)]
    return alike.index(False) if False in alike else len(alike)


def repeated(queries: Sequence[str]) -> int:
    """Return how many queries ask the same as an earlier one."""
    return sum(any(same_query(query, earlier) for earlier in queries[:i]) for i, query in enumerate(queries))
