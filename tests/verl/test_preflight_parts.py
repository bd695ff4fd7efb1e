"""A run whose dataset, agent loop or reward is not ours is told before anything starts."""

import pytest

pytestmark = pytest.mark.verl
pytest.importorskip("verl")

from hiexp_verl.errors import HiExpError
from hiexp_verl.plugin.agent_loop import settings_of
from hiexp_verl.plugin.preflight import check_parts
from tests.support.verl_fixtures import compose

LOOP = "actor_rollout_ref.rollout.agent.default_agent_loop"
REWARD = "reward.custom_reward_function.path"
OTHERS = """
from verl.utils.dataset.rl_dataset import RLHFDataset
from hiexp_verl.plugin.dataset import QuestionDataset

class Shuffled(QuestionDataset): pass
class Bare(RLHFDataset): pass
def made(*args): return QuestionDataset(*args)
"""


def check(*overrides):
    config = compose("+hiexp=grpo", "actor_rollout_ref.rollout.name=vllm", *overrides)
    check_parts(config, settings_of(config))


def refusal(*overrides):
    with pytest.raises(HiExpError) as error:
        check(*overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_parts_that_the_flag_names_pass():
    check()
    check("hiexp.dump_dir=dumps")


@pytest.mark.parametrize("loop", ["tool_agent", "null", "hiexp_agents"])
def test_an_agent_loop_that_shows_no_experience_is_refused_unless_none_is_meant(loop):
    assert f"default_agent_loop={'None' if loop == 'null' else loop} shows no experience" in refusal(f"{LOOP}={loop}")
    check(f"{LOOP}={loop}", "hiexp.enabled=false")


@pytest.mark.parametrize("reward", ["null", "mine.py"])
def test_another_reward_is_refused_only_with_a_dump_that_would_be_empty(reward):
    assert "set it to pkg://hiexp_verl.plugin.reward, or hiexp.dump_dir=null" in refusal(f"{REWARD}={reward}", "hiexp.dump_dir=dumps")
    check(f"{REWARD}={reward}")


def test_a_dataset_that_does_not_tell_training_from_validation_is_refused():
    bare = ["data.custom_cls.path=pkg://verl.utils.dataset.rl_dataset", "data.custom_cls.name=RLHFDataset"]
    assert "does not mark which rows are for training" in refusal(*bare)
    assert "data.custom_cls.path=None does not mark" in refusal("data.custom_cls.path=null")
    check("data.custom_cls.path=null", "hiexp.enabled=false")


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_subclass_of_our_dataset_passes_wherever_it_lies(tmp_path, prefix):
    (tmp_path / "others.py").write_text(OTHERS)
    path = f"data.custom_cls.path={prefix}{tmp_path / 'others.py'}"
    check(path, "data.custom_cls.name=Shuffled")
    assert "does not mark" in refusal(path, "data.custom_cls.name=Bare")
    assert "does not mark" in refusal(path, "data.custom_cls.name=made")


@pytest.mark.parametrize("text", ["def", "raise RuntimeError('two\\nlines')", "", None])
def test_a_dataset_that_cannot_be_loaded_is_named(tmp_path, text):
    if text is not None:
        (tmp_path / "others.py").write_text(text)
    assert "cannot be loaded as QuestionDataset (" in refusal(f"data.custom_cls.path={tmp_path / 'others.py'}")
