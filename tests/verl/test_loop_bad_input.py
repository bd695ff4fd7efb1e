"""The loop in training meets bad input: training goes on or stops with one clear line, and nothing half is published."""

import errno
import json
import os
import random
import shutil
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import ray

from hiexp_verl.config import HiExpConfig, LedgerConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.evolve.background import Candidate, make_candidate
from hiexp_verl.hek import HEK
from hiexp_verl.hek.store import CURRENT
from hiexp_verl.io import files
from hiexp_verl.ledger.credit import credit
from hiexp_verl.ledger.rows import append_rows, read_run
from hiexp_verl.ledger.table import credits_json
from hiexp_verl.plugin import loop as module
from hiexp_verl.plugin.loop import Loop, Versions
from tests.support.loops import NEW_HASH, OLD_HEK, events, loop_of, rows, trained
from tests.support.peaks import builder_task


@pytest.fixture
def run(tmp_path, monkeypatch):
    return loop_of(tmp_path, monkeypatch)


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_ledger_cut_in_the_middle_of_a_run_loses_the_row_that_was_cut_alone(run, caplog):
    loop, _, ledger, _ = run
    trained(loop, ledger, range(1, 7))
    whole = ledger.read_bytes()
    ledger.write_bytes(whole[:-40])
    trained(loop, ledger, [7])
    assert "line that was not written in full" in caplog.text
    assert len(read_run(ledger)) == 19, "of two steps of ten rows; without the cut the next row would be lost, too"
    assert loop.state.counts["accepted"] == 1, "what the loop has seen itself it does not read again"


def test_rows_of_versions_that_are_gone_count_for_entries_that_are_still_there_and_decide_nothing(run, tmp_path):
    loop, made, ledger, _ = run
    old = loop.state.incumbent
    trained(loop, ledger, range(1, 7))
    seen = [{"content": each, "level": "e2", "place": "prompt", "score": 0.9, "p": 1.0} for each in (OLD_HEK.entries[1].content_id, "0f")]
    gone = [replace(row, hek="gone", shown=tuple(seen), reward=float(row.session)) for row in rows(7, 0, 1, "x")]
    none = [replace(row, session=row.session + 2, hek="", arm="none", shown=()) for row in gone]
    append_rows(ledger, [*gone, *none])
    found = credits_json(OLD_HEK, credit(read_run(ledger), OLD_HEK.entries))
    assert [each["entry"] for each in found["entries"]] == ["e2-0001"]
    loop.step(7, [*gone, *none], alarmed=False)
    assert loop.versions == Versions(old, made["new"]) and loop.state.spans[-1].groups == 0


def test_a_clock_that_jumps_changes_no_decision(tmp_path, monkeypatch):
    states = []
    for name, jumps in (("even", False), ("jumps", True)):
        loop, _, ledger, _ = loop_of(tmp_path / name, monkeypatch)
        if jumps:
            monkeypatch.setattr(time, "time", partial(random.Random(0).uniform, -1e9, 4e9))
        trained(loop, ledger, range(1, 6))
        if jumps:
            for path in (ledger.parent, loop._events.parent / "hek"):
                os.utime(path, (4e9, 4e9))
        trained(loop, ledger, range(6, 16))
        states.append(({**loop.state.to_json(), "incumbent": 0, "previous": 0, "candidate": 0}, events(loop)))
    assert states[0] == states[1] and states[0][0]["counts"]["accepted"] == 1


def test_two_trainings_on_one_hek_keep_apart_what_they_count_and_make_versions_of_their_own(run, tmp_path):
    root, current = tmp_path / "hek", (tmp_path / "hek" / CURRENT).read_text()
    mine = [replace(OLD_HEK, header=replace(OLD_HEK.header, reason=f"of run {number}")) for number in range(4)]
    saved: list[Path] = []
    threads = [threading.Thread(target=lambda hek=hek: saved.append(hek.save(root, candidate=True))) for hek in mine]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(saved)) == 4 and {HEK.load(path).header.reason for path in saved} == {hek.header.reason for hek in mine}
    assert (root / CURRENT).read_text() == current

    from omegaconf import OmegaConf

    from hiexp_verl.plugin.checkpoint import ledger_of

    settings = HiExpConfig(hek=str(root), ledger=LedgerConfig(enabled=True))
    places = [OmegaConf.create({"trainer": {"default_local_dir": f"{tmp_path}/{name}", "experiment_name": "run"}}) for name in "ab"]
    assert len({ledger_of(settings, each) for each in places}) == 2, "a second training with the same folder is refused (test_flag)"


@pytest.mark.parametrize("result", ["a text", 7, {}, (), [None], Candidate("nowhere", "x", ("0a",)), Candidate("/", "x", ("0a",))])
def test_a_builder_that_returns_nonsense_is_a_failure_and_training_goes_on(run, result, caplog):
    loop, made, ledger, _ = run
    old, made["result"] = loop.versions, result
    trained(loop, ledger, range(1, 8))
    assert loop.versions == old and events(loop) == ["failed"] and "training goes on" in caplog.text


