"""What `--model` may be."""

import sys

import pytest

from hiexp_verl.errors import HiExpError
from hiexp_verl.run import policy
from hiexp_verl.run.policy import MARKER, find_policy


def checkpoint(tmp_path, step, weights=True, shards=False):
    actor = tmp_path / "mine" / "checkpoints" / f"global_step_{step}" / "actor"
    (actor / "huggingface").mkdir(parents=True)
    (actor / "huggingface" / "config.json").write_text("{}")
    if weights:
        (actor / "huggingface" / "model.safetensors").touch()
    if shards:
        (actor / "model_world_size_1_rank_0.pt").touch()
    return actor


def test_a_checkpoint_is_found_by_any_of_its_directories(tmp_path):
    actor = checkpoint(tmp_path, 4)
    checkpoint(tmp_path, 2)
    root = actor.parent.parent
    (root / MARKER).write_text("4\n")
    for given in (root, actor.parent, actor):
        assert find_policy(str(given), tmp_path) == (str(actor / "huggingface"), "mine/global_step_4"), given
    assert find_policy(str(root / "global_step_2"), tmp_path)[1] == "mine/global_step_2"


def test_models_and_servers_are_left_alone(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for spec in (str(tmp_path), "http://localhost:8000/v1#m", "a-hub/name"):
        assert find_policy(spec, tmp_path / "out") == (spec, "")


def test_a_checkpoint_without_weights_is_refused(tmp_path):
    actor = checkpoint(tmp_path, 1, weights=False)
    with pytest.raises(HiExpError, match="has no weights"):
        find_policy(str(actor.parent), tmp_path / "out")


def test_shards_are_merged_once_and_a_failed_merge_is_told(tmp_path, monkeypatch):
    actor = checkpoint(tmp_path, 3, weights=False, shards=True)
    calls = []

    def merge(command, **_):
        calls.append(command)
        target = tmp_path / "out" / "policy"
        target.mkdir(parents=True)
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(policy.subprocess, "run", merge)
    for _ in range(2):
        assert find_policy(str(actor), tmp_path / "out") == (str(tmp_path / "out" / "policy"), "mine/global_step_3")
    assert len(calls) == 1 and calls[0][:4] == [sys.executable, "-m", "verl.model_merger", "merge"]
    monkeypatch.setattr(policy.subprocess, "run", lambda *_, **__: type("Done", (), {"returncode": 1, "stderr": "x\nno room\n"}))
    with pytest.raises(HiExpError, match=r"could not merge .* \(no room\)"):
        find_policy(str(actor), tmp_path / "other")
