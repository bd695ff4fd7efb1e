"""Only questions with both outcomes teach by default, and what is left out is counted."""

from dataclasses import replace

import pytest

from hiexp_verl.distil.contrast import contrasts
from hiexp_verl.distil.draft import Draft
from hiexp_verl.distil.pipeline import DistilSettings, distil
from hiexp_verl.distil.rules import RulesDistiller
from hiexp_verl.distil.validate import admit
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.domains.search.diagnose import diagnose
from hiexp_verl.errors import HiExpError
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.types import MAX_DESCRIPTION_CHARS
from tests.support.episodes import episode, two_hops
from tests.support.factories import trajectory


def test_successes_and_failures_of_one_question_are_set_beside_each_other():
    good, bad, other = trajectory("q1"), trajectory("q1", correct=False, id="q1#1"), trajectory("q2")
    (only,), dropped = contrasts([good, other, bad])
    assert (only.question_id, only.successes, only.failures) == ("q1", (good,), (bad,))
    assert dropped == {"successes_only": 1}


def test_failures_alone_are_kept_on_request_only():
    bad = trajectory("q1", correct=False)
    assert contrasts([bad]) == ([], {"failures_only": 1})
    (only,), _ = contrasts([bad], single_sided=True)
    assert (only.successes, only.failures) == ((), (bad,))


def test_failures_without_any_answer_are_left_out_even_on_request():
    bad = trajectory("q1", correct=False, answers=())
    assert contrasts([bad], single_sided=True) == ([], {"failures_only_unanswered": 1})
    with pytest.raises(HiExpError, match=r"no experience \(.*1 questions with failures only and no answer to hold them against"):
        distil([bad], RulesDistiller(), HashEncoder(64), DistilSettings(single_sided=True))
    (only,), _ = contrasts([bad, trajectory("q1", answers=(), id="q1#1")])
    assert diagnose(only)[0].succeeded is not None


def test_the_answers_are_those_of_all_trajectories():
    one, two = trajectory("q1", correct=False), trajectory("q1", correct=False, answers=("Paris", "City of Light"), id="q1#1")
    assert contrasts([one, two], single_sided=True)[0][0].answers == ("Paris", "City of Light")


@pytest.mark.parametrize(
    ("accepted", "counts"),
    [
        ("John Fitzgerald Kennedy", True),  # shares no word with "JFK"
        ("j.f.k.", False),  # the same once normalised
        ("President JFK", True),
        ("yes", False),
        ("the same", False),
        ("", False),
        ("x" * (MAX_DESCRIPTION_CHARS + 1), False),  # longer than any entry
    ],
)
def test_an_accepted_prediction_in_another_spelling_is_an_answer(accepted, counts):
    good = trajectory("q1", prediction=accepted, answers=("JFK",))
    (only,), _ = contrasts([good, trajectory("q1", correct=False, answers=("JFK",), id="q1#1")])
    assert (only.answers, only.spellings) == (("JFK",), (accepted,) if counts else ())
    assert diagnose(only)[0].answers == only.all_answers == (*only.answers, *only.spellings)


def test_what_was_accepted_for_yes_or_no_is_no_answer_to_hide():
    good = trajectory("q1", prediction="Both are films", answers=("yes",))
    (only,), _ = contrasts([good, trajectory("q1", correct=False, answers=("yes",), id="q1#1")])
    assert (only.answers, only.spellings) == (("yes",), ())


def test_an_accepted_spelling_does_not_get_into_an_entry():
    played = [two_hops(), two_hops(number=1), episode(answer="Tehran", number=2)]
    played[1] = replace(played[1], prediction="Cabool City", correct=True)
    (only,), _ = contrasts(played)
    told = admit(Draft("A described country", "Find the country first: cabool-city is its capital.", "guide"), diagnose(only)[0], SEARCH)
    assert isinstance(told, Draft) and told.description == "Find the country first: the answer is its capital."


def test_an_answer_judged_both_ways_teaches_nothing():
    noise = trajectory("q1", correct=False, prediction="paris.", id="q1#1")
    assert contrasts([trajectory("q1"), noise])[1] == {"accepted_failures": 1}


def test_no_trajectories_give_no_contrasts():
    assert contrasts([]) == ([], {})
