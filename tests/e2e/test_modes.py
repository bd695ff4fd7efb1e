"""End to end in the trainer modes, algorithms and verl versions that the demo leaves out, from the demo's policy and HEK.

The demo trains with GRPO and GSPO in `hiexp_sync` on the verl that is installed; here are `hiexp_colocate_async`, LoRA, and
verl 0.9.0 where `make .venv090/.installed` has put it beside.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.verl]
pytest.importorskip("verl")

from hiexp_verl.io.datasets import read_questions, read_trajectories
from tests.support.paths import CPU_DEMO, ROOT
from tests.support.training import PEARSON

# Steps between the oldest policy that played a turn and the one that learns: an asynchronous episode may go on with a newer one.
STALENESS = "training/off_policy/trajectory_staleness_worst/max"
HERE, VERL_090 = Path(sys.executable), ROOT / ".venv090" / "bin" / "python"
LORA = ["actor_rollout_ref.model.lora_rank=8", "actor_rollout_ref.model.lora_alpha=16"]
# One step at this rate takes the policy to a correlation of 0.91 with the one before (0.994 at 1e-3), so that the gate of 0.99
# sees a server that has not got the adapters. An asynchronous run compares with the policy before, so its rate has to be small:
# the recipe's 1e-5 leaves the correlation where a rate of zero does (0.999), one step of all weights at 1e-4 takes it to 0.96.
FAST = "actor_rollout_ref.actor.optim.lr=3e-3"
FEW = ["data.train_batch_size=2", "actor_rollout_ref.actor.ppo_mini_batch_size=2", "actor_rollout_ref.rollout.n=3"]


class Mode(NamedTuple):
    """A run: which Python, algorithm, trainer; asynchronous ones learn from episodes of an earlier policy."""

    python: Path
    algorithm: str
    trainer: str
    staleness: int
    more: list[str]


MODES = {
    "grpo colocate_async": Mode(HERE, "grpo", "hiexp_colocate_async", 1, []),
    "gspo colocate_async lora": Mode(HERE, "gspo", "hiexp_colocate_async", 1, LORA),
    "grpo sync lora, verl 0.9.0": Mode(VERL_090, "grpo", "hiexp_sync", 0, [*LORA, FAST]),
    "gspo colocate_async, verl 0.9.0": Mode(VERL_090, "gspo", "hiexp_colocate_async", 1, []),
}
# A round after each step, by the privilege that every rollout without experience has.
ROUND = ["hiexp.group.arms=[none,full,none]", "hiexp.distil.every=1", "hiexp.distil.privilege=hek", "hiexp.distil.top_k=16"]
ROUND += ["hiexp.distil.mini_batch=2"]
WITH_ROUNDS = {
    "grpo colocate_async": Mode(HERE, "grpo", "hiexp_colocate_async", 1, ROUND),
    "gspo sync lora, taught without its adapter": Mode(HERE, "gspo", "hiexp_sync", 0, [*ROUND, *LORA, FAST, "hiexp.distil.teacher=base"]),
}


@pytest.mark.parametrize("name", WITH_ROUNDS)
def test_a_round_of_self_distillation_follows_each_step_and_vllm_serves_what_it_made(demo, tmp_path, name):
    mode = WITH_ROUNDS[name]
    steps = train(demo, tmp_path, mode)
    assert [step["hiexp/distil/pairs"] for step in steps] == [4.0, 4.0], "two questions, two rollouts without experience each"
    assert all(step["hiexp/distil/updates"] >= 1 and step["hiexp/distil/kl"] > 0 for step in steps)
    assert all(step["hiexp/distil/grad_norm"] > 0 for step in steps)
    assert min(step[PEARSON] for step in steps) > 0.99
    assert [step[STALENESS] for step in steps] == [0, mode.staleness]


@pytest.mark.parametrize("name", MODES)
def test_two_steps_train_what_vllm_serves_and_show_experience(demo, tmp_path, name):
    mode = MODES[name]
    if not mode.python.exists():
        pytest.skip(f"{mode.python.parent.parent.name} is not there; `make e2e` makes it")
    steps = train(demo, tmp_path, mode)
    assert [step["hiexp/e2_e3_hit_rate"] for step in steps] == [1.0, 1.0]
    assert min(step[PEARSON] for step in steps) > 0.99
    assert [step[STALENESS] for step in steps] == [0, mode.staleness]
    assert any(step["actor/grad_norm"] > 0 for step in steps)
    assert "val-core/hiexp/acc/mean@1" in steps[-1], "validation was played"
    episodes = [t for dump in sorted((tmp_path / "episodes").glob("*.jsonl")) for t in read_trajectories(dump)]
    assert len(episodes) == 2 * 2 * 3
    asked = {q.id for q in read_questions(demo / "assets" / "train.jsonl")}
    assert {t.question_id for t in episodes} <= asked and {t.extra["split"] for t in episodes} == {"train"}


def train(demo: Path, folder: Path, mode: Mode) -> list[dict[str, float]]:
    """Train two steps as a user would, validate after the second; return the metrics of each."""
    overrides = [
        f"hydra.run.dir={folder / 'hydra'}",
        f"hiexp.hek={demo / 'build' / 'hek'}",
        f"hiexp.search.corpus={demo / 'assets' / 'lay_words' / 'corpus.jsonl'}",
        f"hiexp.dump_dir={folder / 'episodes'}",
        f"data.train_files={demo / 'assets' / 'train.jsonl'}",
        f"data.val_files={demo / 'assets' / 'val.jsonl'}",
        "data.val_max_samples=2",
        f"actor_rollout_ref.model.path={demo / 'warm_start' / 'model'}",
        f"trainer.v1.trainer_mode={mode.trainer}",
        "trainer.total_training_steps=2",
        "trainer.test_freq=2",
        "trainer.save_freq=-1",
        f"trainer.default_local_dir={folder / 'checkpoints'}",
        *FEW,
        *mode.more,
    ]
    command = [str(mode.python), "-m", "hiexp_verl.cli", "train", "--cpu", "--config-dir", str(CPU_DEMO), "--config-name", mode.algorithm]
    environment = {**os.environ, "VERL_FILE_LOGGER_PATH": str(folder / "metrics.jsonl")}
    result = subprocess.run([*command, *overrides], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    rows = [json.loads(line)["data"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if PEARSON in row]
