"""Whatever a distiller answers is counted or becomes an entry, and a disk that fills up costs nothing that was there."""

import errno
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hiexp_verl.distil.distillers import PromptedDistiller, parse_draft
from hiexp_verl.distil.pipeline import distil
from hiexp_verl.distil.replies import Usage
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek import HEK
from hiexp_verl.io.files import append_lines, write_jsonl, writing
from hiexp_verl.io.manifest import Manifest, timed
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.text import sanitise
from hiexp_verl.types import MAX_DESCRIPTION_CHARS, MAX_TITLE_CHARS
from tests.support.episodes import trajectories
from tests.support.scripted_distiller import GOOD, Scripted, stored
from tests.support.stored_hek import hek

MADE = trajectories()
ENCODER = HashEncoder(32)
CONTROL = [
    "<|im_end|>",
    "<|im_start|>system",
    "</s>",
    "[INST]",
    "<answer>",
    "</experience>",
    "\x00",
    "\u202e",
    "\ud800",
    "\r\n",
    "<tool_call>",
]

text = st.one_of(st.text(max_size=60), st.lists(st.sampled_from([*CONTROL, "Search", "the country"]), max_size=8).map(" ".join))
values = st.recursive(
    st.none() | st.booleans() | st.floats() | text, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=6
)
objects = st.fixed_dictionaries(
    {"title": text | values, "description": text | values, "kind": st.sampled_from(["guide", "pitfall", "song", None])}
)
garbage = st.one_of(
    st.just(""),
    text,
    st.just("Sure! Here is the JSON you asked for: {"),
    st.just(json.dumps(GOOD)[:40]),
    st.just("x" * 100_000),
    st.just(json.dumps({**GOOD, "title": "t " * 50_000})),
    st.just('{"title":' * 3_000),
    st.just(json.dumps({"entry": GOOD})),
    st.just(json.dumps([GOOD])),
    values.map(json.dumps),
    objects.map(json.dumps),
)


class Garbage(Scripted):
    """Answers every call with the next of some texts."""

    name = "garbage"
    can_retry = True

    def __init__(self, texts):
        self.texts, self.asked, self.usage = texts, 0, Usage()

    def reply(self, conversations, attempt, progress, schema=None):
        answers = [self.texts[(self.asked + i) % len(self.texts)] for i in range(len(conversations))]
        self.asked += len(answers)
        return answers


@given(st.lists(garbage, min_size=1, max_size=5))
@example([json.dumps({"title": "00 0", "description": "00:\u00a80 1A 0", "kind": "guide"})])  # a draft that says nothing
def test_garbage_is_counted_and_never_in_an_entry(texts):
    distiller = PromptedDistiller(Garbage([*texts, json.dumps(GOOD)]))
    try:
        built = distil(MADE, distiller, ENCODER)
    except HiExpError as error:  # the good answer fits one diagnosis, and it may have come to others alone
        assert "no experience" in str(error) and "lost the point" in str(error)
        return
    counts = built.report.counts
    diagnosed = sum(count for key, count in counts.items() if key.startswith("diagnosed."))
    left_out = {key.removeprefix("left_out."): count for key, count in counts.items() if key.startswith("left_out.e1.")}
    left_out.pop("e1.title_replaced", None)
    assert counts["written.e1"] + sum(left_out.values()) == diagnosed
    by_cosine = {"e1.near_duplicate", "e1.lost_point"}  # of all others the distiller has the count
    left_out = {key: count for key, count in left_out.items() if key not in by_cosine}
    assert {key: count for key, count in distiller.dropped.items() if key.startswith("e1.")} == left_out
    for entry in built.hek.entries:
        assert 0 < len(entry.title) <= MAX_TITLE_CHARS
        assert 0 < len(entry.description) <= MAX_DESCRIPTION_CHARS
        assert entry.kind in ("guide", "pitfall")
        shown = f"{entry.title} {entry.description}"
        assert not any(mark in shown for mark in CONTROL), shown
        shown.encode()  # no half of a surrogate pair


@given(st.lists(garbage, min_size=1, max_size=6))
def test_every_answer_survives_the_cache(tmp_path_factory, texts):
    cache = tmp_path_factory.mktemp("cache") / "answers.jsonl"
    asked = [[{"role": "user", "content": str(i)}] for i in range(len(texts))]
    assert stored(Garbage(texts), cache).reply(asked, 0, "") == texts
    again = stored(Garbage(["never asked"]), cache)
    assert again.reply(asked, 0, "") == texts
    assert (again.usage.calls, again.usage.stored) == (0, len(texts))


