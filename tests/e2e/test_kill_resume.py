"""A training run that is killed comes back whole: the policy, its experience and the order of the data."""

import json

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.verl]
pytest.importorskip("verl")

from benchmarks.kill_resume import Run
from hiexp_verl.plugin.checkpoint import STATE


def test_a_run_killed_after_a_checkpoint_goes_on_from_it_and_no_other_does(demo, tmp_path):
    run = Run(demo, tmp_path / "run", steps=2)
    group = ["hiexp.group.arms=[full,none]", "hiexp.group.baseline=within-arm", "hiexp.group.strip=true"]
    assert run.live(lambda seconds: 1 in run.metrics(), *group) is None, run.log_end()  # verl saves a step, then logs it
    assert run.saved == 1
    first = run.episodes()[1]
    seen_by_then = seen(run, 1)
    assert run.live(lambda seconds: False, *group, "hiexp.seed=8") == 1
    assert "was made with hiexp.seed=7, this run has 8" in run.log_end()
    assert run.live(lambda seconds: False, *group) == 0, run.log_end()
    steps = run.metrics()
    assert sorted(steps) == [1, 2]
    for step in steps.values():
        assert (step["hiexp/with_experience"], step["hiexp/gap/groups"], step["hiexp/strip_failed"]) == (0.5, 2.0, 0.0)
        assert 0 < step["rollout_corr/rollout_is_min"] < step["rollout_corr/rollout_is_max"] <= 2.0, "corrected, and clipped"
    assert run.episodes()[1] == first, "the step of the checkpoint was not played again"
    questions = [{row["question_id"] for row in rows} for rows in run.episodes().values()]
    assert len(questions) == 2 and not questions[0] & questions[1], "the data went on where it was"
    assert 0 < seen_by_then < seen(run, 2)


def seen(run, step):
    """Return how often entries had been seen at a checkpoint."""
    state = json.loads((run.folder / "checkpoints" / f"global_step_{step}" / STATE).read_text())
    return sum(counter["episodes"] for counter in state["watched"]["counters"].values())
