"""Compute what went wrong: diagnose before you reflect.

Small models cannot find the difference between two transcripts, but it can be computed: how many searches each made and
which, what they retrieved, where they part. The finding is what a distiller gets, and it is kept as provenance.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from hiexp_verl.distil.contrast import Contrast
from hiexp_verl.distil.evidence import evidence_of
from hiexp_verl.masking import Masker, Shape, asked_for, shape_of
from hiexp_verl.protocol import Search, searches
from hiexp_verl.scoring import cem, normalise
from hiexp_verl.text import FUNCTION_WORDS, alike_from_start, content_words, same_query
from hiexp_verl.types import Evidence, Trajectory

# In the order in which they are decisive: the first that holds is the main finding of a failure.
Finding = Literal[
    "no_answer",  # it ended without an answer that could be read
    "answer_form",  # it had the right thing in another form, or with more or less than was asked
    "never_searched",
    "two_in_one_query",  # it asked for both things compared in one query, the success for each on its own
    "answer_retrieved_but_missed",  # a passage with the answer was there, and it took something else
    "wrong_entity",  # it went on with another intermediate thing than the success
    "entity_never_resolved",  # the success named the intermediate thing in a later query, the failure never did
    "repeated_query",  # it asked the same again and got the same again
    "answer_repeats_question",  # it answered with a name that the question already gives
    "misjudged",  # it had looked up what there was to look up, and concluded wrongly from it
    "stopped_early",  # it searched less than the success and had not retrieved the answer
    "dropped_condition",  # its queries leave out words of the question that the success searched with
    "whole_question_query",  # it pasted the question into the search
    "answer_never_retrieved",  # none of the above, but no passage held the answer
]

_WHOLE_QUESTION = 0.9  # share of the question's words in one query
_MIN_ANSWER_CHARS = 4  # shorter answers occur in any passage by chance


@dataclass(frozen=True)
class Side:
    """What one trajectory did, as far as it can be computed."""

    trajectory_id: str
    queries: tuple[str, ...]
    prediction: str
    saw_answer: bool | None  # a passage held the answer; None when that says nothing (yes, no, very short answers)
    bridge: str  # the intermediate thing it found and searched for by name, or ""


@dataclass(frozen=True)
class Diagnosis:
    """One failure explained by one success of the same question."""

    question_id: str
    question: str
    answers: tuple[str, ...]  # all that must not stand in an entry, the gold answers first
    finding: Finding
    also: tuple[Finding, ...]  # what else holds, in order
    shape: Shape
    asked_for: str
    bridge_kind: str  # "country": what the success had to find first, or ""
    part_at: int  # number of leading searches that both made alike
    failed: Side
    succeeded: Side | None  # None for a question without successes
    masker: Masker
    evidence: tuple[Evidence, ...]  # where one can see it
    ways: tuple[tuple[str, ...], ...]  # the queries of each success: those that saw an answer first, the fewest first

    @cached_property
    def kind_of_question(self) -> str:
        """The question without names and numbers; asked for by every stage that writes or judges a title."""
        return self.masker.mask(self.question)


def diagnose(contrast: Contrast, most: int = 2) -> list[Diagnosis]:
    """Return at most `most` diagnoses with different findings, the most frequent finding first."""
    documents = [search.documents for t in (*contrast.successes, *contrast.failures) for search in searches(t.messages)]
    masker = Masker(contrast.question, documents, contrast.telling)
    ways = _ways(contrast)
    by_finding: dict[Finding, list[Diagnosis]] = {}
    for failure in contrast.failures:
        found = _diagnose_pair(contrast, failure, _model_success(contrast, failure), masker, ways)
        by_finding.setdefault(found.finding, []).append(found)
    # sorted() is stable: equally frequent findings keep their order of appearance.
    groups = sorted(by_finding.values(), key=len, reverse=True)
    return [max(group, key=lambda d: d.part_at) for group in groups[:most]]


def _model_success(contrast: Contrast, failure: Trajectory) -> Trajectory | None:
    """Return the success to hold against a failure: one with evidence for its answer, that went with the failure for longest.

    The later the two part, the more is equal that could have made the difference. Of equals, the one that searched least.
    """
    failed = [search.query for search in searches(failure.messages)]

    def order(success: Trajectory) -> tuple[bool, bool, int, int, str]:
        made = searches(success.messages)
        alike = alike_from_start(failed, [search.query for search in made])
        return (not made, not _saw(made, contrast.answers), -alike, len(made), success.id)

    return min(contrast.successes, key=order, default=None)


def _diagnose_pair(
    contrast: Contrast, failure: Trajectory, success: Trajectory | None, masker: Masker, ways: tuple[tuple[str, ...], ...]
) -> Diagnosis:
    failed = _side(failure, contrast, masker)
    succeeded = _side(success, contrast, masker) if success is not None else None
    names = _names(contrast, masker)
    checks = _checks(contrast, failed, succeeded, names, _asks_about_two(contrast, masker))
    findings: list[Finding] = [finding for finding, holds in checks if holds] or ["misjudged"]
    part_at = alike_from_start(failed.queries, succeeded.queries) if succeeded is not None else 0
    masked = masker.mask(contrast.question)
    shape = shape_of(masked)
    bridge = succeeded.bridge if succeeded is not None else ""
    return Diagnosis(
        question_id=contrast.question_id,
        question=contrast.question,
        answers=contrast.telling,
        finding=findings[0],
        also=tuple(findings[1:]),
        shape="indirect" if shape == "direct" and bridge else shape,
        asked_for=asked_for(masked),
        bridge_kind=masker.kind_of(bridge) if bridge else "",
        part_at=part_at,
        failed=failed,
        succeeded=succeeded,
        masker=masker,
        evidence=evidence_of(failure, success, part_at, contrast),
        ways=ways,
    )


def _checks(
    contrast: Contrast, failed: Side, succeeded: Side | None, names: list[frozenset[str]], two_things: bool
) -> list[tuple[Finding, bool]]:
    """Evaluate every finding, in the order of `Finding`."""
    question = content_words(contrast.question)
    good = succeeded if succeeded is not None else Side("", (), contrast.answers[0], None, "")
    searched = bool(failed.queries)
    looked_up = two_things and _each_on_its_own(failed.queries, names)
    return [
        ("no_answer", not failed.prediction.strip()),
        ("answer_form", _same_thing(failed.prediction, (good.prediction, *contrast.answers))),
        ("never_searched", not searched and (bool(good.queries) or succeeded is None)),
        ("two_in_one_query", two_things and not looked_up and _joins(failed.queries, names) and not _joins(good.queries, names)),
        ("answer_retrieved_but_missed", failed.saw_answer is True),
        ("wrong_entity", bool(good.bridge and failed.bridge) and not content_words(good.bridge) & content_words(failed.bridge)),
        ("entity_never_resolved", searched and bool(good.bridge) and not failed.bridge),
        ("repeated_query", _repeats(failed.queries) and not _repeats(good.queries)),
        ("answer_repeats_question", not two_things and _covered(content_words(failed.prediction), question) and searched),
        ("misjudged", looked_up),
        ("stopped_early", 0 < len(failed.queries) < len(good.queries)),
        ("dropped_condition", searched and len(_dropped(question, failed.queries) - _dropped(question, good.queries)) >= 2),
        ("whole_question_query", any(len(content_words(q) & question) >= _WHOLE_QUESTION * len(question) for q in failed.queries)),
        ("answer_never_retrieved", searched and failed.saw_answer is False),
    ]


def _side(trajectory: Trajectory, contrast: Contrast, masker: Masker) -> Side:
    made = searches(trajectory.messages)
    return Side(
        trajectory_id=trajectory.id,
        queries=tuple(search.query for search in made),
        prediction=trajectory.prediction,
        saw_answer=_saw(made, contrast.answers),
        bridge=_bridge(made, contrast, masker),
    )


def _saw(made: Sequence[Search], answers: Sequence[str]) -> bool | None:
    telling = [answer for answer in answers if len(normalise(answer)) >= _MIN_ANSWER_CHARS]
    return any(cem(search.documents, telling) == 1.0 for search in made) if telling else None


def _ways(contrast: Contrast) -> tuple[tuple[str, ...], ...]:
    made = [searches(success.messages) for success in contrast.successes]
    made.sort(key=lambda each: (_saw(each, contrast.answers) is False, len(each)))
    return tuple(tuple(search.query for search in each) for each in made)


def _bridge(made: Sequence[Search], contrast: Contrast, masker: Masker) -> str:
    """Return the first name in a query that the question does not give, that earlier passages do, and that is not the answer."""
    question, names = content_words(contrast.question), _names(contrast, masker)
    two_things = _asks_about_two(contrast, masker)
    seen = ""
    for number, search in enumerate(made):
        # Of two things compared, a query that still names one is about that one, whatever else it adds.
        goes_on = number > 0 and not (two_things and any(name <= content_words(search.query) for name in names))
        if goes_on:
            for name in (*masker.names(search.query), *_new_words(search.query, question)):
                words = content_words(name)
                if words and not words & question and cem(seen, [name]) and not cem(name, contrast.answers):
                    return name
        seen += "\n" + search.documents
    return ""


def _names(contrast: Contrast, masker: Masker) -> list[frozenset[str]]:
    return [words for name in masker.names(contrast.question) if (words := content_words(name))]


def _asks_about_two(contrast: Contrast, masker: Masker) -> bool:
    """Whether the question sets two named things beside each other ("X or Y", "X and Y") to compare or judge them."""
    if shape_of(contrast.question) not in ("compare", "common", "verify"):
        return False
    names = [re.escape(name) for name in masker.names(contrast.question)]
    pairs = "|".join(rf"{one}\W+(?:and|or|vs\.?)\W+(?:\w+ ){{0,3}}{other}" for one in names for other in names if one != other)
    return bool(pairs and re.search(pairs, contrast.question))


def _new_words(query: str, question: frozenset[str]) -> list[str]:
    """Return the runs of words of a lower-case query that the question does not have ("kabul afghanistan")."""
    runs: list[list[str]] = [[]]
    for word in normalise(query).split():
        if word in question or word in FUNCTION_WORDS or len(word) < 4:
            runs.append([])
        else:
            runs[-1].append(word)
    # One ordinary word is no name; two that passages hold side by side nearly always are.
    return [" ".join(run) for run in runs if len(run) >= 2]


def _same_thing(prediction: str, answers: Sequence[str]) -> bool:
    """Whether a wrong answer shares its words, or the stem of a word, with a right one ("Lithuanian" and "Lithuania")."""
    given = content_words(prediction)
    for answer in answers:
        right = content_words(answer)
        if not given or not right or given <= {"yes", "no"}:
            continue
        if len(given & right) >= 0.5 * min(len(given), len(right)) and (given <= right or right <= given):
            return True
        if len(given) == len(right) == 1 and _same_stem(min(given), min(right)):
            return True
    return False


def _same_stem(a: str, b: str) -> bool:
    alike = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return alike >= max(5, 0.7 * max(len(a), len(b)))


def _joins(queries: Sequence[str], names: list[frozenset[str]]) -> bool:
    """Whether the first query holds two of the question's names."""
    return bool(queries) and sum(name <= content_words(queries[0]) for name in names) >= 2


def _each_on_its_own(queries: Sequence[str], names: list[frozenset[str]]) -> bool:
    """Whether each of the question's names has a query without the others."""
    asked = [[name for name in names if name <= content_words(query)] for query in queries]
    return all([name] in asked for name in names)


def _repeats(queries: Sequence[str]) -> bool:
    return any(same_query(a, b) for i, a in enumerate(queries) for b in queries[i + 1 :])


def _dropped(question: frozenset[str], queries: Sequence[str]) -> frozenset[str]:
    return question.difference(*(content_words(query) for query in queries))


def _covered(words: frozenset[str], by: frozenset[str]) -> bool:
    return bool(words) and words <= by
