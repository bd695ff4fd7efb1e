"""What a distiller returns, before it becomes an entry; every draft is cleaned here."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from hiexp_verl.domains.diagnosis import Masking
from hiexp_verl.masking import redact
from hiexp_verl.text import sanitise
from hiexp_verl.types import MAX_DESCRIPTION_CHARS, MAX_TITLE_CHARS, Kind

Value = TypeVar("Value", bound=Hashable)
Redact = Callable[[str, Sequence[str], str], str]  # `Domain.redact`


@dataclass(frozen=True)
class Draft:
    """Title, description and kind of a future entry."""

    title: str
    description: str
    kind: Kind
    when: tuple[str, ...] = ()  # preconditions (`hek.preconditions`)


def clean(draft: Draft, masker: Masking, answers: Sequence[str], question: str, redact: Redact = redact) -> Draft | None:
    """Return the draft without control text, names of the episode and answers, within the length caps; None when nothing is left.

    Answers are redacted (as the domain does it) before names are masked: a masked answer could no longer be recognised.
    """

    def cleaned(text: str, max_chars: int) -> str:
        return masker.mask_known(redact(sanitise(text, max_chars), answers, question))

    fitted = fit(replace(draft, title=cleaned(draft.title, 1000), description=cleaned(draft.description, 2000)))
    if len(fitted.title) <= 3 or len(fitted.description) <= 10:
        return None
    title, description = (text[0].upper() + text[1:] for text in (fitted.title, fitted.description))
    return replace(draft, title=title, description=description)


def fit(draft: Draft) -> Draft:
    """Return the draft within the length caps."""
    return replace(draft, title=_fit(draft.title, MAX_TITLE_CHARS), description=_fit(draft.description, MAX_DESCRIPTION_CHARS))


def fit_with(description: str, sentence: str) -> str:
    """Return the description with the sentence at its end, in place of its own last sentences where room is short.

    Unchanged if the sentence alone is too long.
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
