r"""The domain of mathematics: problems solved in one turn, step by step, with the answer in `\boxed{}`."""

from collections.abc import Sequence
from pathlib import Path

from hiexp_verl.config import RewardKind
from hiexp_verl.domains.domain import Domain, texts_in
from hiexp_verl.domains.maths import scoring
from hiexp_verl.domains.maths.answers import boxed_answer, clean
from hiexp_verl.domains.maths.diagnose import MEANINGS, diagnose, own_text
from hiexp_verl.domains.maths.reading import kind_of, steps
from hiexp_verl.domains.maths.redact import redact
from hiexp_verl.domains.maths.verifier import check_installed
from hiexp_verl.scoring import Score
from hiexp_verl.types import Message

_TEXTS = texts_in(Path(__file__).parent / "prompts")


def _score(prediction: str | None, answers: Sequence[str], kind: RewardKind, question: str) -> Score:
    return scoring.score(prediction, answers)


def _steps(messages: Sequence[Message]) -> list[str]:
    return [step.text for message in messages if message.get("role") == "assistant" for step in steps(own_text(message))]


MATHS = Domain(
    name="maths",
    system_prompt=lambda format: _TEXTS["system.txt"].strip(),
    answer_in=boxed_answer,
    actions=_steps,
    score=_score,
    score_blocks=True,
    check=check_installed,
    normalise=clean,
    redact=redact,
    kind_of=kind_of,
    name_of=lambda question: "",
    diagnose=diagnose,
    meanings=MEANINGS,
    texts=_TEXTS,
)
