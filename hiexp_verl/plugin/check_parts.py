"""Are the parts of a run ours? verl takes any dataset, reward and agent loop, and with others experience is silently missing."""

from typing import Any

from omegaconf import DictConfig
from verl.utils.import_utils import load_extern_object

from hiexp_verl.config import HiExpConfig
from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.plugin.dataset import QuestionDataset
from hiexp_verl.plugin.settings import common


def check_parts(config: DictConfig, settings: HiExpConfig) -> None:
    """Check the parts that experience and its record rest on.

    Raises:
        HiExpError: one was replaced by another that does not do its work.
    """
    ours = common()
    loop = ours["actor_rollout_ref"]["rollout"]["agent"]["default_agent_loop"]
    found = config.actor_rollout_ref.rollout.agent.default_agent_loop
    if settings.enabled and found != loop:
        raise HiExpError(
            f"actor_rollout_ref.rollout.agent.default_agent_loop={found} shows no experience; set it to {loop}, or hiexp.enabled=false"
        )
    if settings.enabled:
        check_dataset(config.data.get("custom_cls") or {})
    reward = ours["reward"]["custom_reward_function"]["path"]
    found = (config.reward.get("custom_reward_function") or {}).get("path")
    if settings.dump_dir and found != reward:
        raise HiExpError(
            f"hiexp.dump_dir keeps what hiexp's reward hands on, and reward.custom_reward_function.path={found} hands on nothing; "
            f"set it to {reward}, or hiexp.dump_dir=null"
        )


def check_dataset(custom: Any) -> None:
    """Check that the dataset says of each row whether it is for training, as `QuestionDataset` and its subclasses do.

    Args:
        custom: verl's `data.custom_cls`, of `path` and `name`.

    Raises:
        HiExpError: it is another class, or cannot be loaded.
    """
    path, name = custom.get("path"), custom.get("name")
    setting = f"data.custom_cls.path={path}"
    try:
        dataset = load_extern_object(path, name) if path else None
    except Exception as error:  # a module is a program, and raises what it likes
        raise HiExpError(
            f"{setting} cannot be loaded as {name} ({type(error).__name__}: {first_line(error)}); correct data.custom_cls"
        ) from error
    if not (isinstance(dataset, type) and issubclass(dataset, QuestionDataset)):
        raise HiExpError(
            f"{setting} does not say which rows are for training; leave data.custom_cls to the flag, or name a subclass of "
            f"{QuestionDataset.__module__}.{QuestionDataset.__name__}, or set hiexp.enabled=false"
        )
