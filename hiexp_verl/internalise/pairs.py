"""Pairs: for a question the reference, its right rollout with the fewest searches, and the student, which differs most from it.

Both are rollouts of one policy. The student was shown no experience, and is a wrong rollout where there is one, else another right
one; the reference may have been shown some: what it read is not in the text of its way. Two rollouts differ by 1 - Jaccard of the sets
of their queries; the source does not say by what.

Source: Search-E1 (arXiv:2605.22511), its offline self-distillation.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.datasets import read_jsonl, trajectory_of
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.io.rows import BadRow, number_field, object_field
from hiexp_verl.protocol import searches
from hiexp_verl.scoring import normalise
from hiexp_verl.types import TRAIN, Trajectory

# Why a rollout, or a question, has no part in a pair.
REASONS = {
    "validation": "rollouts of validation questions",
    "no_messages": "rollouts without messages",
    "one_rollout": "questions with one rollout",
    "guided": "questions whose other rollouts were all shown experience",
    "no_success": "questions without a right rollout",
    "alike": "questions whose rollouts are right and search for the same",
    "beyond": "pairs beyond the number asked for",
}
_STEP = re.compile(r"(?<=@)\d+$")  # of the id of a rollout that was dumped in training, `q1#0@3`


@dataclass(frozen=True)
class Pair:
    """Two rollouts of one question."""

    reference: Trajectory
    student: Trajectory
    distance: float  # 0 to 1

    def to_json(self) -> dict[str, Any]:
        """Return the pair as a JSON object, to be read by people, too: what is common to both stands first."""
        common = {name: getattr(self.reference, name) for name in ("question_id", "question", "answers")}
        sides = {name: asdict(getattr(self, name)) for name in ("reference", "student")}
        return {**common, "distance": round(self.distance, 4), **sides}


def pairs_of(trajectories: Iterable[Trajectory], most: int | None = None) -> tuple[list[Pair], Counter[str]]:
    """Return the pairs in the order of their questions, and how often each of `REASONS` left something out.

    Args:
        most: how many pairs at most, drawn by the ids of their questions: the same in every run.
    """
    groups, left_out = _groups(trajectories)
    pairs: list[Pair] = []
    for group in groups:
        made = _pair(group)
        if isinstance(made, Pair):
            pairs.append(made)
        else:
            left_out[made] += 1
    kept = _drawn([pair.reference.question_id for pair in pairs], most, left_out)
    return [pair for pair in pairs if pair.reference.question_id in kept], left_out


def students_of(trajectories: Iterable[Trajectory], most: int | None = None) -> tuple[list[Trajectory], Counter[str]]:
    """Return one rollout without experience of each question, a wrong one where there is one, and the counts as `pairs_of`.

    For a privilege that needs no reference.
    """
    groups, left_out = _groups(trajectories)
    students: list[Trajectory] = []
    for group in groups:
        unguided = sorted((t for t in group if not t.extra.get("shown")), key=lambda t: (t.correct, t.id))
        students += unguided[:1]
        left_out["guided"] += not unguided
    kept = _drawn([t.question_id for t in students], most, left_out)
    return [t for t in students if t.question_id in kept], +left_out


def _groups(trajectories: Iterable[Trajectory]) -> tuple[list[list[Trajectory]], Counter[str]]:
    """Return the usable rollouts by question and the weights that played them, and why others are not."""
    groups: dict[tuple[str, ...], list[Trajectory]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    for t in trajectories:
        if reason := _unusable(t):
            left_out[reason] += 1
        else:
            step = _STEP.search(t.id)
            groups[t.question_id, str(t.extra.get("policy", "")), step[0] if step else ""].append(t)
    return list(groups.values()), left_out


def _drawn(questions: Sequence[str], most: int | None, left_out: Counter[str]) -> set[str]:
    """Return at most so many questions, drawn by their ids, and count the others."""
    if most is None or len(questions) <= most:
        return set(questions)
    left_out["beyond"] = len(questions) - most
    return set(sorted(questions, key=lambda each: hashlib.sha256(each.encode("utf-8", "replace")).digest())[:most])


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """Write the pairs as JSON lines, atomically."""
    write_jsonl(path, (pair.to_json() for pair in pairs))


def read_pairs(path: Path) -> Iterator[Pair]:
    """Yield the pairs of a file.

    Raises:
        HiExpError: the file is missing, or a line is no pair.
    """
    for place, row in read_jsonl(path, "file of pairs"):
        try:
            reference, student = (trajectory_of(object_field(row, name)) for name in ("reference", "student"))
            yield Pair(reference, student, number_field(row, "distance"))
        except BadRow as error:
            raise HiExpError(f"{place} is no pair ({error}); make the file with `hiexp distil-pairs`") from error


def check_policy(path: Path, pairs: Iterable[Pair], identity: str) -> None:
    """Check that the rollouts of the pairs are of the policy with this identity (`rollout.policy.identify`).

    Raises:
        HiExpError: one is of another policy, or it is not known whose it is.
    """
    for pair in pairs:
        for t in (pair.reference, pair.student):
            if (found := str(t.extra.get("policy", ""))) != identity:
                whose = f"{t.model} ({found[:40]})" if found else f"{t.model}, whose weights and tokenizer are not known"
                raise HiExpError(
                    f"{path}: the rollout {t.id} is of {whose}, and the model to train is another ({identity[:12]}); give the model that "
                    "played it, or --same-model if you know that it is the same"
                )


def distance(one: Sequence[str], other: Sequence[str]) -> float:
    """Return 1 - Jaccard of the sets of normalised queries; 0 where neither searched."""
    mine, theirs = ({normalise(query) for query in queries} for queries in (one, other))
    return 1 - len(mine & theirs) / len(mine | theirs) if mine | theirs else 0.0


def _unusable(t: Trajectory) -> str:
    if t.extra.get("split", TRAIN) != TRAIN:
        return "validation"
    return "" if t.messages else "no_messages"


def _pair(group: Sequence[Trajectory]) -> Pair | str:
    """Return the pair of a question, or why it has none."""
    if len(group) < 2:
        return "one_rollout"
    queries = {id(t): [search.query for search in searches(t.messages)] for t in group}
    right = [t for t in group if t.correct]
    if not right:
        return "no_success"
    reference = min(right, key=lambda t: (len(queries[id(t)]), t.id))
    unguided = [t for t in group if t is not reference and not t.extra.get("shown")]
    if not unguided:
        return "guided"
    others = [t for t in unguided if not t.correct] or unguided

    def difference(t: Trajectory) -> tuple[float, int]:
        return distance(queries[id(reference)], queries[id(t)]), abs(len(queries[id(t)]) - len(queries[id(reference)]))

    # Of equals the first by id.
    student = max(sorted(others, key=lambda t: t.id), key=difference)
    if student.correct and difference(student) == (0.0, 0):
        return "alike"
    return Pair(reference, student, difference(student)[0])
