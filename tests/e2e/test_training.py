"""The one training of `make test`: GRPO with mixed groups from a HEK of its own rollouts, killed after a checkpoint and resumed.

The resumed step ends with a round of self-distillation.
"""

import json
from types import SimpleNamespace

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.verl]
pytest.importorskip("verl")

from benchmarks.kill_resume import Run
from hiexp_verl.hek.store import HEK
from hiexp_verl.plugin.checkpoint import STATE
from tests.support.training import PEARSON

# Two rollouts a question, and no more padding than two searches need: most of the time is the update.
MIXED = ["hiexp.group.arms=[none,full]", "data.max_response_length=576"]
# All checkpoints are kept: what a round keeps counts as one of trainer.max_actor_ckpt_to_keep, which preflight refuses.
DISTIL = ["hiexp.distil.every=2", "hiexp.distil.privilege=hek", "hiexp.distil.top_k=16", "trainer.max_actor_ckpt_to_keep=null"]
STEPS = [1, 2]


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory):
    """The run after both lives, with what the first had written when it was killed."""
    out, _ = prepared
    run = Run(out, tmp_path_factory.mktemp("training") / "run", steps=2)
    code = run.live(lambda seconds: 1 in run.metrics(), *MIXED, *DISTIL)  # verl saves a step, then logs it
    assert code is None, run.log_end()
    first = SimpleNamespace(saved=run.saved, episodes=run.episodes()[1], state=state_of(run, 1), metrics=run.metrics()[1])
    code = run.live(lambda seconds: False, *MIXED, *DISTIL)
    assert code == 0, run.log_end()
    return SimpleNamespace(run=run, first=first, metrics=run.metrics(), episodes=run.episodes())


def state_of(run, step):
    """Return what lies beside the policy in a checkpoint."""
    return json.loads((run.folder / "checkpoints" / f"global_step_{step}" / STATE).read_text())


def seen(state):
    """Return how often entries had been shown at a checkpoint."""
    return sum(counter["episodes"] for counter in state["watched"]["counters"].values())


def test_the_warm_started_policy_searches_and_its_rollouts_make_a_hek(prepared):
    _, results = prepared
    assert results["rollouts"]["shares"]["valid_search"] >= 0.8
    assert results["build"]["levels"]["e1"] > 0 and results["build"]["levels"]["e3"] > 0


def test_vllm_serves_the_weights_that_are_trained_in_each_step(trained):
    assert sorted(trained.metrics) == STEPS
    assert min(step[PEARSON] for step in trained.metrics.values()) > 0.99
    assert any(step["actor/grad_norm"] > 0 for step in trained.metrics.values())


def test_a_round_of_self_distillation_learns_from_the_rollouts_without_experience(trained):
    assert not any(name.startswith("hiexp/distil/") for name in trained.metrics[1]), "every second step"
    found = {name.removeprefix("hiexp/distil/"): value for name, value in trained.metrics[2].items() if name.startswith("hiexp/distil/")}
    assert (found["pairs"], found["students"], found["prompts_unlike"]) == (2, 2, 0)
    assert found["kl"] > 0 and found["grad_norm"] > 0, "with experience in its prompt the teacher expects other tokens"
    assert 0.5 < found["student_mass"] <= 1.001 and 0.5 < found["teacher_mass"] <= 1.001 and 0 <= found["clip_fraction"] < 1
    assert found["overlap"] > 0.3 and found["held_out"] == 0, "two students are too few to watch one"


def test_each_guided_episode_has_experience_and_no_other_has(trained):
    for step in STEPS:
        rows = trained.episodes[step]
        shown = [row for row in rows if row["extra"]["shown"]]
        assert (len(rows), len(shown)) == (4, 2), "2 questions, 2 rollouts each, half of them guided"
        assert len({row["question_id"] for row in shown}) == 2, "half of each group"
        for row in rows:
            text = "".join(message["content"] for message in row["messages"])
            assert ("<experience>" in text) is bool(row["extra"]["shown"])
        assert all({"e2", "e3"} & {each["level"] for each in row["extra"]["shown"]} for row in shown)
        metrics = trained.metrics[step]
        assert (metrics["hiexp/with_experience"], metrics["hiexp/gap/groups"], metrics["hiexp/failed_search_rate"]) == (0.5, 2.0, 0.0)


def test_a_checkpoint_holds_the_hek_and_the_use_of_its_entries(trained, prepared):
    hek = HEK.load(prepared[0] / "build" / "hek")
    for step in STEPS:
        state = trained.first.state if step == 1 else state_of(trained.run, step)
        assert state["step"] == step and state["identity"]["hek"] == hek.header.content_hash
        assert set(state["watched"]["counters"]) <= {entry.id for entry in hek.entries}
    assert 0 < seen(trained.first.state) < seen(state_of(trained.run, 2))


def test_a_killed_run_goes_on_from_its_checkpoint_and_where_the_data_was(trained):
    assert trained.first.saved == 1 and trained.run.saved == 2
    assert trained.episodes[1] == trained.first.episodes, "the step of the checkpoint was not played again"
    assert trained.metrics[1] == trained.first.metrics
    questions = [{row["question_id"] for row in trained.episodes[step]} for step in STEPS]
    assert len(questions[0]) == len(questions[1]) == 2 and not questions[0] & questions[1]
