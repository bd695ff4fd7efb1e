"""JSON lines: every fault names file and line, a write is whole or nothing."""

import gzip
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.datasets import read_corpus, read_questions, read_trajectories
from hiexp_verl.io.files import atomic_writer, write_jsonl
from hiexp_verl.types import to_json
from tests.support.factories import trajectory


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ('{"id": "1", "question": "q", "answer": "a"}\n{"id"', ":2: not JSON"),
        ("[1]\n", ", row 0: not a JSON object (found int)"),
        ('{"id": "1", "question": "q"}\n', ":1: no answer"),
        ('{"id": "1", "answer": "a"}\n', ":1: no field 'question'"),
        ('{"id": "1", "question": " ", "answer": "a"}\n', ":1: the question is empty"),
        ('{"id": "1", "question": "q", "answer": "a"}\n' * 2, ":2: the id '1' occurs twice"),
        ('{"id": "", "question": "q", "answer": "a"}\n', ":1: 'id' must be a text or a number"),
        ('{"id": "1", "question": null, "answer": "a"}\n', ":1: the field 'question' is null"),
        ('[{"id": "1"', "is not a JSON list"),
        ("[]", "is empty"),
        ('{"id": "1", "question": "q", "answer": NaN}\n', ":1: an answer must be a text or a number"),
        ('{"id": "1", "question": "q", "answer": 1' + "0" * 400 + "}\n", ":1: not JSON (an integer of 401 digits)"),
    ],
)
def test_bad_questions_are_named(tmp_path, content, message):
    path = tmp_path / "q.jsonl"
    path.write_text(content)
    with pytest.raises(HiExpError) as error:
        read_questions(path)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_answers_may_be_a_list_a_text_or_a_number(tmp_path):
    path = tmp_path / "q.jsonl"
    rows = [{"id": 1, "question": "q", "answers": ["a", " b "]}, {"id": 2, "question": "q", "answer": 7}]
    write_jsonl(path, rows)
    assert [q.answers for q in read_questions(path)] == [("a", "b"), ("7",)]


def test_a_truncated_gzip_is_a_clear_error(tmp_path):
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps({"id": "1", "title": "t", "text": "x" * 5000}).encode())[:-20])
    with pytest.raises(HiExpError, match="the file is damaged"):
        read_corpus(path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_writer(path) as file:
        file.write("new")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_trajectories_survive_the_round_trip(tmp_path):
    first = trajectory()
    write_jsonl(tmp_path / "t.jsonl", [first])
    (second,) = read_trajectories(tmp_path / "t.jsonl")
    assert (second.question_id, second.messages, second.score) == (first.question_id, first.messages, first.score)


@pytest.mark.parametrize("change", [{"score": "bad"}, {"score": True}, {"correct": "maybe"}, {"extra": "s"}, {"messages": "s"}])
def test_a_trajectory_with_a_field_of_the_wrong_type_is_named(tmp_path, change):
    path = tmp_path / "t.jsonl"
    write_jsonl(path, [{**to_json(trajectory()), **change}])
    with pytest.raises(HiExpError, match=rf"t.jsonl:1: '{next(iter(change))}' must be"):
        list(read_trajectories(path))


@pytest.mark.parametrize("nothing", ["", " "])
def test_a_trajectory_of_no_question_is_named(tmp_path, nothing):
    path = tmp_path / "t.jsonl"
    write_jsonl(path, [trajectory(), {**to_json(trajectory()), "question_id": nothing}])
    with pytest.raises(HiExpError, match=r"t\.jsonl:2: the question_id is empty"):
        list(read_trajectories(path))


@given(st.binary(max_size=200))
def test_garbage_is_refused_and_never_crashes(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("garbage") / "q.jsonl"
    path.write_bytes(content)
    try:
        read_questions(path)
    except HiExpError as error:
        assert str(path) in str(error)


def test_a_pipe_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(HiExpError, match="is no plain file"):
        write_jsonl(tmp_path / "pipe", [{}])
    assert (tmp_path / "pipe").is_fifo()
