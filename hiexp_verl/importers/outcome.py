"""What a trajectory's outcome is where its row does not say."""

from collections.abc import Sequence

from hiexp_verl.protocol import text_of
from hiexp_verl.scoring import extract_answer, score, strip_tool_text
from hiexp_verl.types import Message


def prediction_of(messages: Sequence[Message]) -> str:
    """Return the last answer that the agent itself wrote, or an empty string."""
    spoken = "\n".join(strip_tool_text(text_of(message)) for message in messages if message["role"] == "assistant")
    return extract_answer(spoken) or ""


def judge(prediction: str, answers: Sequence[str], reward: float | None = None, correct: bool | None = None) -> tuple[float, bool]:
    """Return (score, correct): what is known is kept, what is missing is scored against the answers.

    Where only `correct` is known, it is the score.
    """
    scored = score(prediction, answers)
    if reward is None:
        reward = scored.reward if correct is None else float(correct)
    return reward, scored.correct if correct is None else correct
