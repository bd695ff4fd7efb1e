"""End to end, small but real: the demo with a real model, real vLLM and verl's own trainer, on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.verl]
pytest.importorskip("verl")

from hiexp_verl.hek.store import HEK
from hiexp_verl.io.datasets import read_trajectories
from tests.support.training import SMALL

STEPS = {"grpo": 2, "gspo": 1}


def steps_of(demo, algorithm):
    lines = (demo / algorithm / "metrics.jsonl").read_text().splitlines()
    return [row["data"] for row in map(json.loads, lines) if "training/rollout_actor_probs_pearson_corr" in row["data"]]


@pytest.mark.parametrize("algorithm", ["grpo", "gspo"])
def test_vllm_serves_the_weights_that_are_trained(demo, algorithm):
    steps = steps_of(demo, algorithm)
    assert len(steps) == STEPS[algorithm]
    for step in steps:
        assert step["training/rollout_actor_probs_pearson_corr"] > 0.99  # tests/recipes/test_weight_sync.py: stale weights are below


def test_the_trained_policy_is_not_the_one_it_started_from(demo):
    assert all(step["actor/grad_norm"] > 0 for step in steps_of(demo, "grpo"))


@pytest.mark.parametrize("algorithm", ["grpo", "gspo"])
def test_before_the_update_the_ratio_is_one(demo, algorithm):
    for step in steps_of(demo, algorithm):  # one mini-batch a step: old and current policy are the same
        assert abs(step["actor/ppo_kl"]) < 1e-5 and step["actor/pg_clipfrac"] == 0.0


def test_each_step_says_what_experience_and_search_did(demo):
    for step in steps_of(demo, "grpo"):
        assert step["hiexp/with_experience"] == step["hiexp/e2_hit_rate"] == 1.0
        assert 0 < step["hiexp/prompt_score/p10"] <= step["hiexp/prompt_score/p90"] <= 1
        assert step["hiexp/experience_tokens"] > 10 and step["hiexp/reward_mean"] == pytest.approx(step["critic/score/mean"], abs=1e-6)
        assert {"hiexp/window/reward_variance", "hiexp/window/gradient_variance", "hiexp/alarm/reward"} <= set(step)


def test_the_checkpoint_holds_the_hek_and_the_use_of_its_entries(demo):
    state = json.loads((demo / "grpo" / "checkpoints" / "global_step_2" / "hiexp" / "state.json").read_text())
    hek = HEK.load(demo / "build" / "hek")
    assert state["step"] == 2 and state["identity"]["hek"] == hek.header.content_hash
    counters = state["watched"]["counters"]
    assert set(counters) <= {entry.id for entry in hek.entries}
    dumps = [t for dump in (demo / "grpo" / "episodes").glob("*.jsonl") for t in read_trajectories(dump)]
    for entry, counter in counters.items():
        assert counter["episodes"] == sum(entry in {row["entry"] for row in t.extra["shown"]} for t in dumps)


def test_the_warm_start_makes_it_search(demo):
    summary = json.loads((demo / "summary.json").read_text())
    assert summary["valid_search_after"] > summary["valid_search_before"]
    assert summary["valid_search_after"] >= 0.8


def test_experience_reaches_every_episode_of_training(demo):
    for algorithm, count in STEPS.items():
        steps = steps_of(demo, algorithm)
        assert all(step["hiexp/e2_e3_hit_rate"] == 1.0 for step in steps)
        assert all(step["hiexp/failed_search_rate"] == 0.0 for step in steps)
        dumps = sorted((demo / algorithm / "episodes").glob("*.jsonl"))
        assert len(dumps) == count
        for dump in dumps:
            for t in read_trajectories(dump):
                levels = {row["level"] for row in t.extra["shown"]}
                assert levels & {"e2", "e3"}
                assert "<experience>" in t.messages[0]["content"]
    assert json.loads((demo / "summary.json").read_text())["e1_fire_rate"] > 0


def test_no_training_question_saw_its_own_experience(demo):
    hek = HEK.load(demo / "build" / "hek")
    own = {entry.id: set(entry.questions) for entry in hek.entries}
    for dump in (demo / "grpo" / "episodes").glob("*.jsonl"):
        for t in read_trajectories(dump):
            assert all(own[row["entry"]] != {t.question_id} for row in t.extra["shown"])


def test_the_summary_has_what_others_rely_on(demo):
    summary = json.loads((demo / "summary.json").read_text())
    wanted = (
        "seconds pearson_min valid_search_before valid_search_after reward_first reward_last entries e1_fire_rate peak_memory_gib report"
    )
    assert set(wanted.split()) <= set(summary)
    assert set(summary["entries"]) == {"e1", "e2", "e3"} and summary["entries"]["e1"] > 0
    assert 1 < summary["peak_memory_gib"] < 22
    assert Path(summary["report"]).stat().st_size > 10_000


def test_a_second_run_reuses_what_is_done(demo):
    command = [sys.executable, "-m", "recipes.cpu_demo.run", "--out", str(demo), *SMALL]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.count("done earlier") == 9


def test_rollouts_by_a_verl_validation_run(demo, tmp_path):
    out = tmp_path / "rollouts"
    arguments = ["--questions", str(demo / "assets" / "val.jsonl"), "--corpus", str(demo / "assets" / "lay_words" / "corpus.jsonl")]
    arguments += ["--model", str(demo / "warm_start" / "model"), "--k", "2", "--limit", "3", "--max-tokens", "96", "--out", str(out)]
    command = [sys.executable, "-m", "hiexp_verl.cli", "rollout", "--by", "verl", *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    log = (out / "verl.log").read_text(errors="replace")[-3000:] if (out / "verl.log").is_file() else ""
    assert result.returncode == 0, result.stderr[-2000:] + log
    trajectories = list(read_trajectories(out / "trajectories.jsonl"))
    assert len(trajectories) == 6 and len({t.question_id for t in trajectories}) == 3
    assert sum(t.extra["searches"] > 0 for t in trajectories) >= 5
