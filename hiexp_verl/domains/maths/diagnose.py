"""Diagnoses of failures of mathematics: each is held against the success from which it parts last (`findings` computes what is wrong)."""

import re
from collections.abc import Mapping, Sequence

from hiexp_verl.domains.diagnosis import Contrast, Diagnosis, Side, most_frequent
from hiexp_verl.domains.maths.findings import Findings, findings, parting_of
from hiexp_verl.domains.maths.reading import Step, kind_of, mask, names_of, numbers_in, shape_of, steps
from hiexp_verl.domains.maths.redact import redact
from hiexp_verl.scoring import blank_tool_text
from hiexp_verl.text import sanitise, text_of
from hiexp_verl.types import Evidence, Message, Trajectory

MEANINGS: Mapping[str, str] = {
    "length_limit": "it was cut off before it gave an answer",
    "no_boxed_answer": "it ended without an answer in \\boxed{}",
    "restart_or_loop": "it began anew or repeated itself instead of going on",
    "answer_form": "it had the right value and wrote it in another form",
    "right_value_lost": "it had reached the right value, and gave another one in the end",
    "arithmetic_slip": "a calculation of it is wrong",
    "unused_condition": "it never used a number of the problem that the solution needs",
    "unexplained": "its calculations are right, and it calculated the wrong thing",
    # Of an answer in another form.
    "rounded": "the value was rounded",
    "unit": "the value was in another unit",
    "two_answers": "it gave two answers for one",
    "interval": "the brackets of its interval were wrong",
    "words": "it wrote the number in words",
    "unreadable": "something stood beside the answer in the box",
}
_QUOTED = 200  # characters of a step


class ProblemMask:
    """Masks the names and numbers of a problem; see `diagnosis.Masking`."""

    def __init__(self, problem: str) -> None:
        self._problem = problem
        self._names = names_of(problem)
        self._numbers = {number for number in numbers_in(problem) if number > 2}

    def mask(self, text: str) -> str:
        """Return the kind of the problem; another text without names and numbers."""
        return kind_of(text) if text == self._problem else mask(text)

    def mask_known(self, text: str) -> str:
        """Return prose without the names of the problem and its numbers but 0, 1 and 2."""
        for name in sorted(self._names, key=len, reverse=True):
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "X", text)
        return re.sub(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?!\w)", self._number, text)

    def names(self, text: str) -> list[str]:
        """Return the names of the problem that the text has."""
        return [name for name in self._names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)]

    def _number(self, found: re.Match[str]) -> str:
        return "the given number" if self._numbers.intersection(numbers_in(found[0])) else found[0]


def derivation(trajectory: Trajectory) -> str:
    """Return what the model wrote last in an episode, "" where it wrote nothing."""
    return own_text(trajectory.messages[at]) if (at := _last(trajectory)) is not None else ""


def own_text(message: Message) -> str:
    """Return the text of a message with blanks in place of experience between its steps."""
    return blank_tool_text(text_of(message))


def _last(trajectory: Trajectory) -> int | None:
    written = [at for at, message in enumerate(trajectory.messages) if message.get("role") == "assistant"]
    return written[-1] if written else None


def diagnose(contrast: Contrast, most: int = 2) -> list[Diagnosis]:
    """Return at most `most` diagnoses with different findings, the most frequent finding first."""
    masker = ProblemMask(contrast.question)
    return most_frequent([_diagnosis(failure, contrast, masker) for failure in contrast.failures], most)


def _diagnosis(failure: Trajectory, contrast: Contrast, masker: ProblemMask) -> Diagnosis:
    success = _success_for(failure, contrast)
    right = derivation(success) if success is not None else ""
    found = findings(contrast.question, derivation(failure), contrast.answers, right, failure.extra.get("stop") == "length")
    made = steps(right)
    here, there = (found.parting.wrong_step, found.parting.right_step) if found.parting is not None else (0, 0)
    return Diagnosis(
        question_id=contrast.question_id,
        question=contrast.question,
        answers=contrast.all_answers,
        finding=found.finding,
        also=(*((found.form,) if found.form else ()), *found.also),
        shape=shape_of(contrast.question),
        part_at=here,
        failed=_side(failure, found.steps[here:]),
        succeeded=_side(success, made[there:]) if success is not None else None,
        masker=masker,
        evidence=tuple(_evidence(failure, success, found, made, contrast)),
    )


def _success_for(failure: Trajectory, contrast: Contrast) -> Trajectory | None:
    """Return the success from which the failure parts last; of equals the shortest."""
    wrong = steps(derivation(failure))

    def order(success: Trajectory) -> tuple[int, int, str]:
        text = derivation(success)
        parting = parting_of(wrong, steps(text), contrast.question)
        return (-parting.wrong_step if parting is not None else 0, len(text), success.id)

    return min(contrast.successes, key=order, default=None)


def _side(trajectory: Trajectory, parted: Sequence[Step]) -> Side:
    """Return what a trajectory did in the steps from which the two part."""
    return Side(trajectory.id, tuple(step.text for step in parted), trajectory.prediction)


def _evidence(
    failure: Trajectory, success: Trajectory | None, found: Findings, made: Sequence[Step], contrast: Contrast
) -> Sequence[Evidence]:
    """Return the steps that show the finding: the wrong calculation, the value that was lost, the restart, where the two part, the end."""
    part = found.parting
    places = [
        (failure, "a wrong calculation", found.slip.step if found.slip is not None else None),
        (failure, "the right value", found.lost_at),
        (failure, "begins anew", found.restart_at),
        (failure, "parts here", part.wrong_step if part is not None else None),
        (success, "parts here", part.right_step if part is not None else None),
        (failure, "ends here", len(found.steps) - 1 if found.steps else None),
    ]
    return [
        _quoted(trajectory, what, (made if trajectory is success else found.steps)[at], contrast)
        for trajectory, what, at in places
        if trajectory is not None and at is not None
    ]


def _quoted(trajectory: Trajectory, what: str, step: Step, contrast: Contrast) -> Evidence:
    message = _last(trajectory)
    assert message is not None  # it has a step
    quote = sanitise(redact(step.text, contrast.all_answers, contrast.question), _QUOTED)
    return Evidence(trajectory.id, message, step.start, step.end, what, quote)
