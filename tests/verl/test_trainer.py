"""What our trainers add around verl's own methods, without a device: those are stood in for."""

from types import SimpleNamespace

import numpy as np
import pytest

pytestmark = [pytest.mark.verl, pytest.mark.compat]
torch = pytest.importorskip("torch")
pytest.importorskip("verl")

from verl.trainer.ppo.v1.trainer_base import PPOTrainer, get_trainer_cls

from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.record import EpisodeRecord
from hiexp_verl.hek.opening import remember_encoder
from hiexp_verl.plugin import trainer as plugin_trainer
from hiexp_verl.plugin.advantage import _ARMS, _TERMS
from hiexp_verl.plugin.checkpoint import MARKER, STATE
from hiexp_verl.plugin.loop import Version, Versions
from tests.support.verl_fixtures import compose, write_corpus, write_hek

SEPARATE = (
    "data.train_batch_size=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=1",
    "trainer.v1.separate_async.parameter_sync_step=4",
    "actor_rollout_ref.rollout.nnodes=1",
    "actor_rollout_ref.rollout.n_gpus_per_node=1",
    "actor_rollout_ref.rollout.checkpoint_engine.backend=nccl",
)


@pytest.fixture
def make(tmp_path, monkeypatch):
    hek = write_hek(tmp_path / "hek")
    remember_encoder(hek, "hash:256")
    paths = [
        f"hiexp.hek={hek}",
        f"hiexp.search.corpus={write_corpus(tmp_path / 'c.jsonl')}",
        f"trainer.default_local_dir={tmp_path / 'ck'}",
    ]
    monkeypatch.setattr(PPOTrainer, "__init__", lambda self, config: setattr(self, "config", config))
    monkeypatch.setattr(plugin_trainer, "retrieval_for", lambda settings: None)

    def trainer(*overrides, name="hiexp_sync"):
        if name == "hiexp_separate_async":  # what verl asserts before it starts
            overrides = (*overrides, *SEPARATE)
        return get_trainer_cls(name)(compose("+hiexp=grpo", "actor_rollout_ref.rollout.name=vllm", *paths, *overrides))

    return trainer


@pytest.mark.parametrize(
    ("name", "mode"), [("hiexp_sync", "sync"), ("hiexp_colocate_async", "colocate_async"), ("hiexp_separate_async", "separate_async")]
)
def test_verl_sees_its_own_mode_and_every_node_the_same_hek(make, name, mode):
    trainer = make(name=name)
    assert trainer.config.trainer.v1.trainer_mode == mode
    assert trainer.config.hiexp.hek.endswith("0001") and len(trainer.config.hiexp.hek_hash) == 64
    assert trainer.config.algorithm.rollout_correction.rollout_is is None


def test_stripping_turns_verl_s_correction_on_unless_it_is(make):
    assert make("hiexp.group.strip=true").config.algorithm.rollout_correction.rollout_is == "token"
    own = make("hiexp.group.strip=true", "algorithm.rollout_correction.rollout_is=sequence")
    assert own.config.algorithm.rollout_correction.rollout_is == "sequence"


def test_arms_come_from_the_sessions_in_the_keys(make, monkeypatch):
    seen = []
    monkeypatch.setattr(PPOTrainer, "_compute_advantage", lambda self, batch, metrics: seen.append(_ARMS.get()))
    batch = type("Batch", (), {"keys": ["u_x_0_0", "u_x_3_0", "u_x_1_0", "u_x_2_0"]})
    four = ["hiexp.group.arms=[none,prompt,tool,full]", "actor_rollout_ref.rollout.n=4"]
    make(*four, "hiexp.group.baseline=within-arm")._compute_advantage(batch, {})
    make(*four)._compute_advantage(batch, {})
    assert list(seen[0].names) == ["none", "full", "prompt", "tool"]
    assert seen[1] is None and _ARMS.get() is None


