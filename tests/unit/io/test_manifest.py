"""A manifest says what a program did in a folder, and survives what happens there."""

import json

import pytest

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.manifest import MANIFEST, MAX_BYTES, Manifest, read_manifest, timed


def test_a_manifest_comes_back_as_it_was_without_credentials(tmp_path):
    manifest = Manifest(
        kind="rollout", spec={"model": "openai:https://me:secret@host/v1#m", "at": tmp_path}, results={"episodes": ["t.jsonl"]}
    )
    manifest.add_batch_size(4)
    manifest.add_batch_size(4)
    manifest.add_batch_size(2)
    manifest.finish(tmp_path, right=3)
    found = read_manifest(tmp_path)
    assert found.spec == {"model": "openai:https://host/v1#m", "at": str(tmp_path)}
    assert (found.batch_sizes, found.outcome, found.results) == ([4, 2], {"right": 3}, {"episodes": ["t.jsonl"]})
    assert found.finished is not None and found.finished >= found.begun and "Python" in found.software
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST]


def test_the_seconds_of_all_lives_add_up_and_a_failure_is_noted(tmp_path, monkeypatch):
    clock = iter((10.0, 12.5, 100.0, 101.0))
    monkeypatch.setattr("hiexp_verl.io.manifest.time.monotonic", lambda: next(clock))
    with pytest.raises(ValueError, match="broken"), timed(tmp_path, Manifest(kind="rollout", spec={})):
        assert read_manifest(tmp_path).finished is None
        raise ValueError("broken\nin detail")
    first = read_manifest(tmp_path)
    assert (first.seconds, first.error, first.finished) == (2.5, "ValueError: broken", None)
    with timed(tmp_path, first):
        pass
    first.finish(tmp_path)
    again = read_manifest(tmp_path)
    assert (again.seconds, again.error, again.begun) == (3.5, "", first.begun) and again.finished


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"kind": "rollout"}', r"is damaged \(spec: Field required\)"),
        ('{"kind": "picnic", "spec": {}}', r"is damaged \(kind: "),
        ('{"kind": "rollout", "spec": {}, "extra": 1}', r"is damaged \(extra: "),
        (json.dumps({"kind": "rollout", "spec": {"x": "y" * MAX_BYTES}}), "is damaged .*bytes"),
    ],
    ids=["torn", "list", "no spec", "kind", "extra", "size"],
)
def test_a_damaged_manifest_is_one_line(tmp_path, content, fault):
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(HiExpError, match=rf"run\.json {fault}") as raised:
        read_manifest(tmp_path)
    assert "\n" not in str(raised.value)
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(HiExpError, match=r"has no run\.json"):
        read_manifest(tmp_path)
