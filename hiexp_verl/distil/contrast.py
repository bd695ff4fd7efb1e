"""The input of a build: distinct training trajectories, grouped by question into successes beside failures."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.files import digest_of
from hiexp_verl.scoring import normalise
from hiexp_verl.text import content_words, sanitise
from hiexp_verl.types import MAX_DESCRIPTION_CHARS, TRAIN, Trajectory

_VERDICTS = frozenset(("yes", "no"))


@dataclass(frozen=True)
class Contrast:
    """All trajectories of one question, split by outcome; without a success, there is an answer."""

    question_id: str
    question: str
    answers: tuple[str, ...]  # the gold answers
    successes: tuple[Trajectory, ...]
    failures: tuple[Trajectory, ...]
    spellings: tuple[str, ...] = ()  # accepted predictions in other words, which give the answer away as well

    @property
    def telling(self) -> tuple[str, ...]:
        """What must not stand in an entry: gold answers first, then the other spellings."""
        return (*self.answers, *self.spellings)


def contrasts(
    trajectories: Iterable[Trajectory], success_at: float | None = None, single_sided: bool = False
) -> tuple[list[Contrast], Counter[str]]:
    """Group trajectories by question, in the order of first appearance, and count the questions left out, by reason.

    Args:
        success_at: a trajectory succeeds when its score reaches this; None takes its own `correct` mark.
        single_sided: also keep questions with failures only, if there is an answer to hold them against (questions with
            successes only teach nothing new).
    """
    groups: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        groups.setdefault(trajectory.question_id, []).append(trajectory)
    kept: list[Contrast] = []
    dropped: Counter[str] = Counter()
    for question_id, played in groups.items():
        group = _without_contradictions(played)
        if len(group) < len(played):
            dropped["contradictory"] += len(played) - len(group)
        if not group:
            continue
        good = [t for t in group if (t.correct if success_at is None else t.score >= success_at)]
        accepted = {normalise(t.prediction) for t in good}
        bad = [t for t in group if t not in good]
        # The judge called the same answer right once and wrong once: there is nothing to learn from that.
        clear = [t for t in bad if not t.prediction or normalise(t.prediction) not in accepted]
        answers = tuple(dict.fromkeys(answer for t in played for answer in t.answers))
        reason = _reason_to_drop(good, bad, clear, answers, single_sided)
        if reason:
            dropped[reason] += 1
        else:
            spellings = _spellings([t.prediction for t in good], answers)
            kept.append(Contrast(question_id, group[0].question, answers, tuple(good), tuple(clear), spellings))
    return kept, dropped


def _spellings(accepted: Sequence[str], gold: Sequence[str]) -> tuple[str, ...]:
    """Return the accepted predictions that are the answer in other words, each once."""
    if gold and all(normalise(answer) in _VERDICTS for answer in gold):
        return ()  # "both are" for "yes" tells nothing
    known = {normalise(answer) for answer in gold}
    found: dict[str, str] = {}
    for prediction in accepted:
        # Function words alone would be taken out of every entry; what is longer than any entry cannot stand in one.
        if content_words(prediction) - _VERDICTS and len(prediction) <= MAX_DESCRIPTION_CHARS and normalise(prediction) not in known:
            found.setdefault(normalise(prediction), prediction)
    return tuple(found.values())


def _without_contradictions(played: list[Trajectory]) -> list[Trajectory]:
    """Leave out trajectories that occur both as right and as wrong: their judge contradicts itself."""
    marks: dict[str, set[bool]] = {}
    keys = [json.dumps(t.messages, sort_keys=True) if t.messages else t.id for t in played]
    for key, trajectory in zip(keys, played, strict=True):
        marks.setdefault(key, set()).add(trajectory.correct)
    return [t for key, t in zip(keys, played, strict=True) if len(marks[key]) == 1]


def _reason_to_drop(
    good: list[Trajectory], bad: list[Trajectory], clear: list[Trajectory], answers: tuple[str, ...], single_sided: bool
) -> str:
    if not bad:
        return "successes_only"
    if not good and not single_sided:
        return "failures_only"
    if not good and not answers:
        return "failures_only_unanswered"
    if not clear:
        return "accepted_failures"
    return ""


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
            dropped["validation"] += 1
            continue
        _check_question(trajectory, texts)
        content = digest_of(trajectory.question_id, trajectory.messages or trajectory.id), trajectory.correct
        if content in contents:
            dropped["duplicate"] += 1
        elif trajectory.id and trajectory.id in ids:
            dropped["duplicate_id"] += 1
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
