"""What a cleaned draft must be before it becomes an entry. Each refusal has a name and is counted."""

import unicodedata
from collections import Counter
from collections.abc import Sequence

from hiexp_verl.build.draft import Draft
from hiexp_verl.build.mask import pattern_of
from hiexp_verl.scoring import normalise

MIN_TITLE_WORDS, MIN_DESCRIPTION_WORDS = 2, 4
COPY = 0.7  # share of common words from which a description is the question once more


def refusal(draft: Draft, question: str, answers: Sequence[str]) -> str:
    """Return why the draft is not admitted, or an empty string.

    Too short: a title that names no situation matches anything, and advice of three words says nothing.
    Copy: the description repeats the question instead of advising. Answer: it survived redaction, in another spelling.
    Language: retrieval compares it with questions of the data, so it must be written in their script.
    """
    words = normalise(draft.description).split()
    if len(normalise(draft.title).split()) < MIN_TITLE_WORDS or len(words) < MIN_DESCRIPTION_WORDS:
        return "too short"
    if repeats(draft.description, question):
        return "copies the question"
    if _tells(f"{draft.title}\n{draft.description}", question, answers):
        return "tells the answer"
    if script_of(draft.description) != script_of(question):
        return "another script than the question's"
    return ""


def repeats(text: str, question: str) -> bool:
    """Whether two texts are made of the same words, for the most part."""
    mine, theirs = set(normalise(text).split()), set(normalise(question).split())
    return len(mine & theirs) >= COPY * len(mine | theirs)


def script_of(text: str) -> str:
    """Return the script of most letters ("LATIN", "CJK", "CYRILLIC", ...), or an empty string for a text without letters."""
    names = Counter(unicodedata.name(letter, "").partition(" ")[0] for letter in text if letter.isalpha())
    return names.most_common(1)[0][0] if names else ""


def _tells(text: str, question: str, answers: Sequence[str]) -> bool:
    given = f" {normalise(question)} "
    telling = [answer for answer in answers if f" {normalise(answer)} " not in given and normalise(answer) not in ("yes", "no", "")]
    return any(pattern_of(answer).search(text) for answer in telling)
