"""Pairs of self-distillation, by hand."""

import json
from dataclasses import replace

import pytest

from hiexp_verl.cli import main
from hiexp_verl.errors import HiExpError
from hiexp_verl.internalise.pairs import distance, pairs_of, read_pairs, students_of, write_pairs
from hiexp_verl.io.files import write_jsonl
from tests.support.factories import trajectory


def rollout(sample, *queries, question="q1", correct=True, **extra):
    turns = [{"role": "system", "content": "Search."}, {"role": "user", "content": "What is it?"}]
    for query in queries:
        turns += [{"role": "assistant", "content": f"<search>{query}</search>"}, {"role": "tool", "content": "Doc 1(Title: A) a"}]
    turns.append({"role": "assistant", "content": f"<answer>{'Paris' if correct else 'Rome'}</answer>"})
    return trajectory(question, correct, tuple(turns), id=f"{question}#{sample}", extra=extra)


def ids(pairs):
    return [(pair.reference.id, pair.student.id, round(pair.distance, 4)) for pair in pairs]


def test_the_reference_searches_least_and_the_student_is_the_wrong_rollout_that_differs_most():
    group = [
        rollout(0, "country of a", "capital of b", "once more"),
        rollout(1, "country of a", "capital of b"),
        rollout(2, "country of a", correct=False),
        rollout(3, "something else", correct=False),
        rollout(4, "quite other words"),
    ]
    pairs, left_out = pairs_of(group)
    assert ids(pairs) == [("q1#4", "q1#2", 1.0)] and not left_out, "of two that differ alike the one with the more unlike number, or id"
    pairs, _ = pairs_of(group[:4])
    assert ids(pairs) == [("q1#1", "q1#3", 1.0)]


def test_without_a_wrong_rollout_the_student_is_another_right_one():
    pairs, _ = pairs_of([rollout(0, "a b"), rollout(1, "a b", "c d"), rollout(2, "a b")])
    assert ids(pairs) == [("q1#0", "q1#1", 0.5)]


def test_what_gives_no_pair_is_counted_with_its_reason():
    rows = [
        *(rollout(i, "a b") for i in range(3)),
        rollout(0, "a", question="q2"),
        *(rollout(i, "a", question="q3", correct=False) for i in range(2)),
        rollout(1, "x", question="q2", split="validation"),
        *(rollout(i, "x", question="q4", shown=[{"entry": "e1-0001"}]) for i in range(2)),
        trajectory("q2", id="q2#9"),
    ]
    pairs, left_out = pairs_of(rows)
    assert pairs == []
    assert left_out == {"alike": 1, "one_rollout": 1, "no_success": 1, "validation": 1, "guided": 1, "no_messages": 1}


def test_a_guided_rollout_is_a_reference_and_no_student():
    seen = {"shown": [{"entry": "e2-0001"}]}
    group = [rollout(0, "a b", **seen), rollout(1, "c d", correct=False, **seen), rollout(2, "e f", correct=False)]
    assert ids(pairs_of(group)[0]) == [("q1#0", "q1#2", 1.0)]


def test_without_a_reference_every_question_with_an_unguided_rollout_has_a_student():
    seen = {"shown": [{"entry": "e2-0001"}]}
    rows = [rollout(0, "a"), rollout(1, "b", correct=False), rollout(0, "a", question="q2"), rollout(0, "a", question="q3", **seen)]
    students, left_out = students_of(rows)
    assert [t.id for t in students] == ["q1#1", "q2#0"] and left_out == {"guided": 1}
    few, left_out = students_of([rollout(0, "a", question=f"q{n}") for n in range(9)], most=4)
    assert len(few) == 4 and left_out["beyond"] == 5


def test_rollouts_of_two_steps_or_two_policies_are_no_pair():
    first, second = ({0: rollout(0, "a b"), 1: rollout(1, "c d", correct=False)} for _ in range(2))
    dumped = [replace(t, id=f"{t.id}@{step}") for step, t in ((1, first[0]), (2, second[1]), (1, first[1]))]
    pairs, left_out = pairs_of(dumped)
    assert ids(pairs) == [("q1#0@1", "q1#1@1", 1.0)] and left_out == {"one_rollout": 1}
    named = [rollout(0, "a b", policy="one"), rollout(1, "c d", correct=False, policy="other")]
    assert pairs_of(named) == ([], {"one_rollout": 2})


def test_a_wrong_rollout_that_searched_for_the_same_is_a_student():
    pairs, _ = pairs_of([rollout(0, "a b"), rollout(1, "A  b", correct=False)])
    assert ids(pairs) == [("q1#0", "q1#1", 0.0)]


def test_the_same_pairs_are_drawn_whatever_the_order():
    rows = [rollout(i, *("a", "b")[: i + 1], question=f"q{n}", correct=not i) for n in range(20) for i in range(2)]
    few, left_out = pairs_of(rows, most=5)
    again, _ = pairs_of(list(reversed(rows)), most=5)
    assert len(few) == 5 and left_out["beyond"] == 15 and sorted(ids(few)) == sorted(ids(again))


@pytest.mark.parametrize(
    ("one", "other", "expected"), [(["A b"], ["a  B"], 0), (["a"], ["b"], 1), (["a", "b"], ["b", "c"], 2 / 3), ([], [], 0)]
)
def test_the_distance_is_one_less_jaccard_of_normalised_queries(one, other, expected):
    assert distance(one, other) == pytest.approx(expected)


def test_pairs_come_back_as_they_were_and_damage_names_its_line(tmp_path):
    pairs, _ = pairs_of([rollout(0, "a b"), rollout(1, "c d", correct=False)])
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    assert list(read_pairs(tmp_path / "pairs.jsonl")) == pairs
    row = json.loads((tmp_path / "pairs.jsonl").read_text())
    assert list(row)[:4] == ["question_id", "question", "answers", "distance"]
    for damage in ({"student": None}, {"distance": "far"}, {"reference": {"question_id": "q"}}):
        write_jsonl(tmp_path / "bad.jsonl", [row | damage])
        with pytest.raises(HiExpError, match=r"bad.jsonl:1 is no pair"):
            list(read_pairs(tmp_path / "bad.jsonl"))


def test_the_command_writes_pairs_that_the_report_shows_side_by_side(tmp_path, capsys):
    write_jsonl(
        tmp_path / "t.jsonl", [rollout(0, "find the country"), rollout(1, "all at once", correct=False), rollout(0, "a", question="q2")]
    )
    out = tmp_path / "pairs" / "pairs.jsonl"
    assert main(["distil-pairs", "--trajectories", str(tmp_path / "t.jsonl"), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert (
        "1 pair in" in printed
        and "1 with a wrong student; mean distance 1.00" in printed
        and "1 questions with one rollout left out" in printed
    )
    assert main(["report", str(tmp_path / "pairs"), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "Pairs for self-distillation" in page and "find the country" in page and "all at once" in page and "distance 1.00" in page


def test_nothing_to_pair_and_a_folder_of_another_run_are_one_line(tmp_path, capsys):
    write_jsonl(tmp_path / "t.jsonl", [rollout(0, "a")])
    command = ["distil-pairs", "--trajectories", str(tmp_path / "t.jsonl"), "--out"]
    assert main([*command, str(tmp_path / "new" / "p.jsonl")]) == 2
    assert "no question gives a pair (1 questions with one rollout)" in capsys.readouterr().err
    (tmp_path / "run.json").write_text('{"kind": "training", "spec": {}}')
    assert main([*command, str(tmp_path / "p.jsonl")]) == 2
    assert "holds a run of another kind (training)" in capsys.readouterr().err
