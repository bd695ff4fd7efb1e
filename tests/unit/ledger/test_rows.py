"""Rows of the ledger survive JSON, kills and full disks, and a rollout counts once."""

import json
import logging
from dataclasses import replace

import pytest

from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.record import EpisodeRecord
from hiexp_verl.ledger.rows import LEDGER, LedgerRow, add_ledger, append_rows, forget_after, read_ledger, row_of, rows_of, rows_of_step
from tests.support.factories import trajectory

SHOWN = {"entry": "e1-a", "content": "0a", "level": "e1", "score": 0.9, "place": "tool", "tokens": 7, "search": 1}
EXPOSURE = {"content": "0a", "level": "e1", "place": "tool", "score": 0.9, "p": 0.9, "search": 1}


def test_two_runs_of_a_question_are_no_group(tmp_path):
    for run in ("one", "two"):
        append_rows(tmp_path / LEDGER / f"{run}.jsonl", [LedgerRow(1, "q1", 0, "v", "full", 1.0)])
    assert [row.group for row in read_ledger(tmp_path)] == ["one/q1", "two/q1"]


def test_the_ledger_of_another_hek_is_added_once_and_not_to_itself(tmp_path):
    first, second = (tmp_path / name for name in ("a", "b"))
    for root in (first, second):
        append_rows(root / LEDGER / "run.jsonl", [LedgerRow(1, "q1", 0, root.name, "full", 1.0)])
    assert [add_ledger(first, second, "b") for _ in range(2)] == [1, 1] and add_ledger(first, first, "a") == 0
    assert sorted(row.hek for row in read_ledger(first)) == ["a", "b"] and len(read_ledger(second)) == 1
    assert add_ledger(first, tmp_path / "nothing", "c") == 0


def test_a_run_that_is_in_the_ledger_under_another_name_is_not_added_twice(tmp_path):
    first, merged = (tmp_path / name for name in ("a", "merged"))
    run = [row(step) for step in (1, 2, 3)]
    append_rows(first / LEDGER / "run.jsonl", run[:2])
    for name in ("v1", "v2"):  # two versions of one HEK have one ledger
        assert add_ledger(merged, first, name) == 1
    assert [each.step for each in read_ledger(merged)] == [1, 2]
    append_rows(first / LEDGER / "run.jsonl", run[2:])
    append_rows(first / LEDGER / "other.jsonl", [row(1, group="q2")])
    assert add_ledger(merged, first, "v3") == 2
    assert sorted((each.step, each.group.partition("/")[2]) for each in read_ledger(merged)) == [(1, "q1"), (1, "q2"), (2, "q1"), (3, "q1")]


def row(step=1, group="q1", session=0, **more):
    return LedgerRow(step, group, session, "hash", "full", 1.0, **more)


def test_a_row_has_what_the_episode_was_shown_and_what_was_left_out():
    record = EpisodeRecord("q1", "Who?", sample=3, arm="full", hek="abc", shown=(SHOWN,), masked=({**SHOWN, "content": "0b"},))
    found = row_of(record, 0.5, step=7, mask=0.1)
    assert found == LedgerRow(7, "q1", 3, "abc", "full", 0.5, (EXPOSURE,), ({**EXPOSURE, "content": "0b"},))
    assert row_of(replace(record, lookup_failures=1), 0.5).lookup_failed


def test_rollouts_have_rows_and_validation_has_none():
    def played(split):
        record = EpisodeRecord("q1", "Who?", split=split, shown=(SHOWN,), hek="abc")
        return trajectory("q1", score=0.7, extra=record.extra())

    assert [r.reward for r in rows_of([played("train"), played(None), played("validation")])] == [0.7, 0.7]


def test_two_groups_of_a_question_in_one_step_stay_apart_whatever_verl_calls_them():
    record = EpisodeRecord("q1", "Who?")
    other = EpisodeRecord("q10", "Which?")
    episodes = [("uid-x", record, 1.0), ("uid-y", record, 0.0), ("uid-x", record, 0.5), ("uid-z", other, 0.5)]
    assert [r.group for r in rows_of_step(episodes, 1, 0.0)] == ["q1", "q1~2", "q1", "q10"]


def test_rows_are_read_as_they_were_written(tmp_path):
    path = tmp_path / LEDGER / "run.jsonl"
    first, second = row(1, shown=(EXPOSURE,)), row(2, masked=(EXPOSURE,), lookup_failed=True)
    append_rows(path, [first])
    append_rows(path, [second])
    assert read_ledger(tmp_path) == [first, second]
    assert read_ledger(tmp_path / "nothing") == []


def test_a_resumed_run_forgets_the_steps_that_it_trains_again(tmp_path):
    path = tmp_path / LEDGER / "run.jsonl"
    append_rows(path, [row(step) for step in (1, 2, 3)])
    with path.open("a") as file:
        file.write('{"step": 4, "gro')  # killed
    assert forget_after(path, 1) == 2
    append_rows(path, [row(2, group="again")])
    assert [(r.step, r.group) for r in read_ledger(tmp_path)] == [(1, "q1"), (2, "again")]
    assert forget_after(tmp_path / "none.jsonl", 1) == 0


def test_a_step_that_was_trained_twice_counts_as_it_was_trained_last(tmp_path):
    path = tmp_path / LEDGER / "run.jsonl"
    append_rows(path, [row(1), replace(row(1), reward=0.0)])
    assert [r.reward for r in read_ledger(tmp_path)] == [0.0]


def test_lines_that_cannot_be_read_are_left_out_with_one_warning(tmp_path, caplog):
    path = tmp_path / LEDGER / "run.jsonl"
    append_rows(path, [row(1), row(2), row(3)])
    lines = path.read_text().splitlines()
    unknown = json.dumps({**json.loads(lines[0]), "step": 9, "colour": "red"})
    path.write_text("\n".join([lines[0], lines[1][:40], "[]", unknown, lines[2]]) + "\n")
    with caplog.at_level(logging.WARNING):
        assert [r.step for r in read_ledger(tmp_path)] == [1, 3]
    assert len(caplog.records) == 1 and "3 lines of the ledger" in caplog.text


def test_a_full_disk_leaves_no_half_step(tmp_path, monkeypatch):
    path = tmp_path / LEDGER / "run.jsonl"
    append_rows(path, [row(1)])

    def full(file, *rows):
        file.write('{"step": 2')
        file.flush()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hiexp_verl.io.files.append_lines", full)
    with pytest.raises(HiExpError, match="No space left"):
        append_rows(path, [row(2)])
    assert [r.step for r in read_ledger(tmp_path)] == [1] and path.read_text().endswith("}\n")
