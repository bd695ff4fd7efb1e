r"""A text without the answers of a problem, in whatever notation: 3/4, 0.75, 75% and \frac{3}{4} are one answer."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from hiexp_verl import masking
from hiexp_verl.domains.maths.answers import Number, clean, gold_of, number_of, words_of
from hiexp_verl.domains.maths.reading import VALUES, numbers_in

_DIGITS = r"(?:\d{1,3}(?:(?:,|\{,\})\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_WORDS = "|".join(word for word in VALUES if word != "two")
# Whole fractions before their parts.
_WRITTEN = tuple(
    re.compile(rf"(?<![\w.])\$?[-\u2212]?(?:{pattern})(?:\s?\\?%)?\$?(?!\w)", re.IGNORECASE)
    for pattern in (r"\\[dtc]?frac\s?\{[^{}]{1,20}\}\s?\{[^{}]{1,20}\}|\d+\s?/\s?\d+", _DIGITS, _WORDS)
)
_TEXT = re.compile(r"\\text\s?\{([^{}]*)\}")
_FRACTION = re.compile(r"\\[dtc]?frac\s?\{([^{}]*)\}\s?\{([^{}]*)\}")


def redact(text: str, answers: Sequence[str], question: str) -> str:
    """Return the text with "the answer" for each answer that the problem itself does not give; the sign of a number does not count.

    The word "two" stays: advice needs it ("the two sides").
    """
    given = numbers_in(question)
    for answer in answers:
        gold = clean(gold_of(answer))
        number = number_of(gold)
        if number is None:
            plain = _FRACTION.sub(r"\1/\2", _TEXT.sub(r"\1", gold))
            spelt = dict.fromkeys((answer, gold, plain, *(each.replace(r"\pi", "\u03c0") for each in (gold, plain))))
            if words_of(gold) is None and not (formula := _spaced(gold)).search(question):
                text = formula.sub("the answer", text)
            text = masking.redact(text, list(spelt), question)
        elif abs(number.value) not in given:
            for pattern in _WRITTEN:
                text = pattern.sub(lambda found, number=number: "the answer" if _is(found[0], number) else found[0], text)
    return text


@lru_cache(maxsize=1024)
def _spaced(formula: str) -> re.Pattern[str]:
    """Return what finds a formula of several parts with other spaces: (3, 4) for (3,4)."""
    parts = re.findall(r"\\?[A-Za-z]+|\d+|\S", formula)
    return re.compile(rf"(?<![\w.]){r' ?'.join(map(re.escape, parts))}(?!\w)" if 2 < len(parts) <= 100 else r"(?!)")


def _is(written: str, number: Number) -> bool:
    value = next(iter(numbers_in(written)), None) if written[:1].isalpha() else None
    found = Number(value, False, False) if value is not None else number_of(clean(written))
    return found is not None and _unsigned(found).equals(_unsigned(number))


def _unsigned(number: Number) -> Number:
    return replace(number, value=abs(number.value))