def test_a_candidate_that_is_half_or_the_version_in_use_is_not_played(run):
    loop, made, ledger, _ = run
    old = loop.versions
    made["result"] = Candidate(*loop.state.incumbent, came=("0a",))
    trained(loop, ledger, range(1, 7))
    (Path(made["new"].path) / "vectors.npy").write_bytes(b"half")
    made["result"] = Candidate(*made["new"], came=("0a",))
    trained(loop, ledger, range(7, 11))
    assert loop.versions == old and events(loop) == ["failed", "failed"]


def _hang(task, policy):
    time.sleep(600)


def test_a_builder_that_hangs_is_ended_and_training_goes_on(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        _, _, ledger, settings = loop_of(tmp_path, patched)
    settings = replace(settings, loop=replace(settings.loop, timeout=0.5))
    monkeypatch.setattr(module, "_make_candidate", _hang)
    loop = Loop(settings, tmp_path, ledger, ())
    ray.init(num_cpus=1, include_dashboard=False, ignore_reinit_error=True)
    try:
        began = time.monotonic()
        trained(loop, ledger, range(1, 8))
        assert time.monotonic() - began < 30 and events(loop) == ["failed"]
        assert "has not finished in 0.5 s" in loop._events.read_text()
    finally:
        ray.shutdown()


def test_a_candidate_that_is_damaged_while_it_is_tested_is_not_published(run, caplog):
    loop, made, ledger, _ = run
    old = loop.state.incumbent
    trained(loop, ledger, range(1, 7))
    (Path(made["new"].path) / "entries.jsonl").write_text("")
    trained(loop, ledger, [7])
    assert loop.versions == Versions(old) and events(loop) == ["proposed", "failed"] and "training goes on" in caplog.text


def test_a_version_that_is_gone_is_not_gone_back_to(run, caplog):
    loop, made, ledger, _ = run
    trained(loop, ledger, range(1, 8))
    shutil.rmtree(loop.state.previous.path)
    trained(loop, ledger, [8], alarmed=True)
    assert loop.versions == Versions(made["new"]) and events(loop)[-1] == "accept"
    assert "the HEK stays at" in caplog.text


def test_a_damaged_version_stops_a_resume_in_one_line(run):
    loop, made, ledger, settings = run
    trained(loop, ledger, range(1, 8))
    state = json.loads(json.dumps(loop.state.to_json()))
    (Path(made["new"].path) / "entries.jsonl").write_text("{}\n")
    with pytest.raises(HiExpError, match=r"^the checkpoint was trained with the HEK .*0002, which is damaged; put that version back$"):
        Loop(settings, loop._events.parent, ledger, ()).load(state, 7)


def test_a_disk_that_fills_up_while_an_event_is_noted_leaves_whole_lines_and_the_next_is_noted(run, monkeypatch, caplog):
    loop, _, ledger, _ = run
    trained(loop, ledger, range(1, 7))
    append = files.append_lines

    def half(file, *given):
        file.write(json.dumps(given[0])[:20])
        file.flush()
        full()

    with monkeypatch.context() as patched:
        patched.setattr(files, "append_lines", half)
        loop.step(7, rows(7, 0, 1, loop.state.incumbent.content_hash), alarmed=False)
    assert loop.state.incumbent.content_hash == NEW_HASH, "what was decided holds"
    assert "accept was not noted: disk full" in caplog.text and files.append_lines is append
    trained(loop, ledger, [8], alarmed=True)
    assert events(loop) == ["proposed", "held"]


def test_half_an_event_that_a_kill_left_is_dropped_before_the_next_and_at_a_resume(run):
    loop, _, ledger, settings = run
    trained(loop, ledger, range(1, 7))
    with loop._events.open("a") as file:
        file.write('{"step": 7, "eve')
    trained(loop, ledger, [7])
    assert events(loop) == ["proposed", "accept"]
    with loop._events.open("a") as file:
        file.write('{"step": 7, "eve\n[1]\n{"step": null}\n{"st')
    again = Loop(settings, loop._events.parent, ledger, ())
    again.load(loop.state.to_json(), 6)
    assert events(again) == ["proposed"], "that of step 7 is decided again"


def test_a_full_disk_where_the_candidate_is_saved_leaves_no_half_version(tmp_path, monkeypatch):
    task, lines = builder_task(tmp_path)
    root = Path(task.parent).parent
    before = sorted(path.name for path in root.iterdir())
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(HiExpError, match=r"^disk full: "):
            make_candidate(task)
        assert sorted(path.name for path in root.iterdir()) == before
    with pytest.raises(HiExpError, match="was distilled from 1 validation questions"):
        make_candidate(replace(task, validation=(f" {lines[0]['question'].upper()}",)))
    assert sorted(path.name for path in root.iterdir()) == before, "a candidate that knows validation questions is not saved"
    assert HEK.load(make_candidate(task).path).entries


def test_a_ledger_in_a_place_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "open", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EROFS, "Read-only file system")))
    with pytest.raises(HiExpError, match="cannot be written"):
        append_rows(tmp_path / "new" / "run.jsonl", rows(1, 0, 1, "x"))
    assert not (tmp_path / "new" / "run.jsonl").exists()
