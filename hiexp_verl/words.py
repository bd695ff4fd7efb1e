"""Sets of words, written as text."""

from hiexp_verl.scoring import normalise


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


_SMALL_WORDS = word_set("of in on at to for by from with and is are was were do does did what which who whom whose when where how that")


def main_words(text: str) -> frozenset[str]:
    """Return the normalised words of a question but for the small ones: questions with the same ask the same.

    Queries have more words that tell nothing (`hiexp_verl.queries.content_words`); in a question "first" and "same" do tell.
    """
    return word_set(normalise(text)) - _SMALL_WORDS