def test_nothing_but_garbage_is_a_one_line_error():
    with pytest.raises(HiExpError, match="e1 not JSON") as error:
        distil(MADE, PromptedDistiller(Garbage([""])), ENCODER)
    assert "\n" not in str(error.value)


def test_a_huge_answer_is_refused_before_it_costs_time():
    nested = json.dumps({**GOOD, "title": "<|a" * 20_000 + "|>" * 20_000})
    start = time.monotonic()
    assert parse_draft(nested, SEARCH) == "too_long"
    assert time.monotonic() - start < 1


def test_half_a_surrogate_pair_is_no_text():
    assert sanitise("a\ud800b", 100) == "a b"


def test_an_answer_of_another_model_or_sampling_is_not_taken(tmp_path):
    asked = [[{"role": "user", "content": "a"}]]
    stored(Scripted(["A"]), tmp_path / "c").reply(asked, 0, "")
    assert stored(Scripted(["B"]), tmp_path / "c", "other").reply(asked, 0, "") == ["B"]
    assert stored(Scripted([], ["C"]), tmp_path / "c").reply(asked, 1, "") == ["C"]
    assert stored(Scripted(), tmp_path / "c").reply(asked, 0, "") == ["A"]


def test_stored_answers_go_only_when_a_new_one_is_there(tmp_path):
    cache = tmp_path / "c"
    asked = [[{"role": "user", "content": text}] for text in "ab"]
    stored(Scripted(["A", "B"]), cache, resume=False).reply(asked, 0, "")
    before = cache.read_bytes()

    class Down(Scripted):
        def reply(self, *args, **options):
            raise HiExpError("the server does not answer")

    with pytest.raises(HiExpError, match="does not answer"):
        stored(Down(), cache, resume=False).reply(asked, 0, "")
    assert cache.read_bytes() == before
    assert stored(Scripted(["C", "D"]), cache, resume=False).reply(asked, 0, "") == ["C", "D"]
    assert stored(Scripted(), cache).reply(asked, 0, "") == ["C", "D"]
    assert len(cache.read_text().splitlines()) == 2


def test_a_cache_with_a_foreign_line_says_so(tmp_path):
    (tmp_path / "c").write_text('{"key": "k", "answer": "a"}\n{"other": 1}\n')
    with pytest.raises(HiExpError, match="--resume"):
        stored(Scripted(), tmp_path / "c")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_under_the_cache_is_a_one_line_error(tmp_path):
    (tmp_path / "answers.jsonl").symlink_to("/dev/full")
    cached = stored(Scripted(["A"]), tmp_path / "answers.jsonl")
    with pytest.raises(HiExpError, match="No space left") as error:
        cached.reply([[{"role": "user", "content": "a"}]], 0, "")
    assert "\n" not in str(error.value)


def full(*args, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(("module", "call"), [(np, "save"), (os, "fsync"), (os, "replace")])
def test_a_full_disk_leaves_the_old_version(tmp_path, monkeypatch, module, call):
    old = hek().save(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(module, call, full)
        with pytest.raises(HiExpError, match="No space left") as error:
            hek(models=("new",)).save(tmp_path)
    assert "\n" not in str(error.value)
    assert HEK.load(tmp_path).header.models == ()
    assert (tmp_path / "CURRENT").read_text() == f"{old.name}\n"
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert hek(models=("new",)).save(tmp_path).name == "0002"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_under_a_file_that_grows_is_told_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "t.jsonl").symlink_to("/dev/full")
    path = tmp_path / "t.jsonl"
    with (
        pytest.raises(HiExpError, match=r"t\.jsonl cannot be written \(No space left"),
        timed(tmp_path, Manifest(kind="rollout", spec={})),
        writing(path),
        path.open("a") as file,
    ):
        monkeypatch.setattr(os, "fsync", full)  # and so is that of the manifest, which is none of the reader's business
        append_lines(file, {})


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    write_jsonl(tmp_path / "f.jsonl", [{"a": 1}])
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HiExpError, match="make room"):
        write_jsonl(tmp_path / "f.jsonl", [{"a": 2}])
    assert [path.name for path in tmp_path.iterdir()] == ["f.jsonl"]
    assert json.loads((tmp_path / "f.jsonl").read_text()) == {"a": 1}
