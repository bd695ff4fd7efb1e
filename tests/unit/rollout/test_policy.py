"""What `--model` may be."""

import sys
from pathlib import Path

import pytest

from hiexp_verl.errors import HiExpError
from hiexp_verl.rollout import policy
from hiexp_verl.rollout.policy import MARKER, find_policy, identify


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
    for given in (root, actor.parent, actor, actor / "huggingface"):
        assert find_policy(str(given), tmp_path)[:2] == (str(actor / "huggingface"), "mine/global_step_4"), given
    assert find_policy(str(root / "global_step_2"), tmp_path)[1] == "mine/global_step_2"


def test_models_and_servers_are_left_alone(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for spec in (str(tmp_path), "http://localhost:8000/v1#m", "a-hub/name"):
        assert find_policy(spec, tmp_path / "out")[:2] == (spec, "")


def test_a_checkpoint_without_weights_is_refused(tmp_path):
    actor = checkpoint(tmp_path, 1, weights=False)
    with pytest.raises(HiExpError, match="has no weights"):
        find_policy(str(actor.parent), tmp_path / "out")


def test_shards_are_merged_once_and_a_failed_merge_is_told(tmp_path, monkeypatch):
    actor = checkpoint(tmp_path, 3, weights=False, shards=True)
    calls = []

    def merge(command, **_):
        calls.append(command)
        target = Path(command[-1])
        target.mkdir()
        shard = Path(command[-3]) / "model_world_size_1_rank_0.pt"
        (target / "model.safetensors").write_bytes(shard.read_bytes())
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(policy.subprocess, "run", merge)
    merged = tmp_path / "out" / "policy"
    for _ in range(2):
        assert find_policy(str(actor), tmp_path / "out")[:2] == (str(merged), "mine/global_step_3")
    assert len(calls) == 1 and calls[0][:4] == [sys.executable, "-m", "verl.model_merger", "merge"]
    other = checkpoint(tmp_path / "another", 3, weights=False, shards=True)  # another run's checkpoint of the same name
    (other / "model_world_size_1_rank_0.pt").write_bytes(b"other weights")
    assert find_policy(str(other), tmp_path / "out").name == "mine/global_step_3"
    assert len(calls) == 2 and (merged / "model.safetensors").read_bytes() == b"other weights"
    monkeypatch.setattr(policy.subprocess, "run", lambda *_, **__: type("Done", (), {"returncode": 1, "stderr": "x\nno room\n"}))
    with pytest.raises(HiExpError, match=r"could not merge .* \(no room\)"):
        find_policy(str(actor), tmp_path / "other")


def test_what_lies_where_the_merged_weights_go_is_left_alone(tmp_path):
    actor = checkpoint(tmp_path, 3, weights=False, shards=True)
    (tmp_path / "out" / "policy").mkdir(parents=True)
    (tmp_path / "out" / "policy" / "thesis.tex").touch()
    with pytest.raises(HiExpError, match="exists and was not written by hiexp; remove it or choose another --out"):
        find_policy(str(actor), tmp_path / "out")
    assert (tmp_path / "out" / "policy" / "thesis.tex").exists()


def test_models_of_one_name_are_told_apart_and_a_moved_one_is_the_same(tmp_path):
    for name, middle in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name / "huggingface").mkdir(parents=True)
        weights = bytes(30 << 20) + bytes([middle]) * (70 << 10) + bytes(10 << 20)  # the same ends
        (tmp_path / name / "huggingface" / "model.safetensors").write_bytes(weights)
        (tmp_path / name / "huggingface" / "config.json").write_text("{}")
    one, moved, other = (find_policy(str(tmp_path / name / "huggingface"), tmp_path).identity for name in "abc")
    assert one == moved != other
    (tmp_path / "b" / "huggingface" / "config.json").write_text('{"rope_theta": 1}')
    assert identify(str(tmp_path / "b" / "huggingface")) != one


def test_a_server_is_known_by_its_address_without_credentials():
    assert identify("openai:http://me:secret@host:80/v1/#model") == "http://host:80/v1"
    assert identify("http://host:81/v1") != identify("http://host:80/v1")
