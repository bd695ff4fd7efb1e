"""The input of a build: distinct training trajectories, grouped by question into successes beside failures."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from hiexp_verl.domains.diagnosis import Contrast
from hiexp_verl.errors import HiExpError
from hiexp_verl.io.files import digest_of
from hiexp_verl.scoring import VERDICTS, normalise
from hiexp_verl.text import content_words, sanitise
from hiexp_verl.types import MAX_DESCRIPTION_CHARS, TRAIN, Trajectory

_SHOWN_CHARS = 120  # of a question in an error


def contrasts(
    trajectories: Iterable[Trajectory], single_sided: bool = False, normalise: Callable[[str], str] = normalise
) -> tuple[list[Contrast], Counter[str]]:
    """Group trajectories by question, in the order of first appearance, and count the questions left out, by reason.

    Args:
        single_sided: also keep questions with failures only, if there is an answer to compare them with (questions with
            successes only teach nothing new).
        normalise: answers that are equal by this are the same answer.
    """
    groups: dict[str, list[Trajectory]] = defaultdict(list)
    for trajectory in trajectories:
        groups[trajectory.question_id].append(trajectory)
    kept: list[Contrast] = []
    dropped: Counter[str] = Counter()
    for question_id, group in groups.items():
        good = [t for t in group if t.correct]
        bad = [t for t in group if t not in good]
        # The judge accepted the same answer once and refused it once: nothing to learn from that.
        accepted = {normalise(t.prediction) for t in good}
        clear = [t for t in bad if not t.prediction or normalise(t.prediction) not in accepted]
        answers = tuple(dict.fromkeys(answer for t in group for answer in t.answers))
        if not bad:
            dropped["successes_only"] += 1
        elif not good and not single_sided:
            dropped["failures_only"] += 1
        elif not good and not answers:
            dropped["failures_only_unanswered"] += 1
        elif not clear:
            dropped["accepted_failures"] += 1
        else:
            spellings = _spellings([t.prediction for t in good], answers)
            kept.append(Contrast(question_id, group[0].question, answers, tuple(good), tuple(clear), spellings))
    return kept, +dropped


def _spellings(accepted: Sequence[str], gold: Sequence[str]) -> tuple[str, ...]:
    """Return the accepted predictions that are the answer in other words, each once."""
    if gold and all(normalise(answer) in VERDICTS for answer in gold):
        return ()  # "both are" for "yes" gives nothing away
    known = {normalise(answer) for answer in gold}
    found: dict[str, str] = {}
    for prediction in accepted:
        # Function words alone would be taken out of every entry; what is longer than any entry cannot be in one.
        if content_words(prediction) - VERDICTS and len(prediction) <= MAX_DESCRIPTION_CHARS and normalise(prediction) not in known:
            found.setdefault(normalise(prediction), prediction)
    return tuple(found.values())


def distinct(
    trajectories: Iterable[Trajectory], success_at: float | None = None, copies: bool = False
) -> tuple[list[Trajectory], Counter[str]]:
    """Return the trajectories to distil, in their order, each marked as right or wrong, and count those left out, by reason.

    Episodes of validation (or test) questions are left out: experience from them would be shown in their own grading.
    A duplicate has the question, messages and label of an earlier trajectory; of copies with different labels, the judge
    contradicts itself, and all are left out. Without messages, the id identifies a trajectory.

    Args:
        success_at: a trajectory is right when its score reaches this; None takes its own `correct` mark.
        copies: keep duplicates with an id of their own: rollouts that came out the same, which a tally counts.

    Raises:
        HiExpError: one question id stands for two different questions.
    """
    kept: list[tuple[bytes, Trajectory]] = []
    dropped: Counter[str] = Counter()
    texts: dict[str, str] = {}
    seen: set[str] = set()
    labels: dict[bytes, set[bool]] = defaultdict(set)
    for t in trajectories:
        if success_at is not None:
            t = replace(t, correct=t.score >= success_at)
        if t.extra.get("split", TRAIN) != TRAIN:
            dropped["validation"] += 1
            continue
        text = " ".join(t.question.split())
        if text != (first := texts.setdefault(t.question_id, text)):
            found = " and ".join(repr(sanitise(each, _SHOWN_CHARS)) for each in (first, text))
            raise HiExpError(f"the question id {t.question_id!r} stands for two questions, {found}; give each an id of its own")
        content = digest_of(t.question_id, t.messages or t.id)
        if t.correct in labels[content] and not (copies and t.id and t.id not in seen):
            dropped["duplicate"] += 1
        elif t.id and t.id in seen:
            dropped["duplicate_id"] += 1
        else:
            labels[content].add(t.correct)
            seen.add(t.id)
            kept.append((content, t))
    clear = [t for content, t in kept if len(labels[content]) == 1]
    dropped["contradictory"] = len(kept) - len(clear)
    return clear, +dropped
