r"""The text of an episode of mathematics: the steps of a derivation, numbers, and a problem without names and numbers."""

import re
from dataclasses import dataclass
from fractions import Fraction

from hiexp_verl.masking import Masker
from hiexp_verl.text import word_set
from hiexp_verl.types import MAX_TITLE_CHARS

MAX_CHARS = 40_000  # of a derivation that is read: its first and its last half

_NUMBER_WORDS = "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_UNITS = {word: value for value, word in enumerate(_NUMBER_WORDS.split(), start=2)}
_TENS = {word: value for value, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2)}  # noqa: SIM905
_ONES = {"one": 1, **{word: value for word, value in _UNITS.items() if value < 10}}
# "thirty-two" before "thirty": a pattern takes the first that fits.
VALUES = {f"{ten}-{one}": 10 * tens + ones for ten, tens in _TENS.items() for one, ones in _ONES.items()}
VALUES |= _UNITS | {ten: 10 * tens for ten, tens in _TENS.items()}
_DIGITS = r"(?:\d{1,3}(?:(?:,|\{,\})\d{3})+(?!\d)|\d{1,40}(?!\d))(?:\.\d{1,40})?|\.\d{1,40}"
_NUMBER = re.compile(rf"(?<![\w.])(?:{_DIGITS})|\b(?:{'|'.join(VALUES)})\b", re.IGNORECASE)
_ITEM = re.compile(r"^[^\S\n]*(?:\(\d{1,2}\)|\d{1,2}[.)])(?=[^\S\n]|\Z)|\bsteps? \d{1,2}\b", re.IGNORECASE | re.MULTILINE)
# What stands between two steps: blank lines and ends of lines; ends of sentences, but not of "1." or "e.g.".
_BETWEEN = re.compile(
    r"\n\s*|(?<=[.!?])(?<!\b[A-Za-z]\.)(?<!^\d\.)(?<!\n\d\.)(?<!\b(?:vs|Mr|Dr|St|No)\.)(?<!\bMrs\.)[^\S\n]+(?=[A-Z\\$(\d*])"
)
# Displayed formulas and environments are one step, whatever their lines.
_BLOCK = re.compile(r"\\\[.{0,1000}?\\\]|\$\$.{0,1000}?\$\$|\\begin\{(\w+\*?)\}.{0,1000}?\\end\{\1\}|\[asy\].{0,1000}?\[/asy\]", re.DOTALL)
# "$20 an hour and $30" has no formula: the second "$" follows a space, and a number follows it.
_MATHS = re.compile(r"\$(?!\s)[^$]{1,1000}(?<!\s)\$(?!\d)|\\\(.{0,1000}?\\\)|\\\[.{0,1000}?\\\]", re.DOTALL)
_FIGURE = re.compile(r"\[asy\].*?(?:\[/asy\]|\Z)", re.DOTALL)
_MASKED_DIGITS = re.compile(rf"(?<![\w.^])(?:{_DIGITS})")
_MASKED_WORDS = re.compile(rf"\b(?:{'|'.join(VALUES)})\b", re.IGNORECASE)
# Words at the start of a sentence that are not names; any other word with a capital is taken for a name.
_OPENERS = word_set(
    """
    a after all an and are as assume at because before both but by calculate choose compute consider convert define determine do does
    during each eight enter evaluate every express factor fifteen find five for four from given half he her his how however i if in
    initially is it its let many most my nine normally note on once one only our rationalize round seven she simplify since six solve
    some suppose ten that the their then there these they this those three to today together tomorrow two twelve twenty under until we
    what when where which while who with write yesterday you your monday tuesday wednesday thursday friday saturday sunday january
    february march april may june july august september october november december
    """
)
_SENTENCES = re.compile(r"(?<=[.!?]) (?=[A-Z\\$])")
_HOW_TO_ANSWER = re.compile(r"(?:Express|Write|Give|Round|Enter) (?:your|the) (?:final )?answer")
# The first that is found; templates of E2 have their own advice for each.
_SHAPES = tuple(
    (shape, re.compile(pattern, re.IGNORECASE))
    for shape, pattern in (
        ("percent", r"\d ?%|\b(?:per ?cent\w*|discount\w*|interest)\b"),
        ("part", r"\d/\d|\b(?:half|thirds?|quarters?|fourths?|fifths?|tenths?|ratio|twice|times (?:as|more)|average)\b"),
        (
            "rate",
            r"\b(?:per|how (?:long|fast)|speed|mph|(?:an?|each|every) (?:minute|hour|day|week|month|year)|(?:hour|dai|week)ly)\b",
        ),
    )
)
_FIRST_WORD = re.compile(r"(?:^|(?<=[.!?:\n]))([^\S\n]*)([A-Z][a-z]*)\b")


