r"""What went wrong in a derivation, as far as it can be computed from its text; pure functions.

What is not computed here ("unexplained") is left to a distiller, which reads both derivations from the step at which they part.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from hiexp_verl.domains.maths.answers import MAX_ANSWER_CHARS, Number, boxed_answer, clean, gold_of, hedges, number_of, same_text, words_of
from hiexp_verl.domains.maths.arithmetic import Calculation, agree, calculations
from hiexp_verl.domains.maths.reading import MAX_CHARS, Step, numbers_in, steps, unnumbered
from hiexp_verl.text import content_words

# What can go wrong; the first that holds is the main finding of a failure.
Finding = Literal[
    "length_limit",  # it was cut off before it gave an answer
    "no_boxed_answer",
    "restart_or_loop",  # it began anew, or repeated itself
    "answer_form",  # the right answer in another form, see `Form`
    "right_value_lost",  # it had reached the right value, and gave another
    "arithmetic_slip",
    "unused_condition",  # a number of the problem is not in the derivation, but in that of the success
    "unexplained",
]
Form = Literal[
    "",  # not a matter of form
    "rounded",  # 0.33 for 1/3
    "unit",  # 50 for 0.5: percent, cents and dollars, minutes and hours, metres and kilometres
    "two_answers",  # 5 or 6
    "interval",  # the same ends, other brackets
    "words",  # six for 6
    "unreadable",  # it holds the gold answer, in LaTeX that cannot be read or beside something else
]
_UNIT_FACTORS = tuple(map(Fraction, (12, 24, 60, 100, 1000, 3600)))
_RESTART = re.compile(
    r"\b(?:start(?:ing)? (?:over|again|anew|from (?:scratch|the beginning))|try (?:this )?again|from scratch|redo (?:this|the|it|my)"
    r"|re-?do the (?:problem|calculation)|go back to the (?:start|beginning))\b",
    re.IGNORECASE,
)
_DOUBT = re.compile(r"\b(?:wait|hmm+|hold on)\b", re.IGNORECASE)
_MANY_DOUBTS = 3
_LOOP = 3  # times that the same step is written
_MIN_STEP = 12  # characters; shorter ones ("So") may come again
_TAIL_WORDS, _DISTINCT = 120, 0.2  # the last words of a text that loops without a line end: a fifth of them differ
_RESULT = re.compile(r"[.,;](?:\s|\Z)|\\\\|\\[)\]]|[$\n<>]")  # ends a result
_NO_CONDITION = frozenset(map(Fraction, (0, 1)))


@dataclass(frozen=True)
class Slip:
    """A wrong calculation: at which step, and what is right."""

    step: int
    calculation: Calculation


@dataclass(frozen=True)
class Parting:
    """Where a wrong and a right derivation part: the first step with a value that the other never has."""

    wrong_step: int
    right_step: int


@dataclass(frozen=True)
class Findings:
    """What went wrong in one wrong derivation."""

    finding: Finding
    also: tuple[Finding, ...]  # what else holds, in order
    answer: str  # as it was boxed, "" without one
    form: Form
    slip: Slip | None  # the first one
    unused: tuple[Fraction, ...]  # numbers of the problem
    lost_at: int | None  # the last step that has the right value
    restart_at: int | None  # the step that begins anew or repeats an earlier one
    parting: Parting | None  # from the success, where there is one
    steps: tuple[Step, ...]


def findings(problem: str, text: str, answers: Sequence[str], success: str = "", is_cut: bool = False) -> Findings:
    """Return what went wrong in a derivation whose answer is wrong or missing.

    Args:
        problem: its text.
        text: the derivation.
        answers: gold answers.
        success: a right derivation of the same problem, "" where there is none.
        is_cut: whether the length limit ended it.
    """
    made, golds = steps(text), [clean(gold_of(answer)[:MAX_ANSWER_CHARS]) for answer in answers]
    boxed = boxed_answer(text) or ""
    slip = _first_slip(made)
    restart = restart_in(made, text)
    form = _form_of_any(boxed, golds)
    lost = next((at for gold in golds if (at := lost_at(made, gold, problem)) is not None), None) if boxed else None
    unused = unused_numbers(problem, text, success)
    holds: dict[Finding, bool] = {
        "length_limit": is_cut and not boxed,
        "no_boxed_answer": not boxed and not is_cut,
        "restart_or_loop": restart is not None,
        "answer_form": bool(form),
        "right_value_lost": lost is not None,
        "arithmetic_slip": slip is not None,
        "unused_condition": bool(unused and success),  # a quarter of MATH-500's own solutions lack a number of the problem
    }
    found: list[Finding] = [finding for finding, is_so in holds.items() if is_so] or ["unexplained"]
    parting = parting_of(made, steps(success), problem) if success else None
    return Findings(found[0], tuple(found[1:]), boxed, form, slip, unused, lost, restart, parting, tuple(made))


def _form_of_any(answer: str, golds: Sequence[str]) -> Form:
    for gold in golds:
        if form := form_of(answer, gold):
            return form
    return ""


def form_of(answer: str, gold: str) -> Form:
    """Return how an answer that is not the gold answer is the same up to its form."""
    answer, gold = clean(answer[:MAX_ANSWER_CHARS]), clean(gold)
    if not answer or not gold:
        return ""
    given, wanted = number_of(answer), number_of(gold)
    if given is not None and wanted is not None:
        return _form_of_number(given, wanted, answer)
    if wanted is not None and (words := words_of(answer)) is not None and numbers_in(words) == [wanted.value]:
        return "words"
    if hedges(answer, gold) and _holds(answer, gold, wanted):
        return "two_answers"
    if _ends(answer) and _ends(answer) == _ends(gold):
        return "interval"
    return "unreadable" if _holds(answer, gold, wanted) and number_of(gold) is None and len(gold) >= 3 else ""


def _form_of_number(given: Number, wanted: Number, written: str) -> Form:
    places = len(re.sub(r"\D.*", "", written.partition(".")[2]))
    if given.value == wanted.value or not given.value or not wanted.value:
        return ""
    if agree(given.value, wanted.value, places):
        return "rounded"
    ratio = abs(given.value / wanted.value)
    return "unit" if given.value * wanted.value > 0 and max(ratio, 1 / ratio) in _UNIT_FACTORS else ""


def _holds(answer: str, gold: str, wanted: Number | None) -> bool:
    """Return whether the gold answer is a part of the answer."""
    if wanted is not None:
        return wanted.value in numbers_in(answer)
    return re.search(rf"(?<![\w.]){re.escape(gold)}(?![\w.])", answer) is not None


def _ends(answer: str) -> tuple[str, ...]:
    """Return the two ends of an interval as written, nothing for another answer."""
    found = re.fullmatch(r"(?:[a-z] ?\\in ?)?[\[(] ?([^,()\[\]]{1,60}), ?([^,()\[\]]{1,60})[\])]", answer)
    return (found[1].strip(), found[2].strip()) if found else ()


def _first_slip(made: Sequence[Step]) -> Slip | None:
    return next((Slip(at, each) for at, step in enumerate(made) for each in calculations(step.text) if not each.is_right), None)


def restart_in(made: Sequence[Step], text: str) -> int | None:
    """Return the step that begins anew, or says a step for the third time; the last step where the end of the text repeats itself."""
    seen: dict[str, int] = {}
    doubts = 0
    for at, step in enumerate(made):
        said = " ".join(step.text.lower().split())
        seen[said] = seen.get(said, 0) + 1
        doubts += len(_DOUBT.findall(said))
        if _RESTART.search(said) or doubts >= _MANY_DOUBTS or (len(said) >= _MIN_STEP and seen[said] >= _LOOP):
            return at
    tail = text[-20 * _TAIL_WORDS :].split()[-_TAIL_WORDS:]
    loops = len(tail) == _TAIL_WORDS and len(set(tail)) <= _DISTINCT * _TAIL_WORDS
    return len(made) - 1 if loops and made else None


def lost_at(made: Sequence[Step], gold: str, problem: str) -> int | None:
    r"""Return the last step that has the gold answer as a result: after an equals sign or in a box that was not the last.

    A number that the problem gives counts only in a box: after an equals sign it may be the problem's.
    """
    wanted = number_of(gold)
    is_given = wanted is not None and wanted.value in numbers_in(problem)
    found = None
    for at, step in enumerate(made):
        results = [] if is_given else _results(step.text)
        results += _boxes(step.text)
        if any(_is(each, gold, wanted) for each in results):
            found = at
    return found


def _is(result: str, gold: str, wanted: Number | None) -> bool:
    number = number_of(result) if wanted is not None else None
    return same_text(result, gold) or (wanted is not None and number is not None and number.equals(wanted))


def _results(text: str) -> list[str]:
    """Return what stands after each equals sign, up to the next one or the end of the formula or sentence."""
    return [clean(_RESULT.split(side.lstrip(" $")[:80], maxsplit=1)[0]) for side in text.split("=")[1:]]


def _boxes(text: str) -> list[str]:
    return [clean(each) for each in re.findall(r"\\boxed\s?\{([^{}]{1,80}(?:\{[^{}]{0,80}\}[^{}]{0,80}){0,3})\}", text)]


def unused_numbers(problem: str, text: str, success: str = "") -> tuple[Fraction, ...]:
    """Return the numbers of the problem that a derivation lacks and the success has; without a success, those that it lacks.

    A percentage may be used as a share, or as what is left of it; 0 and 1 are everywhere.
    """
    used, of_success = (frozenset(numbers_in(unnumbered(each[:MAX_CHARS]))) for each in (text, success))
    lacking = [n for n in dict.fromkeys(numbers_in(problem)) if n not in _NO_CONDITION and not used.intersection(_ways(n))]
    return tuple(n for n in lacking if not success or of_success.intersection(_ways(n)))


def _ways(number: Fraction) -> Iterable[Fraction]:
    share = number / 100
    return (number, share, 1 - share, 1 + share, 100 - number, 100 + number)


def parting_of(wrong: Sequence[Step], right: Sequence[Step], problem: str = "") -> Parting | None:
    """Return where two derivations part; None where either is empty.

    That is the first step of each with a number that neither the problem nor the other derivation has. Without such a number, it is
    the first pair of steps that share less than half of their words, else the last step of the shorter.
    """
    if not wrong or not right:
        return None
    given = set(numbers_in(problem))
    of_wrong, of_right = ([set(numbers_in(unnumbered(step.text))) for step in each] for each in (wrong, right))
    here = _first_new(of_wrong, given.union(*of_right))
    there = _first_new(of_right, given.union(*of_wrong))
    if here is None and there is None:
        pairs = (at for at, (a, b) in enumerate(zip(wrong, right, strict=False)) if not _alike(a.text, b.text))
        here = there = next(pairs, min(len(wrong), len(right)) - 1)
    return Parting(len(wrong) - 1 if here is None else here, len(right) - 1 if there is None else there)


def _first_new(numbers: Sequence[set[Fraction]], known: set[Fraction]) -> int | None:
    return next((at for at, each in enumerate(numbers) if each - known), None)


def _alike(one: str, other: str) -> bool:
    a, b = content_words(one), content_words(other)
    return 2 * len(a & b) >= len(a | b)
