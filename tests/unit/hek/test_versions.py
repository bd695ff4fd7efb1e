"""Versions are listed, gone back to and never lost, whatever stops the writing."""

import errno
import json
import os
import shutil
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest

from hiexp_verl.cli import main
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek import HEK
from hiexp_verl.hek.edit import edit, remove
from hiexp_verl.hek.versions import rollback, versions, versions_text
from tests.support.heks import e, hek, tree


def three_versions(root):
    """0001 built, 0002 edited from it, 0003 with an entry removed from 0002."""
    tree().save(root)
    edit(HEK.load(root), "e1-0001", "clearer", description="Do it now.").save(root)
    remove(HEK.load(root), ["e3-0001"], "tells nothing").save(root)


def names(root):
    return sorted(path.name for path in root.iterdir())


def test_versions_tell_where_they_come_from_and_which_is_in_use(tmp_path):
    three_versions(tmp_path)
    first, second, third = versions(tmp_path)
    assert [v.is_current for v in (first, second, third)] == [False, False, True]
    assert (first.parents, first.reason, first.levels) == ((), "", {"e1": 3, "e2": 2, "e3": 1})
    assert (second.parents, second.reason) == (("0001",), "edit e1-0001: clearer")
    assert (third.parents, third.levels["e3"]) == (("0002",), 0)
    assert versions_text([first, third]).splitlines() == [
        "  0001  3 E1, 2 E2, 1 E3; built",
        "* 0003  3 E1, 2 E2, 0 E3; from 0002: remove e3-0001: tells nothing",
    ]


def test_rollback_goes_to_what_the_current_version_was_made_from_and_deletes_nothing(tmp_path):
    three_versions(tmp_path)
    assert rollback(tmp_path).name == "0002"
    assert rollback(tmp_path).name == "0001"
    assert HEK.load(tmp_path).entry("e1-0001").description != "Do it now."
    with pytest.raises(HiExpError, match="no version before 0001"):
        rollback(tmp_path)
    assert names(tmp_path) == ["0001", "0002", "0003", "CURRENT"]
    assert rollback(tmp_path, "3").name == "0003"


def test_what_is_made_after_a_rollback_gets_a_new_number_and_its_true_parent(tmp_path):
    three_versions(tmp_path)
    rollback(tmp_path, "0001")
    saved = edit(HEK.load(tmp_path), "e1-0002", "other way", kind="pitfall").save(tmp_path)
    assert saved.name == "0004"
    assert versions(tmp_path)[3].parents == ("0001",)
    assert rollback(tmp_path).name == "0001"  # not 0003, which it has nothing to do with


def test_a_built_version_goes_back_to_the_number_before_it(tmp_path):
    hek(e(1)).save(tmp_path)
    hek(e(2)).save(tmp_path)
    assert rollback(tmp_path).name == "0001"


def test_a_version_that_is_not_there_or_does_not_load_is_refused(tmp_path):
    three_versions(tmp_path)
    for name in ("0009", "../0001", "", "x"):
        with pytest.raises(HiExpError, match="it has 0001, 0002, 0003"):
            rollback(tmp_path, name)
    (tmp_path / "0002" / "entries.jsonl").write_text("{}\n")
    with pytest.raises(HiExpError, match="0002"):
        rollback(tmp_path)
    assert (tmp_path / "CURRENT").read_text() == "0003\n"
    assert [bool(v.fault) for v in versions(tmp_path)] == [False, True, False]
    assert "damaged" in versions_text(versions(tmp_path))


@pytest.mark.parametrize("content", ["0009\n", "", "../elsewhere", "\x00\udcff"])
def test_a_broken_pointer_is_mended_by_a_rollback(tmp_path, content):
    three_versions(tmp_path)
    (tmp_path / "CURRENT").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(HiExpError, match="CURRENT"):
        HEK.load(tmp_path)
    with pytest.raises(HiExpError, match="--to"):
        rollback(tmp_path)
    rollback(tmp_path, "0002")
    assert HEK.load(tmp_path).header.reason == "edit e1-0001: clearer"


def test_a_version_directory_stands_for_its_hek(tmp_path, monkeypatch):
    three_versions(tmp_path)
    assert len(versions(tmp_path / "0001")) == 3
    monkeypatch.chdir(tmp_path / "0001")
    assert main(["rollback", "."]) == 0
    assert (tmp_path / "CURRENT").read_text() == "0002\n"
    with pytest.raises(HiExpError, match="no CURRENT"):
        versions(tmp_path / "nothing" / "0001")