@dataclass(frozen=True)
class Step:
    """A step of a derivation: a line, a sentence or a displayed formula."""

    start: int  # characters, in the text of the derivation
    end: int
    text: str


def steps(text: str) -> list[Step]:
    """Return the steps of a derivation, in order; of a long one those of its first and last `MAX_CHARS / 2` characters."""
    if len(text) > MAX_CHARS:
        half = MAX_CHARS // 2
        tail = len(text) - half
        return steps(text[:half]) + [Step(step.start + tail, step.end + tail, step.text) for step in steps(text[tail:])]
    flat = _BLOCK.sub(lambda block: "$" * len(block[0]), text)
    found, start = list[Step](), 0
    cuts = [(cut.start(), cut.end()) for cut in _BETWEEN.finditer(flat)]
    for stop, after in [*cuts, (len(text), len(text))]:
        piece = text[start:stop]
        if piece.strip():
            begin = start + len(piece) - len(piece.lstrip())
            found.append(Step(begin, begin + len(piece.strip()), piece.strip()))
        start = after
    return found


def unnumbered(derivation: str) -> str:
    """Return a derivation without the numbers of its list items and steps ("2. ", "**Step 3:**"), which are no values."""
    return _ITEM.sub("", derivation)


def numbers_in(text: str) -> list[Fraction]:
    """Return the numbers in a text, in order: digits with separators, and words from two to ninety-nine."""
    return [_value(found[0]) for found in _NUMBER.finditer(text)]


def _value(written: str) -> Fraction:
    word = written.lower()
    return Fraction(VALUES[word]) if word in VALUES else Fraction(written.replace("{,}", "").replace(",", ""))


def mask(problem: str) -> str:
    """Return the problem without its names and numbers: problems of one kind read alike.

    "Natalia sold 48 clips to Ann" is "X sold N clips to Y". Formulas keep their letters and exponents, figures are left out.
    """
    parts = _parts(_FIGURE.sub("[figure]", problem))
    letters = dict(zip(names_of(problem), "XYZW", strict=False))
    parts[::2] = [_mask_words(part, letters) for part in parts[::2]]
    return " ".join(_MASKED_DIGITS.sub("N", "".join(parts)).split())


def kind_of(problem: str) -> str:
    """Return the end of the masked problem that fits in a title: what is asked, and as much before it as there is room for."""
    sentences = _SENTENCES.split(mask(problem))
    while len(sentences) > 1 and _HOW_TO_ANSWER.match(sentences[-1]):
        sentences.pop()
    kind = sentences.pop()
    while sentences and len(kind) + len(sentences[-1]) < MAX_TITLE_CHARS:
        kind = f"{sentences.pop()} {kind}"
    return kind


def has_formula(problem: str) -> bool:
    """Return whether a problem has a formula; a price in dollars is none."""
    return _MATHS.search(problem) is not None


def shape_of(problem: str) -> str:
    """Return what kind of problem it is: "formula", or of a story "percent", "part", "rate", else "story"."""
    if has_formula(problem):
        return "formula"
    return next((shape for shape, words in _SHAPES if words.search(problem)), "story")


def names_of(problem: str) -> list[str]:
    """Return the names in a problem, outside of formulas, in order."""
    return _names(" ".join(map(_without_openers, _parts(_FIGURE.sub("[figure]", problem))[::2])))


def _parts(text: str) -> list[str]:
    """Return the text in turns outside and inside formulas."""
    found, end = list[str](), 0
    for formula in _MATHS.finditer(text):
        found += [text[end : formula.start()], formula[0]]
        end = formula.end()
    return [*found, text[end:]]


def _without_openers(text: str) -> str:
    """Return the text with ordinary words at the start of a sentence in lower case."""
    return _FIRST_WORD.sub(lambda found: found[1] + (found[2].lower() if found[2].lower() in _OPENERS else found[2]), text)


def _names(text: str) -> list[str]:
    """Return the names in a text; a letter is a variable, PM and GB are units."""
    text = re.sub(r"\d+", "n", text)  # "Betty 50" is not one
    text = re.sub(r"(?<=\w{4})\. (?=[A-Z])", ".\n", text)  # "... than Betty. Betty has" has no "Betty. Betty"
    return [name for name in Masker(text).names(text) if not re.fullmatch(r"\W*[A-Z]{0,3}\W*|.", name)]


def _mask_words(text: str, letters: dict[str, str]) -> str:
    for name in sorted(letters, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", letters[name], text)
    return _MASKED_WORDS.sub("N", text)
