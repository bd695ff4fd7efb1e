"""The loop goes with both trainers and both losses, and is refused where it could not work. Verl's own methods are stood in for."""

from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.verl
pytest.importorskip("torch")
pytest.importorskip("verl")

from tensordict import TensorDict
from verl.trainer.ppo.v1.trainer_base import PPOTrainer, get_trainer_cls
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu

from hiexp_verl.errors import HiExpError
from hiexp_verl.hek import HEK
from hiexp_verl.hek.opening import remember_encoder
from hiexp_verl.ledger.rows import LedgerRow
from hiexp_verl.plugin import trainer as plugin_trainer
from hiexp_verl.plugin.agent_loop import settings_of
from hiexp_verl.plugin.loop import STAMP
from hiexp_verl.plugin.preflight_arms import check_group, check_loop
from hiexp_verl.plugin.versions import Version, Versions
from tests.support.verl_fixtures import compose, write_corpus, write_hek

MODES = ("hiexp_sync", "hiexp_colocate_async")
LOOP = ("hiexp.loop.enabled=true", "hiexp.ledger.enabled=true", "hiexp.group.arms=[none,full]", "actor_rollout_ref.rollout.n=4")


@pytest.fixture
def config_of(tmp_path):
    hek = write_hek(tmp_path / "hek")
    remember_encoder(hek, "hash:256")
    places = (f"hiexp.hek={hek}", f"hiexp.search.corpus={write_corpus(tmp_path / 'c.jsonl')}", f"hiexp.dump_dir={tmp_path / 'dump'}")
    places += (f"trainer.default_local_dir={tmp_path / 'ck'}", "data.val_files=[]", "actor_rollout_ref.rollout.name=vllm")

    def config(*overrides, flag="grpo", mode="hiexp_sync"):
        return compose(f"+hiexp={flag}", *places, *LOOP, f"trainer.v1.trainer_mode={mode}", *overrides)

    return config


@pytest.fixture
def make(config_of, monkeypatch):
    monkeypatch.setattr(PPOTrainer, "__init__", lambda self, config: setattr(self, "config", config))
    monkeypatch.setattr(plugin_trainer, "retrieval_for", lambda settings: None)
    return lambda *overrides, mode, **flag: get_trainer_cls(mode)(config_of(*overrides, mode=mode, **flag))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("flag", "loss"), [("grpo", "vanilla"), ("gspo", "gspo")])
def test_every_batch_of_both_trainers_and_both_losses_carries_its_versions(make, monkeypatch, flag, loss, mode):
    trainer, played = make(mode=mode, flag=flag), []
    config = trainer.config
    assert config.actor_rollout_ref.actor.policy_loss.loss_mode == loss and config.algorithm.adv_estimator == "hiexp_grpo"
    check_group(settings_of(config), config)
    assert trainer.loop is not None
    monkeypatch.setattr(PPOTrainer, "fit", lambda self, manager: played.append(manager))
    stamps = []

    def generate(batch):
        stamps.append(Versions.of(tu.get_non_tensor_data(batch, STAMP, None)))

    trainer.fit(SimpleNamespace(generate_sequences=generate, workers=3))
    incumbent = Version(config.hiexp.hek, config.hiexp.hek_hash)
    played[0].generate_sequences(TensorDict({}, batch_size=[]))
    trainer.loop.state.candidate = Version("hek/0002", "new")
    played[0].generate_sequences(TensorDict({}, batch_size=[]))
    assert stamps == [Versions(incumbent), Versions(incumbent, Version("hek/0002", "new"))] and played[0].workers == 3


def test_rollouts_that_were_dispatched_with_an_earlier_version_decide_nothing(make, tmp_path):
    loop = make("hiexp.loop.gate.min_groups=1", mode="hiexp_colocate_async").loop
    assert loop is not None
    old = loop.state.incumbent
    loop.state.previous, loop.state.incumbent = old, Version("hek/0002", "second")
    loop.state.candidate, loop.state.tested_from = Version("hek/0003", "third"), 7

    def group(name, *hashes):
        return [LedgerRow(7, name, i, each, "full" if each else "none", float(each == "third")) for i, each in enumerate(hashes)]

    late = [*group("a", "", old.content_hash, "third"), *group("b", "", old.content_hash, "second")]
    found = loop.step(7, late, alarmed=False)
    assert found["hiexp/loop/groups"] == 0.0 and loop.state.candidate is not None, "no group has both versions of the test"
    assert loop.state.spans[-1].groups == 1, "group b, by its rollout with the version in use"


