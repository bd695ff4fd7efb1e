r"""Scores of answers of mathematics: the last `\boxed{}` against the gold answer; equal or not.

What a number, a word or the same text decides is decided by `answers`; the rest by math-verify (`verifier`).
"""

from collections.abc import Sequence

from hiexp_verl.domains.maths.answers import (
    MAX_ANSWER_CHARS,
    boxed_answer,
    clean,
    gold_of,
    hedges,
    number_of,
    other_base,
    same_text,
    value_in,
    words_of,
)
from hiexp_verl.domains.maths.verifier import Verifier, shared
from hiexp_verl.errors import HiExpError
from hiexp_verl.scoring import Score


def score(prediction: str | None, answers: Sequence[str], verifier: Verifier | None = None) -> Score:
    """Return the score of a final answer: every measure is 1 when it equals one of the gold answers, else 0.

    `format` is 1 when there is an answer at all. Without a verifier that of this process is used.

    Raises:
        HiExpError: there is no gold answer, or math-verify is missing, does not start or fails its test.
    """
    golds = [] if isinstance(answers, str) else [gold for answer in answers if (gold := gold_of(answer))]
    if not golds:
        raise HiExpError(f"cannot score against the gold answers {answers!r}; give a list with at least one text")
    if prediction is None or not prediction.strip():
        return Score(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    verdict = float(any(equal(prediction, gold, verifier) for gold in golds))
    return Score(verdict, verdict, verdict, verdict, verdict, verdict, format=1.0)


def score_text(text: str, answers: Sequence[str], verifier: Verifier | None = None) -> Score:
    r"""Return the score of what a model wrote, by its last complete `\boxed{}`."""
    return score(boxed_answer(text), answers, verifier)


def equal(prediction: str, gold: str, verifier: Verifier | None = None) -> bool:
    r"""Return whether an answer equals a gold answer.

    - Never equal: an answer longer than `MAX_ANSWER_CHARS`, two values for one, a value that is doubted, another base.
    - Numbers: exact; with a decimal point to 1e-6; units and currency do not count; 10% is 10 and 0.1.
    - Words: the same words in any case.
    - Else, unless the text is the same, math-verify: formulas, intervals, sets, matrices, points, equations.
    """
    if max(len(prediction), len(gold)) > MAX_ANSWER_CHARS:
        return False
    answer, gold = clean(prediction), clean(gold)
    if not answer or not gold:
        return False
    if same_text(answer, gold):
        return True
    answer = answer if "=" in gold else value_in(answer)
    if (wanted := number_of(gold)) is not None and (given := number_of(answer)) is not None:
        return given.equals(wanted)
    if hedges(answer, gold) or other_base(answer, gold):
        return False
    if (words := words_of(gold)) is not None:
        return words == (words_of(answer) or answer.lower())
    return (verifier or shared()).equal(answer, gold)
