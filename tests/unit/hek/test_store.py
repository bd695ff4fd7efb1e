"""A HEK is saved whole or not at all, and refuses to load when anything about it is wrong."""

import errno
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hiexp_verl.errors import HiExpError
from hiexp_verl.hek import HEK, Header, inspect_entry, inspect_hek
from hiexp_verl.hek.schema import header_text
from hiexp_verl.models.encoder import EncoderIdentity
from tests.support.paths import ROOT
from tests.support.stored_hek import ENCODER, entry, hek


def test_what_is_saved_is_what_is_loaded(tmp_path):
    saved = hek(thresholds={"tool_min_score": 0.25}, near_duplicates={"q1": ("q9",)}, models=("m",))
    version = saved.save(tmp_path / "hek")
    assert version.name == "0001"
    loaded = HEK.load(tmp_path / "hek")
    assert loaded.entries == saved.entries
    assert np.array_equal(loaded.vectors_E_D, saved.vectors_E_D)
    assert replace(loaded.header, content_hash="") == saved.header
    assert HEK.load(version).entries == saved.entries


def test_each_change_makes_a_new_version_and_the_same_content_does_not(tmp_path):
    first = hek().save(tmp_path)
    assert hek().save(tmp_path) == first
    second = hek(entry(1)).save(tmp_path)
    assert (second.name, (tmp_path / "CURRENT").read_text()) == ("0002", "0002\n")
    assert HEK.load(first).levels == {"e1": 2, "e2": 1, "e3": 0}
    assert HEK.load(tmp_path).levels == {"e1": 1, "e2": 0, "e3": 0}


def test_the_same_content_gives_the_same_bytes_anywhere(tmp_path):
    a, b = hek().save(tmp_path / "a"), hek().save(tmp_path / "b")
    for name in ("header.json", "entries.jsonl", "vectors.npy", "README.md"):
        assert (a / name).read_bytes() == (b / name).read_bytes()


