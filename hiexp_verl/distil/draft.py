"""What a distiller hands in, before it becomes an entry: cleaned here, whoever wrote it."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from hiexp_verl.masking import Masker, redact
from hiexp_verl.text import sanitise
from hiexp_verl.types import MAX_DESCRIPTION_CHARS, MAX_TITLE_CHARS, Kind

Value = TypeVar("Value", bound=Hashable)


@dataclass(frozen=True)
class Draft:
    """Title, description and kind of an entry to be."""

    title: str
    description: str
    kind: Kind


Value = TypeVar("Value", bound=Hashable)


def clean(draft: Draft, masker: Masker, answers: Sequence[str], question: str) -> Draft | None:
    """Return the draft without control text, names of the episode and answers, within the length caps; None when nothing is left.

    Answers are redacted before names are masked: a masked answer could no longer be recognised.
    """
    title = _fit(masker.mask_known(redact(sanitise(draft.title, 1000), answers, question)), MAX_TITLE_CHARS)
    description = _fit(masker.mask_known(redact(sanitise(draft.description, 2000), answers, question)), MAX_DESCRIPTION_CHARS)
    return Draft(_capital(title), _capital(description), draft.kind) if len(title) > 3 and len(description) > 10 else None


def fit(draft: Draft) -> Draft:
    """Return a draft made of entries that are already clean, within the length caps."""
    return Draft(_fit(draft.title, MAX_TITLE_CHARS), _fit(draft.description, MAX_DESCRIPTION_CHARS), draft.kind)


def fit_with(description: str, sentence: str) -> str:
    """Return the description with the sentence at its end, less as many of its own sentences as that takes.

    Unchanged where the sentence alone is too long.
    """
    room = MAX_DESCRIPTION_CHARS - len(sentence) - 1
    if room < -1:
        return description
    kept = description if len(description) <= room else description[: description.rfind(". ", 0, max(room, 0) + 1) + 1]
    return f"{kept} {sentence}".strip()


def most_common(values: Iterable[Value]) -> list[Value]:
    """Return the distinct values, most frequent first, ties in the order of appearance."""
    return [value for value, _ in Counter(values).most_common()]


def _fit(text: str, max_chars: int) -> str:
    """Cut at the end of a sentence where one fits, at a word otherwise."""
    text = sanitise(text, 10_000)
    if len(text) <= max_chars:
        return text
    end = max(text.rfind(mark, 0, max_chars) for mark in (". ", "; "))
    return text[:end].rstrip(";.") + "." if end > max_chars // 2 else sanitise(text, max_chars)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
