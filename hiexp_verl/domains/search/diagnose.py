"""Compute what went wrong: diagnose before you reflect.

Small models cannot find the difference between two transcripts, but it can be computed: how many searches each made and
which, what they retrieved, where they part. The finding is what a distiller gets, and it is kept as provenance.
"""

import math
import re
from collections.abc import Sequence
from typing import Literal

from hiexp_verl.domains.diagnosis import Contrast, Diagnosis, Side, most_frequent
from hiexp_verl.domains.search.evidence import evidence_of
from hiexp_verl.masking import Masker
from hiexp_verl.protocol import Search, searches
from hiexp_verl.scoring import VERDICTS, cem, normalise
from hiexp_verl.text import FUNCTION_WORDS, alike_from_start, content_words, repeated
from hiexp_verl.types import Trajectory
from hiexp_verl.wording import asked_for, shape_of

# What can go wrong; the first that holds in `_Diagnoser.checks` is the main finding of a failure.
Finding = Literal[
    "no_answer",  # it ended without an answer that could be read
    "answer_form",  # it had the right thing in another form, or with more or less than was asked
    "never_searched",
    "answer_of_another_kind",  # it was to choose, to judge or to give a number, and answered with something else
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

MEANINGS: dict[str, str] = {
    "no_answer": "it ended without giving an answer",
    "answer_form": "it found the right thing but answered in another form, with more or with less than was asked",
    "never_searched": "it never searched and answered from memory",
    "answer_of_another_kind": "it answered with another kind of thing than the question asks for",
    "two_in_one_query": "it put both things into one query instead of looking each up on its own",
    "answer_retrieved_but_missed": "a passage with the answer was on its screen, but it took something else",
    "wrong_entity": "it went on with the wrong intermediate thing",
    "entity_never_resolved": "it never found out the name of the thing that the question only describes",
    "repeated_query": "it sent the same query again and got the same passages",
    "answer_repeats_question": "it answered with a name that the question already gives",
    "misjudged": "it had looked up what was needed, and drew the wrong conclusion from it",
    "stopped_early": "it stopped searching too early",
    "dropped_condition": "its queries left out conditions of the question",
    "whole_question_query": "it pasted the whole question into the search",
    "answer_never_retrieved": "none of its searches brought a passage with the answer",
}

_WHOLE_QUESTION = 0.9  # share of the question's words in one query
_NUMBER_WORDS = frozenset(("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "hundred", "thousand", "million"))
_MIN_ANSWER_CHARS = 4  # shorter answers occur in any passage by chance


def diagnose(contrast: Contrast, most: int = 2) -> list[Diagnosis]:
    """Return at most `most` diagnoses with different findings, the most frequent finding first."""
    diagnoser = _Diagnoser(contrast)
    return most_frequent([diagnoser.diagnosis_of(failure) for failure in contrast.failures], most)


class _Diagnoser:
    """Diagnoses the failures of one contrast."""

    def __init__(self, contrast: Contrast) -> None:
        documents = [search.documents for t in (*contrast.successes, *contrast.failures) for search in searches(t.messages)]
        self.contrast = contrast
        self.masker = Masker(contrast.question, documents, contrast.all_answers)
        self.question = content_words(contrast.question)
        names = self.masker.names(contrast.question)
        self.names = [words for name in names if (words := content_words(name))]
        self.asks_about_two = _asks_about_two(contrast.question, names)
        made = [searches(success.messages) for success in contrast.successes]
        made.sort(key=lambda each: (self.saw_answer(each) is False, len(each)))
        self.ways = tuple(tuple(search.query for search in each) for each in made)

    def diagnosis_of(self, failure: Trajectory) -> Diagnosis:
        """Return what went wrong in a failure."""
        success = self.success_for(failure)
        failed = self.side(failure)
        succeeded = self.side(success) if success is not None else None
        findings: list[Finding] = [finding for finding, holds in self.checks(failed, succeeded).items() if holds] or ["misjudged"]
        part_at = alike_from_start(failed.queries, succeeded.queries) if succeeded is not None else 0
        masked = self.masker.mask(self.contrast.question)
        shape = shape_of(masked)
        bridge = succeeded.bridge if succeeded is not None else ""
        return Diagnosis(
            question_id=self.contrast.question_id,
            question=self.contrast.question,
            answers=self.contrast.all_answers,
            finding=findings[0],
            also=tuple(findings[1:]),
            shape="indirect" if shape == "direct" and bridge else shape,
            asked_for=asked_for(masked),
            bridge_kind=self.masker.kind_of(bridge) if bridge else "",
            part_at=part_at,
            failed=failed,
            succeeded=succeeded,
            masker=self.masker,
            evidence=evidence_of(failure, success, part_at, self.contrast),
            ways=self.ways,
        )

    def success_for(self, failure: Trajectory) -> Trajectory | None:
        """Return the success to compare a failure with: one that saw its answer, and whose searches were alike for longest.

        The later the two part, the more is equal that could have made the difference. Of equals, the one with the fewest searches.
        """
        failed = [search.query for search in searches(failure.messages)]

        def order(success: Trajectory) -> tuple[bool, bool, int, int, str]:
            made = searches(success.messages)
            alike = alike_from_start(failed, [search.query for search in made])
            return (not made, not self.saw_answer(made), -alike, len(made), success.id)

        return min(self.contrast.successes, key=order, default=None)

    def checks(self, failed: Side, succeeded: Side | None) -> dict[Finding, bool]:
        """Return whether each finding holds, the most decisive first."""
        good = succeeded if succeeded is not None else Side("", (), self.contrast.answers[0], None, "")
        searched, predicted = bool(failed.queries), content_words(failed.prediction)
        named = [[name for name in self.names if name <= content_words(query)] for query in failed.queries]
        looked_up = self.asks_about_two and all([name] in named for name in self.names)  # each of the two in a query without the other
        joined = self._joins(failed.queries) and not self._joins(good.queries)
        return {
            "no_answer": not failed.prediction.strip(),
            "answer_form": _same_thing(failed.prediction, (good.prediction, *self.contrast.answers)),
            "never_searched": not searched and (bool(good.queries) or succeeded is None),
            "answer_of_another_kind": self._of_another_kind(failed.prediction),
            "two_in_one_query": self.asks_about_two and not looked_up and joined,
            "answer_retrieved_but_missed": failed.saw_answer is True,
            "wrong_entity": bool(good.bridge and failed.bridge) and not content_words(good.bridge) & content_words(failed.bridge),
            "entity_never_resolved": searched and bool(good.bridge) and not failed.bridge,
            "repeated_query": repeated(failed.queries) > 0 and not repeated(good.queries),
            "answer_repeats_question": not self.asks_about_two and searched and bool(predicted) and predicted <= self.question,
            "misjudged": looked_up,
            "stopped_early": 0 < len(failed.queries) < len(good.queries),
            "dropped_condition": searched and len(self._dropped(failed.queries) - self._dropped(good.queries)) >= 2,
            "whole_question_query": any(
                len(content_words(query) & self.question) >= _WHOLE_QUESTION * len(self.question) for query in failed.queries
            ),
            "answer_never_retrieved": searched and failed.saw_answer is False,
        }

    def side(self, trajectory: Trajectory) -> Side:
        """Return what a trajectory did."""
        made = searches(trajectory.messages)
        queries = tuple(search.query for search in made)
        return Side(trajectory.id, queries, trajectory.prediction, self.saw_answer(made), self.bridge(made))

    def saw_answer(self, made: Sequence[Search]) -> bool | None:
        """Return whether a passage had the answer; None when that says nothing (yes, no, very short answers)."""
        long = [answer for answer in self.contrast.answers if len(normalise(answer)) >= _MIN_ANSWER_CHARS]
        return any(cem(search.documents, long) == 1.0 for search in made) if long else None

    def bridge(self, made: Sequence[Search]) -> str:
        """Return the first name in a query that the question does not give, that earlier passages do, and that is not the answer."""
        seen = ""
        for number, search in enumerate(made):
            # Of two things compared, a query that still names one is about that one, whatever else it adds.
            about_one = self.asks_about_two and any(name <= content_words(search.query) for name in self.names)
            if number > 0 and not about_one:
                for name in (*self.masker.names(search.query), *_new_words(search.query, self.question)):
                    words = content_words(name)
                    if words and not words & self.question and cem(seen, [name]) and not cem(name, self.contrast.answers):
                        return name
            seen += "\n" + search.documents
        return ""

    def _of_another_kind(self, prediction: str) -> bool:
        """Whether the answer is a yes or no, one of the things named, or a number or a date, and the prediction is none of these."""
        given, answers = content_words(prediction), self.contrast.answers
        if not given:
            return False
        if all(normalise(answer) in VERDICTS for answer in answers):
            return normalise(prediction).partition(" ")[0] not in VERDICTS
        if self.asks_about_two and all(content_words(answer) <= self.question for answer in answers):
            return not given <= self.question and not any(name <= given for name in self.names)
        return all(2 * sum(_numbers(answer)) >= len(_numbers(answer)) for answer in answers) and not any(_numbers(prediction))

    def _joins(self, queries: Sequence[str]) -> bool:
        """Whether the first query has two of the question's names."""
        return bool(queries) and sum(name <= content_words(queries[0]) for name in self.names) >= 2

    def _dropped(self, queries: Sequence[str]) -> frozenset[str]:
        """Return the words of the question that no query has."""
        return self.question.difference(*(content_words(query) for query in queries))


def _numbers(text: str) -> list[bool]:
    """Return of each word whether it has a digit or is a number."""
    return [any(map(str.isdigit, word)) or word in _NUMBER_WORDS for word in normalise(text).split()]


def _asks_about_two(question: str, names: Sequence[str]) -> bool:
    """Whether the question sets two named things beside each other ("X or Y", "X and Y") to compare or judge them."""
    if shape_of(question) not in ("compare", "common", "verify"):
        return False
    spelt = [re.escape(name) for name in names]
    pairs = "|".join(rf"{one}\W+(?:and|or|vs\.?)\W+(?:\w+ ){{0,3}}{other}" for one in spelt for other in spelt if one != other)
    return bool(pairs and re.search(pairs, question))


def _new_words(query: str, question: frozenset[str]) -> list[str]:
    """Return the runs of words of a lower-case query that the question does not have ("kabul afghanistan")."""
    runs: list[list[str]] = [[]]
    for word in normalise(query).split():
        if word in question or word in FUNCTION_WORDS or len(word) < 4:
            runs.append([])
        else:
            runs[-1].append(word)
    # One ordinary word is rarely a name; two that passages have side by side nearly always are.
    return [" ".join(run) for run in runs if len(run) >= 2]


def _same_thing(prediction: str, answers: Sequence[str]) -> bool:
    """Whether a wrong answer shares its words, or the stem of a word, with a right one ("Lithuanian" and "Lithuania")."""
    given = content_words(prediction)
    for answer in answers:
        right = content_words(answer)
        if not given or not right or given <= VERDICTS:
            continue
        if len(given & right) >= 0.5 * min(len(given), len(right)) and (given <= right or right <= given):
            return True
        one, other = min(given), min(right)
        stem = math.ceil(max(5, 0.7 * max(len(one), len(other))))
        if len(given) == len(right) == 1 and one[:stem] == other[:stem]:
            return True
    return False
