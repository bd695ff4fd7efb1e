"""A round of self-distillation on verl's own engine, and which of its students learn."""

import json
import math
import subprocess
import sys

import pytest

pytestmark = pytest.mark.verl
pytest.importorskip("verl")

import torch

from hiexp_verl.config import SelfDistilConfig
from hiexp_verl.plugin.distil_loss import means_of, sums_of
from hiexp_verl.plugin.distil_round import Check, Round, Student, usable
from tests.support.paths import ROOT


def engine(folder, *more):
    """What the engine of a process of its own found."""
    command = [sys.executable, "-m", "tests.support.distil_engine", str(folder), *more]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return engine(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    return engine(tmp_path_factory.mktemp("lora"), "lora")


def test_verls_engine_computes_the_same_kl_as_by_hand_and_lowers_it(full):
    assert full["kl"][0] == pytest.approx(full["by_hand"], rel=1e-3)
    assert full["kl"][-1] < 0.5 * full["kl"][0], "five updates towards the teacher"
    assert math.isfinite(full["ppo"]), "a batch that is no round has verl's own loss"


def test_teacher_and_student_agree_at_every_token_when_their_contexts_are_equal(full):
    assert full["equal"] == {"argmax": 1.0, "kl": pytest.approx(0, abs=1e-6), "overlap": 1.0}


def test_the_metrics_name_the_loss_of_each_kind_of_token(full):
    metrics = {name.removeprefix("hiexp/distil/"): value for name, value in full["metrics"].items()}
    assert {"kl", "kl_thought", "kl_query", "kl_answer", "teacher_mass", "student_mass", "overlap", "clip_fraction"} <= set(metrics)
    assert metrics["updates"] == 5 and metrics["students"] == 2 and metrics["clip_fraction"] == 0
    assert min(metrics[f"kl_{kind}"] for kind in ("thought", "query", "answer")) < metrics["kl"]
    assert metrics["kl"] < max(metrics[f"kl_{kind}"] for kind in ("thought", "query", "answer")), "their mean, weighted by tokens"


def test_verls_checkpoint_brings_the_weights_back(full):
    assert full["moved"] > 0.01 and full["back"] == 0


def test_a_round_that_makes_the_held_out_students_worse_stops_and_keeps_the_weights_before(full):
    guarded = {name.removeprefix("hiexp/distil/"): value for name, value in full["guarded"].items()}
    assert (guarded["students"], guarded["held_out"], guarded["updates"], guarded["stopped"]) == (6, 2, 1, 1), "of three updates"
    assert guarded["held_out_kl"] == guarded["held_out_kl_before"] and guarded["drift"] == 0
    assert full["after_guard"] == 0


def test_a_lora_run_learns_by_its_adapter_and_its_teacher_can_be_the_model_without_it(lora):
    assert lora["kl"][0] == pytest.approx(lora["by_hand"], rel=1e-3) and lora["kl"][-1] < 0.6 * lora["kl"][0]
    assert lora["base"] == 0, "the adapter off is the model before the updates"
    assert lora["adapted"] > 0.1
    assert lora["base_kl"] > 0.01, "equal prompts, and yet a loss: the teacher has no adapter"
    assert lora["back"] == 0 and lora["after_guard"] == 0


def student(key="k", own=(1, 1, 0, 1), kinds=(0, 1, 0, 2), teacher=(1, 2, 3)):
    tensors = (torch.tensor(each) for each in ((1, 2), (5, 6, 7, 8), own, kinds, teacher))
    return Student(key, *tensors)


def test_a_student_that_cannot_learn_is_named_by_its_reason():
    assert isinstance(usable(student(), "all", 7), Student)
    assert usable(student(), "all", 6) == "too_long", "three tokens of the teacher's prompt and four of the response"
    assert usable(student(teacher=(1, 2)), "all", 99) == "no_privilege"
    assert usable(student(own=(0, 0, 0, 0)), "all", 99) == "no_tokens"
    assert usable(student(kinds=(0, 0, 0, 2)), "query", 99) == "no_tokens", "it never searched"


def test_with_tokens_query_the_search_calls_alone_are_learnt():
    found = usable(student(), "query", 99)
    assert isinstance(found, Student) and found.mask.tolist() == [0, 1, 0, 0]


def test_a_round_without_students_does_nothing(caplog):
    engine = type("None_", (), {"multiple": 2})()
    assert Round(SelfDistilConfig(), engine).run([])["hiexp/distil/students"] == 0
    one = Round(SelfDistilConfig(), engine).run([student()])
    assert (one["hiexp/distil/students"], one["hiexp/distil/rest"]) == (0, 1), "a micro-batch has two rows"
    assert "with 1 students is not watched: it needs 8" in caplog.text


@pytest.mark.parametrize(("now", "worse"), [((0.4, 0.05), False), ((0.5, 0.0), False), ((0.51, 0.0), True), ((0.4, 0.11), True)])
def test_a_round_ends_when_the_held_out_kl_rises_or_the_policy_drifts(now, worse):
    assert Check(*now).is_worse(Check(0.5), most=0.1) is worse


def test_means_are_of_tokens_over_micro_batches():
    def of(kl, kinds):
        return sums_of({"kl": torch.tensor(kl)}, torch.tensor(kinds))

    one, other = of([1.0, 3.0, 5.0], [0, 1, 1]), of([7.0], [0])
    means = means_of({name: one[name] + other[name] for name in one})
    assert means == {"hiexp/distil/kl": 4.0, "hiexp/distil/kl_thought": 4.0, "hiexp/distil/kl_query": 4.0}, "16 / 4, 8 / 2, 8 / 2"