def test_the_terms_of_a_batch_are_those_of_its_rows(make, monkeypatch):
    records = [
        EpisodeRecord("q", "?", queries=("capital Peru",), followed=True, states=("x",)),
        EpisodeRecord("q", "?", queries=("capital Chile",), states=("x",)),
    ]
    extras = np.array([{"hiexp": r.to_json(), "reward_extra_info": {"acc": 1.0}} for r in records], dtype=object)
    stored = {"extra_fields": extras, "rm_scores": torch.ones(2, 3), "response_mask": torch.ones(2, 3)}
    asked = []
    monkeypatch.setattr(plugin_trainer.tq, "kv_batch_get", lambda **given: asked.append(given) or dict(stored))
    seen = []
    monkeypatch.setattr(PPOTrainer, "_compute_advantage", lambda self, batch, metrics: seen.append(_TERMS.get()))
    tags = [{}, {"is_padding": True}, {}]
    batch = type("Batch", (), {"keys": ["u_0_0", "pad_0_0", "u_1_0"], "tags": tags, "partition_id": "train"})
    make("hiexp.credit.plan=0.1", "hiexp.credit.novelty=0.03", "hiexp.credit.turns=0.5")._compute_advantage(batch, {})
    make()._compute_advantage(batch, {})
    # The two share one of three words: 0.03 x 2/3.
    assert seen[0].bonus_B == pytest.approx([0.12, 0.0, 0.02]) and (seen[0].turns.states, seen[0].turns.weight) == (
        [("x",), (), ("x",)],
        0.5,
    )
    assert seen[1] is None and len(asked) == 1 and asked[0]["keys"] == ["u_0_0", "u_1_0"]
    assert "advantages" not in asked[0]["select_fields"], "there are none yet"


def test_the_state_is_there_before_verl_names_the_checkpoint_and_comes_back(make, tmp_path, monkeypatch):
    folder = tmp_path / "ck" / "global_step_3"

    def save(self):
        assert (folder / STATE).is_file()
        (folder / "actor").mkdir()
        (folder.parent / MARKER).write_text("3")

    monkeypatch.setattr(PPOTrainer, "_save_checkpoint", save)
    monkeypatch.setattr(PPOTrainer, "_load_checkpoint", lambda self: setattr(self, "global_steps", 3))
    first = make()
    first.global_steps = 3
    first.watch.counters = {"e1-1": {"episodes": 2, "reward": 1.5}}
    first._save_checkpoint()
    second = make()
    second._load_checkpoint()
    assert second.watch.counters == first.watch.counters
    with pytest.raises(HiExpError, match=r"hiexp\.seed=None, this run has 1"):
        make("hiexp.seed=1")._load_checkpoint()


def test_what_ends_a_run_is_logged_first(make, monkeypatch):
    trainer = make()
    logged = []
    trainer.logger = type("Logger", (), {"log": staticmethod(lambda data, step: logged.append((step, dict(data))))})
    trainer.global_steps, trainer.stop = 7, HiExpError("the reward collapsed")
    monkeypatch.setattr(PPOTrainer, "_compute_metrics", lambda self, batch, metrics: metrics.update(x=np.float32(1)))
    with pytest.raises(HiExpError, match="the reward collapsed"):
        trainer._compute_metrics(None, {"y": 2.0})
    assert logged == [(7, {"x": 1.0, "y": 2.0})]


def test_the_loop_gets_the_mean_of_the_validation_scores_that_count(make, monkeypatch):
    trainer, given = make(), []
    trainer.loop, trainer.global_steps = SimpleNamespace(validated=lambda *each: given.append(each)), 7
    monkeypatch.setattr(PPOTrainer, "_compute_metrics", lambda self, batch, metrics: None)
    trainer._compute_metrics(None, {"hiexp/acc": 0.1})
    trainer._compute_metrics(
        None,
        {"val-core/a/acc/mean@1": np.float64(0.5), "val-core/b/acc/mean@1": 0.25, "val-core/b/acc/best@4": 1, "val-aux/a/em/mean@1": 0},
    )
    assert given == [(7, 0.375)]


def test_a_round_of_self_distillation_reads_the_version_of_the_hek_that_is_in_use(make, monkeypatch):
    trainer, asked = make(), []
    incumbent = Version("hek/0002", "hash")
    loop = SimpleNamespace(versions=Versions(incumbent, Version("hek/0003", "other")), step=lambda *rest: {})
    trainer.distil = SimpleNamespace(is_due=lambda step: True, round=lambda batch, episodes, version: asked.append(version) or {})
    trainer.watch, trainer.global_steps, trainer.total_training_steps = SimpleNamespace(step=lambda *rest: None), 2, 9
    monkeypatch.setattr(PPOTrainer, "step", lambda self, metrics, timing: None, raising=False)
    monkeypatch.setattr(plugin_trainer.HiExpTrainer, "_episodes", lambda self, batch: [])
    trainer.step({}, {})
    trainer.loop = loop
    trainer.step({}, {})
    assert asked == [None, incumbent], "without the loop that of the settings"
