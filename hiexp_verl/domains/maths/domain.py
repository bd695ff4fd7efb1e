r"""The domain of mathematics: problems solved in one turn, step by step, with the answer in `\boxed{}`."""

from collections.abc import Sequence
from pathlib import Path

from hiexp_verl.config import RewardKind
from hiexp_verl.domains.domain import Domain, texts_in
from hiexp_verl.domains.maths import scoring
from hiexp_verl.domains.maths.answers import boxed_answer, clean, number_of
from hiexp_verl.domains.maths.diagnose import MEANINGS, diagnose, own_text
from hiexp_verl.domains.maths.reading import kind_of, steps
from hiexp_verl.domains.maths.redact import redact
from hiexp_verl.domains.maths.verifier import check_installed, shared
from hiexp_verl.scoring import Score
from hiexp_verl.types import Message

_TEXTS = texts_in(Path(__file__).parent / "prompts")


def _score(prediction: str | None, answers: Sequence[str], kind: RewardKind, question: str) -> Score:
    return scoring.score(prediction, answers)


def _check() -> None:
    """Start and test the verifier: number answers never ask it, and hours of a run would pass before the first formula does."""
    check_installed()
    shared()


def _normalise(answer: str) -> str:
    r"""Return an answer in one notation: 0.5 and \frac{1}{2} are 1/2."""
    answer = clean(answer)
    number = number_of(answer)
    return answer if number is None else f"{number.value}{'%' if number.is_percent else ''}"


def _steps(messages: Sequence[Message]) -> list[str]:
    return [step.text for message in messages if message.get("role") == "assistant" for step in steps(own_text(message))]


MATHS = Domain(
    name="maths",
    system_prompt=lambda format: _TEXTS["system.txt"].strip(),
    answer_in=boxed_answer,
    actions=_steps,
    score=_score,
    score_blocks=True,
    check=_check,
    normalise=_normalise,
    redact=redact,
    kind_of=kind_of,
    name_of=lambda question: "",
    diagnose=diagnose,
    meanings=MEANINGS,
    texts=_TEXTS,
)
