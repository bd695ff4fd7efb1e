"""Patterns of kinds of questions: plans by tally over all rollouts, right and wrong."""

from collections.abc import Sequence

from hiexp_verl.distil.kinds import patterns_of_kinds
from hiexp_verl.distil.pipeline import distil
from hiexp_verl.distil.rules import RulesDistiller
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.types import FOUND, GIVEN, Trajectory
from tests.support.episodes import episode
from tests.support.factories import entry

PEAKS = {"Noshak": "Afghanistan", "Toubkal": "Morocco", "Kebnekaise": "Sweden"}
KIND = f"What is the capital of the country whose highest point is {GIVEN}?"
GOOD, BAD = ("{peak} highest point country", "capital of {country}"), ("{peak} mountain country", "largest city of {country}")


def rollout(peak: str, searches: Sequence[str], right: bool, number: int) -> Trajectory:
    queries = [
        (search.format(peak=peak, country=PEAKS[peak]), f'Doc 1(Title: "{PEAKS[peak]}") About {PEAKS[peak]}.') for search in searches
    ]
    question, answer = KIND.replace(GIVEN, peak), "Right Town" if right else "Elsewhere"
    return episode(*queries, answer=answer, question=question, answers=("Right Town",), question_id=peak, number=number)


def rollouts(*given: tuple[str, Sequence[str], bool]) -> list[Trajectory]:
    return [rollout(*each, number) for number, each in enumerate(given)]


def test_the_plan_that_is_right_most_often_and_wrong_least_is_the_pattern():
    # GOOD: (3 + 0.2) / (3 + 1.2) = 0.76; BAD: (2 + 0.2) / (4 + 1.2) = 0.42.
    good = [("Noshak", GOOD, True), ("Toubkal", GOOD, True), ("Toubkal", GOOD, True)]
    bad = [("Noshak", BAD, True), ("Kebnekaise", BAD, True), ("Kebnekaise", BAD, False), ("Noshak", BAD, False)]
    (pattern,), dropped = patterns_of_kinds(rollouts(*good, *bad), [], support=2, domain=SEARCH)
    assert pattern.title == KIND and pattern.level == "e2" and not dropped
    assert pattern.plans[0].searches == (f"{GIVEN} highest point country", f"capital of {FOUND}")
    assert pattern.description == pattern.plans[0].sentence
    assert (pattern.counters, pattern.questions) == ({"right": 3, "wrong": 0}, ("Noshak", "Toubkal"))
    assert len(pattern.sources) == 3 and pattern.hops == (2,)


def test_a_plan_that_solved_one_question_is_left_out_however_often_it_did():
    lucky = [("Noshak", GOOD, True)] * 5
    patterns, dropped = patterns_of_kinds(rollouts(*lucky), [], support=2, domain=SEARCH)
    assert not patterns and dropped == {"e2.no_support": 1}
    assert len(patterns_of_kinds(rollouts(*lucky), [], support=1, domain=SEARCH)[0]) == 1


def test_one_question_under_two_ids_counts_once():
    first = rollout("Noshak", GOOD, True, 0)
    again = episode(
        *(("Noshak highest point country", "peak"), ("capital of Afghanistan", "capital")),
        answer="Right Town",
        question=first.question,
        answers=("Right Town",),
        question_id="other",
        number=1,
    )
    assert not patterns_of_kinds([first, again], [], support=2, domain=SEARCH)[0]


def test_the_cases_of_its_questions_are_below_a_pattern():
    cases = [entry("e1-1", questions=("Noshak",), findings=("wrong_entity",)), entry("e1-2", questions=("elsewhere",))]
    (pattern,), _ = patterns_of_kinds(rollouts(("Noshak", GOOD, True), ("Toubkal", GOOD, True)), cases, support=2, domain=SEARCH)
    assert (pattern.children, pattern.findings) == (("e1-1",), ("wrong_entity",))


def test_episodes_that_are_no_plan_are_no_evidence():
    direct = ("{peak} capital",)
    assert patterns_of_kinds(rollouts(("Noshak", direct, True), ("Toubkal", direct, True)), [], support=2, domain=SEARCH) == ([], {})


def test_rollouts_that_came_out_the_same_are_all_tallied():
    # GOOD: (2 + 0.2) / (5 + 1.2) = 0.35, its three failures of Kebnekaise are word for word the same; BAD: (2 + 0.2) / (3 + 1.2) = 0.52.
    good = [("Noshak", GOOD, True), ("Toubkal", GOOD, True), *[("Kebnekaise", GOOD, False)] * 3]
    bad = [("Noshak", BAD, True), ("Toubkal", BAD, True), ("Kebnekaise", BAD, False)]
    given = rollouts(*good, *bad)
    hek = distil([*given, given[-1]], RulesDistiller(), HashEncoder(64)).hek
    (pattern,) = (entry for entry in hek.entries if entry.title == KIND and entry.level == "e2")
    assert pattern.plans[0].searches[0] == f"{GIVEN} mountain country"
    assert pattern.counters == {"right": 2, "wrong": 1}, "a rollout given twice counts once"
    assert set(pattern.sources) <= {source.id for source in hek.sources}