def test_building_again_mends_a_damaged_version(tmp_path):
    version = tree().save(tmp_path)
    (version / "entries.jsonl").write_text("{}\n")
    assert tree().save(tmp_path).name == "0002"
    header = tmp_path / "0002" / "header.json"
    header.write_text(json.dumps(json.loads(header.read_text()) | {"format": 1}))
    assert tree().save(tmp_path).name == "0003"
    assert HEK.load(tmp_path).entries == tree().entries


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def failing_at(call, at):
    """Make the function fail with a full disk at its nth call."""
    count = 0

    def wrapped(*args, **kwargs):
        nonlocal count
        count += 1
        return full() if count == at else call(*args, **kwargs)

    return wrapped


def assert_whole(root, reason):
    """The HEK loads, is that of the reason, and no directory with a number is incomplete."""
    assert HEK.load(root).header.reason == reason
    assert not any(version.fault for version in versions(root))


# fsync is called for five files, the version, the root and CURRENT.
@pytest.mark.parametrize("at", range(1, 9))
def test_a_disk_that_fills_up_leaves_the_old_version(tmp_path, monkeypatch, at):
    three_versions(tmp_path)
    child = edit(HEK.load(tmp_path), "e1-0002", "more", description="Look twice.")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing_at(os.fsync, at))
        with pytest.raises(HiExpError, match="No space left on device"):
            child.save(tmp_path)
    assert_whole(tmp_path, "remove e3-0001: tells nothing")
    assert not [name for name in names(tmp_path) if name.startswith(".")]
    child.save(tmp_path)
    assert_whole(tmp_path, "edit e1-0002: more")


def test_a_disk_that_fills_up_while_vectors_are_written_or_a_version_is_chosen(tmp_path, monkeypatch):
    three_versions(tmp_path)
    before = names(tmp_path)
    child = edit(HEK.load(tmp_path), "e1-0002", "more", description="Look twice.")
    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(HiExpError, match="No space"):
            child.save(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(HiExpError, match="No space"):
            rollback(tmp_path)
    assert names(tmp_path) == before
    assert_whole(tmp_path, "remove e3-0001: tells nothing")


def killed_at_line(number, action):
    """Run the action in a child process that is killed (SIGKILL) before its nth line; return whether it got there."""
    child = os.fork()
    if child == 0:
        count = 0

        def trace(frame, event, _):
            nonlocal count
            if not frame.f_code.co_filename.endswith(("store.py", "jsonl.py", "contextlib.py")):
                return None
            count += event == "line"
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        action()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked child")
@pytest.mark.parametrize("what", ["edit", "rollback"])
def test_a_kill_at_any_moment_leaves_a_whole_hek(tmp_path, what):
    three_versions(tmp_path / "before")
    old = HEK.load(tmp_path / "before")
    child = edit(old, "e1-0002", "more", description="Look twice.")
    new = child.header.reason if what == "edit" else HEK.load(tmp_path / "before" / "0002").header.reason
    seen = []
    for line in range(1, 100_000, 7):  # a prime, so that loops are met at different places
        root = tmp_path / f"killed-{line}"
        shutil.copytree(tmp_path / "before", root)
        killed = killed_at_line(line, (lambda root=root: child.save(root)) if what == "edit" else (lambda root=root: rollback(root, "2")))
        seen.append(HEK.load(root).header.reason)
        assert_whole(root, seen[-1])
        if not killed:
            break
        shutil.rmtree(root)
    assert len(seen) > 10
    assert set(seen) == {old.header.reason, new}
    assert seen == sorted(seen, key=[old.header.reason, new].index)
    child.save(root)
    assert_whole(root, child.header.reason)


def test_two_writers_get_two_numbers(tmp_path):
    parent = tree()
    parent.save(tmp_path)
    for kind in ("guide", "pitfall"):
        replace(edit(parent, "e1-0001", kind, description=f"Be a {kind}."), sources=()).save(tmp_path)
    assert [v.parents for v in versions(tmp_path)] == [(), ("0001",), ("0001",)]


def test_the_command_line_lists_and_rolls_back(tmp_path, capsys):
    three_versions(tmp_path)
    assert main(["rollback", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"current is {tmp_path / '0002'}\n"
    assert main(["versions", str(tmp_path), "--json"]) == 0
    assert [v["is_current"] for v in json.loads(capsys.readouterr().out)] == [False, True, False]
    assert main(["rollback", str(tmp_path), "--to", "7"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
