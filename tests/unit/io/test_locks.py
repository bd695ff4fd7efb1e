"""Two writers: none hides the other's change, whoever waits is told, and what a killed writer left is cleared."""

import fcntl
import os
import threading
import time

import pytest

from hiexp_verl.cli import main
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek import HEK, versions
from hiexp_verl.hek.edit import edit
from hiexp_verl.hek.store import current_version
from hiexp_verl.io import files
from hiexp_verl.io.files import atomic_writer, locked, only_one, write_jsonl
from hiexp_verl.ledger.keep import Leaving
from tests.support.episodes import trajectories
from tests.support.stored_hek import hek


def test_a_change_made_meanwhile_is_not_hidden(tmp_path):
    hek().save(tmp_path)
    since, before = current_version(tmp_path), HEK.load(tmp_path)
    edit(before, "e1-0001", "first", description="Do one thing.").save(tmp_path, since)
    with pytest.raises(HiExpError, match=r"was changed meanwhile: its version is 0002, it was 0001; run the command again"):
        edit(before, "e1-0002", "second", description="Do another.").save(tmp_path, since)
    assert HEK.load(tmp_path).entry("e1-0001").description == "Do one thing."
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0001", "0002", "CURRENT"]


def test_two_edits_at_once_are_both_there_or_one_is_refused(tmp_path, capsys):
    hek().save(tmp_path)
    statuses = {}

    def one(number):
        command = ["edit", str(tmp_path), f"e1-{number:04d}", "--description", f"Do thing {number}.", "--reason", "test"]
        statuses[number] = main_without_signals(command)

    for _ in range(10):
        threads = [threading.Thread(target=one, args=(number,)) for number in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        now = HEK.load(tmp_path)
        for number, status in statuses.items():
            assert (now.entry(f"e1-{number:04d}").description == f"Do thing {number}.") == (status == 0)
        assert 0 in statuses.values()
        main(["rollback", str(tmp_path), "--to", "1"])


def main_without_signals(command):
    from hiexp_verl.cli import build_parser

    arguments = build_parser().parse_args(command)
    try:
        return arguments.verb(arguments)
    except HiExpError:
        return 2


def test_whoever_waits_is_told_for_whom(tmp_path, caplog):
    held, done = threading.Event(), threading.Event()

    def hold():
        with locked(tmp_path):
            held.set()
            done.wait(5)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(5)
    threading.Timer(1.3, done.set).start()
    with locked(tmp_path):
        pass
    holder.join()
    assert f"waiting for another process (pid {os.getpid()}) that writes to {tmp_path}" in caplog.text


def test_a_second_run_in_a_folder_is_told_who_holds_it(tmp_path):
    with only_one(tmp_path), pytest.raises(HiExpError, match=rf"another run .pid {os.getpid()}. is writing to"), only_one(tmp_path):
        pass


def test_a_second_build_that_asks_a_model_does_not_touch_the_answers_of_the_first(tmp_path, capsys):
    write_jsonl(tmp_path / "t.jsonl", trajectories())
    out = tmp_path / "hek"
    command = ["build", "--trajectories", str(tmp_path / "t.jsonl"), "--encoder", "hash:32", "--out", str(out)]
    with only_one(out, "answers.jsonl"):
        (out / "answers.jsonl").write_text("paid for")
        assert main([*command, "--distiller", "openai:http://127.0.0.1:1/v1#m"]) == 2
    assert "another run" in capsys.readouterr().err and (out / "answers.jsonl").read_text() == "paid for"
    assert main(command) == 0  # rules ask nobody


def test_a_change_while_entries_are_judged_or_a_version_is_chosen_is_not_hidden(tmp_path, capsys, monkeypatch):
    hek().save(tmp_path)

    def meanwhile(*_, **__):
        now = HEK.load(tmp_path)
        edit(now, "e1-0002", "meanwhile", description=f"Do it after {now.header.content_hash[:8]}.").save(tmp_path)
        return [Leaving("e1-0001", "harms")]

    monkeypatch.setattr("hiexp_verl.cli.ledger._rows", lambda *_: [])
    monkeypatch.setattr("hiexp_verl.cli.ledger.leaving", meanwhile)
    assert main(["ledger", str(tmp_path), "--retire"]) == 2
    before = versions._before
    monkeypatch.setattr(versions, "_before", lambda root: (before(root), meanwhile())[0])
    assert main(["rollback", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("was changed meanwhile") == 2
    assert HEK.load(tmp_path).header.reason == "edit e1-0002: meanwhile" and (tmp_path / "CURRENT").read_text() == "0003\n"


def test_what_a_killed_writer_left_is_cleared_and_that_of_a_living_one_stays(tmp_path):
    path = tmp_path / "out.jsonl"
    old = time.time() - 100
    names = [".out.jsonl.dead0000", ".out.jsonl.alive000", ".out.jsonl.fresh000", ".other.jsonl.dead000", ".out.jsonl.keep"]
    for name in names:
        (tmp_path / name).write_text("half")
        if "fresh" not in name:
            os.utime(tmp_path / name, (old, old))
    with (tmp_path / ".out.jsonl.alive000").open("rb") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        with atomic_writer(path) as file:
            file.write("whole")
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted({*names, "out.jsonl"} - {".out.jsonl.dead0000"})
    assert path.read_text() == "whole"


def test_two_writers_of_one_file_both_end_with_a_whole_file(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_FRESH_SECONDS", 0.0)
    path = tmp_path / "out"

    def write(text):
        for _ in range(30):
            with atomic_writer(path) as file:
                file.write(text)

    threads = [threading.Thread(target=write, args=(letter * 1000,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in ("a" * 1000, "b" * 1000) and [each.name for each in tmp_path.iterdir()] == ["out"]