def test_a_save_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(HiExpError, match=r"^disk full: .* cannot be written \(No space left on device\), nothing was changed; make room"):
        hek().save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_vectors_that_do_not_fit_are_one_line_and_the_old_version_stays(tmp_path):
    hek(entry(1)).save(tmp_path)
    code = """
import resource, sys
from pathlib import Path
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek import HEK, Header
from hiexp_verl.models.encoder import HashEncoder
from tests.support.stored_hek import entry
wide, entries = HashEncoder(1 << 15), tuple(map(entry, range(1, 9)))
large = HEK(Header(wide.identity), entries, wide.encode_passages([e.title for e in entries]))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # cut short as on a full disk: the vectors take 1 MB, all else far less
try:
    large.save(Path(sys.argv[1]))
except HiExpError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stderr) == (0, "")
    assert "cannot be written (File too large), nothing was changed" in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0001", "CURRENT"] and HEK.load(tmp_path).levels["e1"] == 1


def test_a_number_taken_by_another_writer_is_skipped(tmp_path):
    (tmp_path / "0001").mkdir()
    (tmp_path / "0001" / "something").write_text("x")
    assert hek().save(tmp_path).name == "0002"


@pytest.mark.parametrize("name", ["header.json", "entries.jsonl", "vectors.npy"])
def test_a_missing_file_is_named(tmp_path, name):
    version = hek().save(tmp_path)
    (version / name).unlink()
    with pytest.raises(HiExpError) as error:
        HEK.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["header.json", "entries.jsonl", "vectors.npy"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_truncated_or_overwritten_file_is_refused_in_one_line(tmp_path, name, data):
    version = hek().save(tmp_path / "hek")
    path = version / name
    good = path.read_bytes()
    try:
        if data.draw(st.booleans()):
            path.write_bytes(good[: data.draw(st.integers(0, len(good) - 1))])
        else:
            where = data.draw(st.integers(0, len(good) - 1))
            path.write_bytes(good[:where] + bytes([good[where] ^ data.draw(st.integers(1, 255))]) + good[where + 1 :])
        try:
            loaded = HEK.load(version)
        except HiExpError as error:
            assert "\n" not in str(error)
        else:
            # White space and equal values may change bytes without changing the content.
            assert loaded.entries == hek().entries
            assert np.array_equal(loaded.vectors_E_D, hek().vectors_E_D)
    finally:
        path.write_bytes(good)


def test_garbage_files_are_refused(tmp_path):
    version = hek().save(tmp_path)
    (version / "vectors.npy").write_bytes(b"\x80\x04garbage")
    with pytest.raises(HiExpError, match="vectors"):
        HEK.load(tmp_path)


def test_vectors_are_never_unpickled(tmp_path):
    version = hek().save(tmp_path)
    np.save(version / "vectors.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(HiExpError, match="Object arrays cannot be loaded"):
        HEK.load(tmp_path)


def test_an_edited_entry_breaks_the_hash(tmp_path):
    version = hek().save(tmp_path)
    path = version / "entries.jsonl"
    path.write_text(path.read_text().replace("right", "wrong"))
    with pytest.raises(HiExpError, match="content hash"):
        HEK.load(tmp_path)


def test_another_format_version_is_named(tmp_path):
    version = hek().save(tmp_path)
    values = json.loads((version / "header.json").read_text())
    (version / "header.json").write_text(json.dumps({**values, "format": 2}))
    with pytest.raises(HiExpError, match="HEK format 2 was found, this version reads 3; build it again"):
        HEK.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"distilller": "rules"}, "unknown field header.distilller; did you mean 'distiller'"),
        ({"reason": 7}, "header.reason must be a text, found 7"),
        ({"models": "m"}, "header.models must be a list, found 'm'"),
        ({"thresholds": {"tool_min_score": "high"}}, "header.thresholds must be a valid "),
        ({"encoder": {"name": "e"}}, "header.encoder.sha256 is missing"),
    ],
)
def test_a_fault_of_the_header_is_one_line_with_its_field(tmp_path, change, fault):
    path = hek().save(tmp_path) / "header.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(HiExpError, match=rf"^{re.escape(str(path))}: {fault}") as error:
        HEK.load(tmp_path)
    assert "\n" not in str(error.value)


def test_a_header_of_any_size_is_not_read(tmp_path):
    path = hek().save(tmp_path) / "header.json"
    os.truncate(path, 1 << 30)
    with pytest.raises(HiExpError, match=r"header\.json has 1,073,741,824 bytes"):
        HEK.load(tmp_path)


def test_a_folder_that_is_no_hek_says_so(tmp_path):
    with pytest.raises(HiExpError, match="does not exist"):
        HEK.load(tmp_path / "nothing")
    with pytest.raises(HiExpError, match=r"neither CURRENT nor header\.json"):
        HEK.load(tmp_path)
    (tmp_path / "CURRENT").write_text("../elsewhere")
    with pytest.raises(HiExpError, match="CURRENT"):
        HEK.load(tmp_path)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([entry(1), entry(1)], "twice"),
        ([entry(1, level="e9")], "level"),
        ([entry(1, title=" ")], "empty"),
        ([entry(1, kind="song")], "kind"),
        ([entry(1, "e2", children=("e1-0009",))], "does not exist"),
        ([entry(1), entry(1, "e3", children=("e1-0001",))], "one level below"),
    ],
)
def test_entries_that_do_not_fit_together_are_refused(entries, says):
    with pytest.raises(HiExpError, match=says):
        hek(*entries)


def test_wrong_vectors_are_refused():
    vectors = ENCODER.encode_passages(["a"])
    for bad, says in (
        (vectors[:, :5], "shape"),
        (vectors * 2, "norm"),
        (vectors * np.nan, "norm"),
        (np.vstack([vectors, vectors]), "shape"),
    ):
        with pytest.raises(HiExpError, match=says):
            HEK(Header(ENCODER.identity), (entry(1),), bad.astype(np.float32))


def test_no_entries_are_no_hek():
    with pytest.raises(HiExpError, match="no entries"):
        HEK(Header(ENCODER.identity), (), np.zeros((0, 32), dtype=np.float32))


def test_another_encoder_is_refused():
    hek().check_encoder(ENCODER.identity)
    with pytest.raises(HiExpError, match="dimensions"):
        hek().check_encoder(EncoderIdentity("other", "x", "", "", 64))


def test_inspection_shows_the_tree_and_an_entry():
    tree = inspect_hek(hek())
    assert tree.index("e2-0001") < tree.index("e1-0001")
    assert "child:       e1-0002" in inspect_entry(hek(), "e2-0001")
    assert "parent:      e2-0001" in inspect_entry(hek(), "e1-0001")
    with pytest.raises(HiExpError, match="e1-9999"):
        inspect_entry(hek(), "e1-9999")


@pytest.mark.parametrize("number", [10**400, math.nan, -math.inf, 1e300])
def test_a_threshold_that_is_none_is_refused(tmp_path, number):
    folder = hek(thresholds={"tool_min_score": number}).header
    (tmp_path / "0001").mkdir()
    (tmp_path / "0001" / "header.json").write_text(header_text(folder))
    (tmp_path / "CURRENT").write_text("0001\n")
    with pytest.raises(HiExpError, match=r"the threshold tool_min_score is"):
        HEK.load(tmp_path)
