"""`hiexp train --distil`: a round of self-distillation from a file of pairs, and what it refuses."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.verl
pytest.importorskip("verl")

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from hiexp_verl.cli import main
from hiexp_verl.errors import HiExpError
from hiexp_verl.internalise.pairs import read_pairs
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.io.manifest import Manifest, read_manifest
from hiexp_verl.plugin.distil_alone import _holds_a_run, composed, run
from hiexp_verl.rollout.policy import find_policy, identify
from tests.support.factories import trajectory
from tests.support.paths import ROOT
from tests.support.verl_fixtures import tiny_tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny random model."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape, initializer_range=0.3)).save_pretrained(folder)
    return folder


def rollout(number, correct):
    query, answer = ("capital of it", "Paris") if correct else ("all at once", "Rome")
    turns = (
        {"role": "system", "content": "Search."},
        {"role": "user", "content": f"What is {number}?"},
        {"role": "assistant", "content": f"<search> {query} {number} </search>"},
        {"role": "tool", "content": 'Doc 1(Title: "A") a'},
        {"role": "assistant", "content": f"<answer> {answer} </answer>"},
    )
    return trajectory(f"q{number}", correct, turns, id=f"q{number}#{int(correct)}", question=f"What is {number}?")


def pairs_of(folder, policy, questions=8):
    """The file of pairs that `hiexp distil-pairs` makes of rollouts whose manifest names this policy."""
    folder.mkdir()
    write_jsonl(folder / "trajectories.jsonl", [rollout(number, correct) for number in range(questions) for correct in (True, False)])
    Manifest(kind="rollout", spec={"policy": policy} if policy else {}).write(folder)
    out = folder / "pairs" / "pairs.jsonl"
    assert main(["distil-pairs", "--trajectories", str(folder / "trajectories.jsonl"), "--out", str(out)]) == 0
    return out


def settings(model, out, *more):
    return [f"actor_rollout_ref.model.path={model}", f"trainer.default_local_dir={out}", *more]


def test_a_round_alone_lowers_the_kl_and_writes_a_policy_that_others_load(model, tmp_path):
    pairs, out = pairs_of(tmp_path / "rollouts", identify(str(model))), tmp_path / "out"
    more = ["actor_rollout_ref.actor.optim.lr=1e-3", "hiexp.distil.mini_batch=2", "hiexp.distil.check_every=1", "hiexp.distil.top_k=16"]
    more += ["hiexp.distil.max_drift=10", "hiexp.distil.clip=10"]
    command = [sys.executable, "-m", "hiexp_verl.cli", "train", "--cpu", "--distil", str(pairs), *settings(model, out, *more)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stderr[-3000:]
    assert "6 students learnt in 3 updates, 2 watched" in done.stdout and f"--model {out}" in done.stdout
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    watched = [row["data"]["hiexp/distil/held_out_kl"] for row in rows]
    assert [row["step"] for row in rows] == [0, 1, 2, 3] and watched[-1] < watched[0] and rows[-1]["data"]["hiexp/distil/drift"] > 0
    assert {"hiexp/distil/kl_query", "hiexp/distil/kl_answer", "hiexp/distil/overlap"} <= set(rows[1]["data"])
    manifest = read_manifest(out)
    assert manifest.kind == "training" and manifest.outcome["students"] == 6 and not manifest.error

    policy = find_policy(str(out), tmp_path)
    before, after = (AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).state_dict() for place in (model, policy.spec))
    assert max(float((before[name] - after[name]).abs().max()) for name in before) > 1e-4
    assert identify(policy.spec) != identify(str(model)), "its rollouts are of another policy"
    assert main(["report", str(out), "--out", str(tmp_path / "page.html")]) == 0
    assert "KL to the teacher, held out" in (tmp_path / "page.html").read_text()
    with pytest.raises(HiExpError, match="holds a run; set"):
        run(pairs, composed(settings(model, out)))


def test_a_round_that_was_killed_is_done_again_and_another_run_is_not_written_over(tmp_path):
    assert not _holds_a_run(tmp_path)
    manifest = Manifest(kind="training", spec={"pairs": "pairs.jsonl"})
    manifest.write(tmp_path)
    (tmp_path / "actor").mkdir()  # half of its weights
    assert not _holds_a_run(tmp_path)
    manifest.finish(tmp_path, students=6)
    assert _holds_a_run(tmp_path)
    Manifest(kind="training", spec={}).write(tmp_path)
    assert _holds_a_run(tmp_path), "a training of another kind, killed or not"


@pytest.mark.parametrize("policy", ["0123456789abcdef", ""])
def test_pairs_of_another_model_or_tokenizer_are_refused(model, tmp_path, policy):
    pairs = pairs_of(tmp_path / "rollouts", policy)
    whose = r"test \(0123456789abcdef\)" if policy else "test, whose weights and tokenizer are not known"
    with pytest.raises(HiExpError, match=rf"the rollout q0#1 is of {whose}, and the model to train is another .* or --same-model"):
        run(pairs, composed(settings(model, tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_the_identity_changes_with_the_tokenizer_alone(model, tmp_path):
    before = identify(str(model))
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in model.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert identify(str(copy)) == before
    (copy / "tokenizer_config.json").write_text((copy / "tokenizer_config.json").read_text().replace("assistant", "helper") + "\n")
    assert identify(str(copy)) != before


def test_each_side_of_a_pair_carries_the_policy_that_played_it(tmp_path):
    (pair, *_) = read_pairs(pairs_of(tmp_path / "rollouts", "abc"))
    assert (pair.reference.extra["policy"], pair.student.extra["policy"]) == ("abc", "abc")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["hiexp.distil.top_k=100000"], "top_k=100000 exceeds the vocabulary of the model"),
        (["actor_rollout_ref.model.use_fused_kernels=true"], "use_fused_kernels=false"),
        (["hiexp.distil.privilege=hek"], "needs a HEK"),
        (["hiexp.distil.teacher=base"], "takes the adapter off, and there is none"),
        (["actor_rollout_ref.model.lora_adapter_path=/nowhere"], "/nowhere has no adapter_config.json"),
        (["data.max_prompt_length=8", "data.max_response_length=8"], r"0 of 8 pairs can be learnt.*8 students whose teacher's prompt and"),
    ],
)
def test_what_cannot_work_is_one_line(model, tmp_path, more, says):
    pairs = pairs_of(tmp_path / "rollouts", identify(str(model)))
    with pytest.raises(HiExpError, match=says):
        run(pairs, composed(settings(model, tmp_path / "out", *more)))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["--config-name", "x"], "--config-name is an option of hydra"),
        (["hiexp.distil.tok_k=3"], "did you mean 'top_k'"),
        (["no.such.setting=1"], "the settings do not compose"),
        (["words"], "the settings do not compose"),
    ],
)
def test_settings_that_are_none_are_named(model, tmp_path, overrides, says):
    with pytest.raises(HiExpError, match=says):
        run(tmp_path / "none.jsonl", composed(settings(model, tmp_path / "out", *overrides)))


def test_a_file_that_is_missing_and_an_option_without_its_file_are_named(model, tmp_path, capsys):
    with pytest.raises(HiExpError, match="does not exist"):
        run(tmp_path / "none.jsonl", composed(settings(model, tmp_path / "out")))
    assert main(["train", "--same-model"]) == 2
    assert "--same-model is of --distil FILE" in capsys.readouterr().err
