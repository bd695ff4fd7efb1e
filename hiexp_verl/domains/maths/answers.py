r"""How a final answer of mathematics is written: cleaned, read as a number or as words, without math-verify.

What can be decided here is decided here, exactly. math-verify adds up "5 6" to 11, takes "nylevE" for "Evelyn" (a product of
letters), "6 million" for 6, "2516_7" for "2516_8" and "5=6" for 6, and does not read "6." or the digits of other scripts.
"""

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from hiexp_verl.scoring import ANSWER_CLOSE, ANSWER_OPEN, extract_answer

MAX_ANSWER_CHARS = 1000  # of an answer; the longest one of MATH-500 has 65
_SMALL_DIFFERENCE = Fraction("1.01e-6")  # 0.333333 is 1/3; 0.33 is not

_SIGNS = {
    **{"\u2212": "-", "\u2013": "-", "\u00b7": r"\cdot ", "\u221e": r"\infty ", "\u00b0": r"^\circ ", "\u222a": r"\cup "},
    **{"\u2229": r"\cap ", "\u2208": r"\in ", "\u00b1": r"\pm ", "\u2248": r"\approx ", "\u2044": "/", "\u066b": ".", "\u066c": ","},
}
_SUPERSCRIPTS = re.compile(r"[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207b]+")
_VULGAR = re.compile(r"[\u00bc-\u00be\u2150-\u215e]")


def _repeating(found: re.Match[str]) -> str:
    r"""Return 0.1\overline{6} as a fraction."""
    before, again = found[1] + found[2], found[3]
    return rf"\frac{{{int(before + again) - int(before or 0)}}}{{{(10 ** len(again) - 1) * 10 ** len(found[2])}}}"


_REWRITES = tuple(
    (re.compile(pattern), to)
    for pattern, to in (
        (r"\\(?:left|right|displaystyle|big+[lr]?|Big+[lr]?)(?![A-Za-z])\s*", ""),
        (r"(?:(?<!\\)\\!)+\s*|\{,\}\s*", lambda found: "," if found[0].startswith("{") else ""),
        (r"(?<!\\)\\[,;: ]|~|\\q?quad(?![A-Za-z])", " "),
        (r"\\[dtc]frac", r"\\frac"),
        (r"\\frac ?(\\[A-Za-z]+|\d) ?(\\[A-Za-z]+|\d)", r"\\frac{\1}{\2}"),
        (r"\\(?:mbox|textbf|textit|textrm|textnormal|mathrm|mathbf|operatorname)\s*\{", r"\\text{"),
        (r"\\varnothing|\\\{\s*\\\}", r"\\emptyset "),
        (r"\^\{\\circ\}", r"^\\circ"),
        (r"\\?\$|`|(?<!\\)\\[()\[\]]", ""),
        (r"^\W*?\*\*(.*)\*\*\W*$", r"\1"),
        (r"\*\*", "^"),
        (r"(\d*)\.(\d*)\\overline ?\{(\d+)\}", _repeating),
        (r"\u221a ?(\d+|[A-Za-z]|\((?P<root>[^()]*)\))", lambda found: rf"\sqrt{{{found['root'] or found[1]}}}"),
        (r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi "),
        (r"(?<=\d)(?=(?:[cmk]m|[mk]g|ml|ft|yd|hr|oz|lb)(?![A-Za-z]))", " "),
        (r"\s+", " "),
    )
)

_SAID = re.compile(r"^(?:the )?(?:final )?answer(?: is:?|:)\s*(?=\S)", re.IGNORECASE)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]+")
# Beside a value these give another one, deny or doubt it.
_HEDGES = frozenset("or either neither nor not no maybe perhaps possibly probably".split())  # noqa: SIM905
# After a number these make another one of it.
_OTHER_NUMBER = "and to than least most more less fewer over under plus minus times squared cubed factorial half halves thirds"
_NO_UNIT = _HEDGES | frozenset(_OTHER_NUMBER.split())
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_FUNCTIONS = frozenset("pi sqrt sin cos tan cot sec csc arcsin arccos arctan log ln exp mod det gcd lcm max min lim inf frac".split())  # noqa: SIM905
_SHORT_UNITS = frozenset("cm mm km m kg mg ml l ft in hr h s yd oz lb pm am mi".split())  # noqa: SIM905
# "5 6", but no mixed number, exponent or base (2^3 5, \log_2 8); "6 \text{ versus 5}"
_TWO_VALUES = re.compile(r"(?<![\d_^])\d+ \d+(?![\d ]*/)|\d ?\\text\{(?:[^{}]*[^{}A-Za-z])?\d")
_ASSIGNED = re.compile(r"[A-Za-z](?:_\w|_\{\w+\})? ?= ?(?=[^=]+\Z)")
_CHOICES = re.compile(r"(?:[A-Za-z]|\([A-Za-z]\))(?:(?:, ?|,? and )(?:[A-Za-z]|\([A-Za-z]\)))*")  # (A), C
_BASE = re.compile(r"^\d+_\{?(\d+)\}?$")

