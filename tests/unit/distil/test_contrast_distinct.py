"""A build takes every trajectory once, and a question id for one question."""

from dataclasses import replace

import pytest

from hiexp_verl.distil.contrast import distinct
from hiexp_verl.distil.pipeline import distil
from hiexp_verl.distil.rules import RulesDistiller
from hiexp_verl.errors import HiExpError
from hiexp_verl.io.datasets import read_trajectories
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.types import to_json
from tests.support.episodes import episode, trajectories, two_hops
from tests.support.factories import trajectory

ENCODER = HashEncoder(128)


def test_a_copy_is_left_out_whatever_its_id():
    good, bad = two_hops(number=0), episode(answer="Rome", number=1)
    kept, dropped = distinct([good, bad, good, replace(bad, id="other")])
    assert (kept, dropped) == ([good, bad], {"duplicate": 2})
    kept, dropped = distinct([good, bad, good, replace(bad, id="other")], copies=True)
    assert (kept, dropped) == ([good, bad, replace(bad, id="other")], {"duplicate": 1}), "another rollout that came out the same"


def test_an_id_stays_with_the_trajectory_that_had_it_first():
    good, other = two_hops(number=0), episode(answer="Rome", number=0)
    assert distinct([good, other]) == ([good], {"duplicate_id": 1})


def test_a_trajectory_judged_both_right_and_wrong_is_left_out_in_all_its_copies():
    right, wrong, other = two_hops(number=0), two_hops(number=1, correct=False), episode(answer="Rome", number=2)
    assert distinct([right, wrong, right, other]) == ([other], {"duplicate": 1, "contradictory": 2})


def test_the_score_decides_when_a_threshold_is_given():
    half = trajectory("q1", correct=True, score=0.5, id="q1#1")
    assert [t.correct for t in distinct([half, trajectory("q2", correct=False, score=0.9)], success_at=0.8)[0]] == [False, True]


def test_without_messages_a_trajectory_is_known_by_its_id():
    assert len(distinct([trajectory(id="a"), trajectory(id="b"), trajectory(id="a")])[0]) == 2


def test_one_id_for_two_questions_is_refused_with_both_texts():
    one, same = trajectory("q7", question="Who wrote Emma?"), trajectory("q7", question=" Who wrote\nEmma?", id="b")
    assert len(distinct([one, same])[0]) == 2
    with pytest.raises(HiExpError, match=r"id 'q7' stands for two questions, 'Who wrote Emma\?' and 'Who wrote Ulysses\?'"):
        distinct([one, trajectory("q7", question="Who wrote Ulysses?")])


def test_episodes_of_validation_questions_are_left_out():
    train, val, test = (replace(two_hops(number=i), extra={"split": split}) for i, split in enumerate(("train", "val", "test")))
    assert distinct([val, train, test]) == ([train], {"validation": 2})
    with pytest.raises(HiExpError, match=r"the trajectories gave no experience.*2 trajectories of validation questions"):
        distil([val, test], RulesDistiller(), ENCODER)


def test_copies_change_nothing_in_a_build_but_the_counts():
    once, twice = (distil(made, RulesDistiller(), ENCODER) for made in (trajectories(), trajectories() * 2))
    assert twice.hek.entries == once.hek.entries and twice.hek.sources == once.hek.sources
    assert twice.hek.header.thresholds == once.hek.header.thresholds
    number = len(trajectories())
    assert twice.report.counts == once.report.counts | {"trajectories": 2 * number, "left_out.duplicate": number}


def test_trajectories_without_ids_are_numbered_across_files(tmp_path):
    for name, made in (("a", two_hops()), ("b", episode(answer="Rome"))):
        write_jsonl(tmp_path / name, [to_json(made) | {"id": ""}])
    assert [t.id for t in read_trajectories(tmp_path / "a", tmp_path / "b")] == ["q1#0", "q1#1"]