@pytest.mark.parametrize(("mode", "theirs"), [("hiexp_sync", PPOTrainerSync), ("hiexp_colocate_async", PPOTrainerColocateAsync)])
def test_the_gate_of_the_distiller_closes_before_the_servers_sleep_and_opens_after_they_have_the_weights(make, monkeypatch, mode, theirs):
    seen = []
    for name in ("on_init_end", "on_sample_end", "on_step_end"):
        monkeypatch.setattr(theirs, name, lambda self, name=name: seen.append(name))
    keeper = SimpleNamespace(gate="gate", open=lambda: seen.append("open"), close=lambda: seen.append("close"))
    monkeypatch.setattr(plugin_trainer, "Gatekeeper", lambda client: seen.append(client) or keeper)
    trainer = make("hiexp.loop.distiller=policy", mode=mode)
    trainer.llm_server_manager, trainer.tokenizer = SimpleNamespace(get_client=lambda: "client"), None
    trainer.on_init_end()
    trainer.on_sample_end()
    trainer.on_step_end()
    assert seen == ["on_init_end", "client", "open", "close", "on_sample_end", "on_step_end", "open"]
    assert trainer.loop is not None and trainer.loop.policy.model == "policy"


def test_without_that_distiller_nothing_is_between(make, monkeypatch):
    seen = []
    for name in ("on_init_end", "on_sample_end", "on_step_end"):
        monkeypatch.setattr(PPOTrainerSync, name, lambda self, name=name: seen.append(name))
    trainer = make(mode="hiexp_sync")
    for name in ("on_init_end", "on_sample_end", "on_step_end"):
        getattr(trainer, name)()
    assert seen == ["on_init_end", "on_sample_end", "on_step_end"] and trainer.gatekeeper is None


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["hiexp.hek=null"], "the run has none; set hiexp.hek"),
        (["hiexp.ledger.enabled=false"], r"set hiexp\.ledger\.enabled=true"),
        (["hiexp.dump_dir=null"], r"set hiexp\.dump_dir=DIR"),
        (["actor_rollout_ref.rollout.n=2"], r"rollout\.n=2 and hiexp\.group\.arms=\['none', 'full'\] give 1 guided rollouts; raise n"),
        (["hiexp.loop.distiller=vllm:DIR"], "would start a model beside the policy"),
        (["hiexp.other_domain=true"], r"leave hiexp\.other_domain out"),
        (["hiexp.loop.edits=true"], "needs a model as hiexp.loop.distiller"),
        (["hiexp.loop.lag=50"], "must be less than hiexp.loop.every=50"),
        (["hiexp.loop.guards.validation=0.1", "trainer.test_freq=-1"], r"found trainer\.test_freq=-1 .*; set test_freq"),
        (["hiexp.loop.guards.validation=0.1", "trainer.test_freq=60"], r"follow=50; set test_freq"),
        (["hiexp.loop.distiller=policy", "actor_rollout_ref.rollout.name=sglang"], "rollout.name is sglang; serve a model and give openai"),
        (["hiexp.loop.distiller=policy", "actor_rollout_ref.rollout.data_parallel_size=2"], "data_parallel_size=1, found 2; serve"),
        (["hiexp.loop.distiller=policy", "trainer.v1.trainer_mode=hiexp_separate_async"], "trainer_mode is hiexp_separate_async; serve"),
    ],
)
def test_a_loop_that_cannot_work_is_refused_in_one_line(config_of, overrides, said):
    config = config_of(*overrides)
    with pytest.raises(HiExpError, match=said) as error:
        check_loop(settings_of(config), config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("flag", ["grpo", "gspo"])
@pytest.mark.parametrize("distiller", ["rules", "policy", "openai:http://host:1/v1#m"])
def test_a_loop_that_can_is_not(config_of, mode, flag, distiller):
    config = config_of(
        f"hiexp.loop.distiller={distiller}", "hiexp.loop.guards.validation=0.1", "trainer.test_freq=20", flag=flag, mode=mode
    )
    check_loop(settings_of(config), config)
    assert HEK.load(config.hiexp.hek).entries