_DECIMAL = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)?(?:\.\d+)?"
_RATIO = r"\\frac ?(?:\{ ?(-?\d+) ?\}|(\d)) ?(?:\{ ?(\d+) ?\}|(\d))|(\d+) ?/ ?(\d+)"
_NUMBER = re.compile(
    rf"(?:(?:\\approx|=|about|approximately|approx\.?|around|roughly|exactly) ?)?(?P<sign>[-+]?) ?"
    rf"(?:(?:(?P<whole>\d+)(?: |(?=\\)))?(?:{_RATIO})|(?P<plain>{_DECIMAL})(?:[eE](?P<power>[-+]?\d{{1,3}}))?)(?P<rest>.*)",
    re.DOTALL,
)
_UNIT = r" ?\\text\{[^{}\d]*\}| [A-Za-z](?:[A-Za-z. /]|(?<=[A-Za-z]{2})-(?=[A-Za-z]{2}))*"
_REST = re.compile(rf"(?P<percent> ?\\?%| per ?cent)?(?P<unit>(?: ?\^\\circ ?[CF]?)?(?:(?:{_UNIT})(?: ?\^\{{?[23]\}}?)?)?)")


@dataclass(frozen=True)
class Number:
    """A number as it was written; its unit is not kept."""

    value: Fraction
    is_decimal: bool  # written with a point: it may be rounded
    is_percent: bool

    def equals(self, other: "Number") -> bool:
        """Return whether both are the same number; 10% is 10 where the question asks for percent, and it is 0.1."""
        if _close(self, other, Fraction(1)):
            return True
        if self.is_percent == other.is_percent:
            return False
        return _close(self, other, Fraction(1, 100) if self.is_percent else Fraction(100))


def _close(one: Number, other: Number, factor: Fraction) -> bool:
    difference = abs(one.value * factor - other.value)
    return difference == 0 or ((one.is_decimal or other.is_decimal) and difference <= _SMALL_DIFFERENCE * min(1, abs(other.value)))


def boxed_answer(text: str) -> str | None:
    r"""Return the body of the last complete `\boxed{}`, the inner one of nested ones; None where it is blank or missing.

    Of several boxes the last counts: what stands in an earlier one was taken back.
    """
    answer = extract_answer(text.replace(ANSWER_OPEN, " ").replace(ANSWER_CLOSE, " "))
    while answer is not None and len(answer) <= MAX_ANSWER_CHARS and (inner := extract_answer(answer)) is not None:
        answer = inner
    return answer


def gold_of(text: str) -> str:
    """Return the answer in a gold answer of a data set: after the last "####" (gsm8k), in the last box, else after "The answer is"."""
    _, mark, after = text.rpartition("####")
    return after.strip() if mark else (boxed_answer(text) or _SAID.sub("", text.strip()))


@lru_cache(maxsize=4096)
def clean(text: str) -> str:
    """Return an answer in one notation: ASCII digits and signs, no sizes, spaces of LaTeX, currency, or final point."""
    text = _SUPERSCRIPTS.sub(lambda found: "^{" + unicodedata.normalize("NFKC", found[0]).replace("\u2212", "-") + "}", text)
    text = _VULGAR.sub(r" \g<0>", text)  # a mixed number, else 1\u00bd is 11/2
    text = unicodedata.normalize("NFKC", "".join(_SIGNS.get(c, c) for c in text)).translate(_SIGN_TABLE)
    text = "".join(c if c.isascii() else _ascii(c) for c in text)
    for pattern, to in _REWRITES:
        text = pattern.sub(to, text).strip()
    return text[:-1].rstrip() if text.endswith(".") and not text.endswith("..") else text


