"""What a build takes in: every trajectory once, every question id for one question, nothing of a validation set."""

from collections import Counter
from collections.abc import Iterable

from hiexp_verl.errors import HiExpError
from hiexp_verl.hashing import digest_of
from hiexp_verl.text import sanitise
from hiexp_verl.types import TRAIN, Trajectory

_SHOWN_CHARS = 120  # of a question in an error


def distinct(trajectories: Iterable[Trajectory]) -> tuple[list[Trajectory], Counter[str]]:
    """Return the trajectories without repetitions, in their order, and count those left out, by reason.

    Episodes that say they are for validation (or test) are left out: experience from them would be shown in their own grading.
    A duplicate has the question, messages and label of an earlier trajectory (copies with another label stay: they show
    that the judge contradicts itself). Without messages, a trajectory is known by its id.

    Raises:
        HiExpError: one question id stands for two different questions.
    """
    kept: list[Trajectory] = []
    dropped: Counter[str] = Counter()
    texts: dict[str, str] = {}
    contents: set[tuple[bytes, bool]] = set()
    ids: set[str] = set()
    for trajectory in trajectories:
        if trajectory.extra.get("split", TRAIN) != TRAIN:
            dropped["trajectories of validation questions"] += 1
            continue
        _check_question(trajectory, texts)
        content = digest_of(trajectory.question_id, trajectory.messages or trajectory.id), trajectory.correct
        if content in contents:
            dropped["duplicate trajectories"] += 1
        elif trajectory.id and trajectory.id in ids:
            dropped["trajectories whose id another one had first"] += 1
        else:
            contents.add(content)
            ids.add(trajectory.id)
            kept.append(trajectory)
    return kept, dropped


def _check_question(trajectory: Trajectory, texts: dict[str, str]) -> None:
    text = " ".join(trajectory.question.split())
    first = texts.setdefault(trajectory.question_id, text)
    if first != text:
        found = " and ".join(repr(sanitise(each, _SHOWN_CHARS)) for each in (first, text))
        raise HiExpError(f"the question id {trajectory.question_id!r} stands for two questions, {found}; give each an id of its own")