_SIGN_TABLE = {ord(sign): to for sign, to in _SIGNS.items()}


def _ascii(character: str) -> str:
    """Return a digit of another script as it is in ASCII, nothing for a currency or an invisible character."""
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    return "" if unicodedata.category(character) in ("Sc", "Cf") else character


def number_of(text: str) -> Number | None:
    r"""Return the number that a clean answer is: 1,234, -0.5, 3/4, \frac{3}{4}, 1\frac{3}{4}, 1e6, each with a unit or a percent sign."""
    found = _NUMBER.fullmatch(text)
    if found is None or len(text) > 200:
        return None
    over, under = found[3] or found[4] or found[7], found[5] or found[6] or found[8]
    plain = (found["plain"] or "").replace(",", "").replace(" ", "")
    rest = _REST.fullmatch(found["rest"])
    scale = _scale(rest["unit"]) if rest is not None else None
    if scale is None or rest is None or not (plain or over) or (under and int(under) == 0):
        return None
    if over:
        value = Fraction(int(over), int(under)) + int(found["whole"] or 0)
    else:
        value = Fraction(plain) * Fraction(10) ** int(found["power"] or 0)
    return Number(value * scale * (-1 if found["sign"] == "-" else 1), "." in plain, bool(rest["percent"]))


def _scale(unit: str) -> int | None:
    """Return the factor in the words after a number (million), 1 for a unit, None where they are none."""
    words = [word.lower() for word in _WORD.findall(unit.replace(r"\text", " ").replace(r"\circ", " "))]
    is_marked = r"\text" in unit or r"\circ" in unit
    if _NO_UNIT.intersection(words) or (not is_marked and any((len(w) < 3 and w not in _SHORT_UNITS) or w in _FUNCTIONS for w in words)):
        return None
    factor = 1
    for word in words:
        factor *= _SCALES.get(word, 1)
    return factor


def words_of(text: str) -> str | None:
    r"""Return the words that a clean answer is, in lower case (\text{east}, Monday, (C), June 20); None for a formula.

    Three letters or more without an operator are a word, not a product. Several choices are put in order.
    """
    bare = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text).strip()
    marked = bare != text
    choices = bare.removeprefix(r"\{").removesuffix(r"\}").strip()
    if (marked or not bare.isalpha()) and _CHOICES.fullmatch(choices):
        return " ".join(sorted(re.findall(r"\b[a-z]\b", choices.lower())))
    if not re.fullmatch(r"[^\W\d_][\w' ,.-]*", bare):
        return None
    words = bare.lower().split()
    is_word = any(re.match(r"[^\W\d_]{3}", word) and word not in _FUNCTIONS and not re.search(r"\d", word) for word in words)
    if marked or is_word or words == ["no"]:
        return " ".join(words).replace(",", "")
    return None


def value_in(answer: str) -> str:
    """Return the right side of a clean answer that assigns a value to a letter (x = 5), else the answer."""
    return _ASSIGNED.sub("", answer, count=1) if _ASSIGNED.match(answer) else answer


def same_text(one: str, other: str) -> bool:
    """Return whether two clean answers are the same but for spaces beside signs."""
    return _tight(one) == _tight(other)


def _tight(text: str) -> str:
    return re.sub(r"(?<=\W) | (?=\W)", "", text)


def hedges(answer: str, gold: str) -> bool:
    """Return whether a clean answer gives another value, or doubts its own, in words that the gold answer lacks.

    "x = 5 or x = -5" is not a hedge where the gold answer has several values. "5 6" is two values, or none.
    """
    extra = {word.lower() for word in _WORD.findall(answer)} - {word.lower() for word in _WORD.findall(gold)}
    several = re.search(r",|;|\\pm|\\cup|\b(?:or|and)\b", gold) is not None
    if (extra & _HEDGES) - ({"or", "either"} if several else set()):
        return True
    return _TWO_VALUES.search(answer) is not None and _TWO_VALUES.search(gold) is None


def other_base(answer: str, gold: str) -> bool:
    """Return whether both answers name the base of a numeral, and another one (52_8)."""
    one, other = _BASE.match(answer), _BASE.match(gold)
    return one is not None and other is not None and one[1] != other[1]
