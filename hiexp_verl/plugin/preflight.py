"""Checks of a run before it takes device time: a hydra callback in the driver of `main_ppo`.

Each check raises a `HiExpError` for what the run would meet minutes later, or would never report: with another dataset, reward
or agent loop experience is silently missing. `preflight_data` checks the question files.
"""

import logging
import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.utils import HFValidationError, validate_repo_id
from hydra.experimental.callback import Callback
from jinja2 import TemplateError
from omegaconf import DictConfig, OmegaConf, open_dict
from transformers import AutoConfig
from verl.utils import hf_processor, hf_tokenizer
from verl.utils.import_utils import load_extern_object
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

from hiexp_verl.config import HiExpConfig
from hiexp_verl.domains import Domain, domain_named
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.guide.arms import arms_of, shows_at
from hiexp_verl.guide.constitution import constitution_for
from hiexp_verl.guide.steps import check_steps
from hiexp_verl.hek.opening import find_encoder, open_encoders, open_hek
from hiexp_verl.hek.schema import read_header
from hiexp_verl.hek.store import HEK, version_folder
from hiexp_verl.io.datasets import read_corpus
from hiexp_verl.plugin.agent_loop import HiExpAgentLoop, settings_of
from hiexp_verl.plugin.checkpoint import folder_to_resume, identity_of, load_state
from hiexp_verl.plugin.dataset import QuestionDataset
from hiexp_verl.plugin.preflight_arms import check_adapter, check_distil, check_group, check_loop
from hiexp_verl.plugin.preflight_data import check_questions, check_validation
from hiexp_verl.plugin.presets import REWARD
from hiexp_verl.plugin.retrieval import check_addresses
from hiexp_verl.search.http import HttpSearch
from hiexp_verl.settings import block_of
from hiexp_verl.types import Message

logger = logging.getLogger(__name__)


TURN_TOKENS = 64  # a thought and a query, or an answer
TRAINERS = ("hiexp_sync", "hiexp_colocate_async", "hiexp_separate_async")
OTHER_PROGRAMS = {"async_training": "fully_async_policy", "rollout": "one_step_off_policy"}  # by a key of their configuration
_CHECKED_PASSAGES = 1000  # of a corpus: its format; the rest is read where it is searched
ON_CPU = {
    "trainer.n_gpus_per_node": 1,
    "trainer.nnodes": 1,
    "actor_rollout_ref.actor.strategy": "fsdp2",
    "actor_rollout_ref.rollout.name": "vllm_cpu",
    "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
    "actor_rollout_ref.rollout.data_parallel_size": 1,
    "actor_rollout_ref.rollout.pipeline_model_parallel_size": 1,
    "actor_rollout_ref.rollout.quantization": None,
    "actor_rollout_ref.actor.ulysses_sequence_parallel_size": 1,
}


class Preflight(Callback):
    """Refuses a run whose settings, corpus, HEK, encoder, model or questions cannot work."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Exit with one line; no exception, since hydra turns those of a callback into warnings."""
        try:
            check_run(config)
        except HiExpError as error:
            sys.exit(f"hiexp: {error}")
        except Exception as error:  # hydra would turn it into a warning and start the run
            sys.exit(f"hiexp: the check before the run failed ({type(error).__name__}: {first_line(error)}); correct what it names")


def check_run(config: DictConfig) -> None:
    """Check everything that a run needs.

    Raises:
        HiExpError: the first fault found.
    """
    settings = settings_of(config)
    domain = check_domain(settings)
    make_absolute(config, settings)
    check_engine(config, settings)
    check_parts(config, settings)
    check_addresses(settings, config.trainer.nnodes, f"trainer.nnodes={config.trainer.nnodes}")
    if domain.tool is not None:
        check_search(settings, config.actor_rollout_ref.rollout.multi_turn.max_tool_response_length)
        check_response_length(settings, config.data.max_response_length)
    check_blocks(settings, config.data.max_response_length)
    if settings.enabled and not settings.hek:
        raise HiExpError("hiexp.hek is not set; give the directory of a HEK (`hiexp build`), or hiexp.enabled=false")
    check_group(settings, config)
    check_loop(settings, config)
    check_distil(settings, config)
    warn_of_reward(settings)
    hek = open_hek(settings)
    if hek is not None:
        constitution_for(Path(str(settings.hek)), hek.header.content_hash, arms_of(settings))
    check_resume(settings, hek, config)
    encoder, _ = open_encoders(settings, hek)
    check_model(str(config.actor_rollout_ref.model.path))
    check_adapter(config)
    check_parallel_calls(config)
    training, validation = check_questions(config, "train_files"), check_questions(config, "val_files")
    if not config.trainer.val_only:
        check_validation(config, training, validation, hek, encoder)


def make_absolute(config: DictConfig, settings: HiExpConfig) -> None:
    """Put the absolute paths of the settings into the configuration: workers, and nodes, have other working directories.

    The place of the encoder is found here, so that every node loads the same.
    """
    if config.get("hiexp") is None:
        return
    encoder = settings.encoder.path
    if settings.enabled and settings.hek and Path(settings.hek).is_dir():
        encoder = find_encoder(read_header(version_folder(Path(settings.hek))), Path(settings.hek), encoder)
    paths = {"hek": settings.hek, "dump_dir": settings.dump_dir, "search.corpus": settings.search.corpus}
    places = {name: path and os.path.abspath(path) for name, path in paths.items()}
    kind, _, place = settings.loop.distiller.partition(":")
    places["loop.distiller"] = f"files:{os.path.abspath(os.path.expanduser(place))}" if kind == "files" else None
    places["search.encoder"] = settings.search.encoder and _absolute(settings.search.encoder)
    with open_dict(config.hiexp):
        config.hiexp.encoder = block_of(replace(settings.encoder, path=encoder and _absolute(encoder)))
        for name, place in places.items():
            if place is not None:
                OmegaConf.update(config.hiexp, name, place)


def _absolute(place: str) -> str:
    return os.path.abspath(place) if Path(place).is_dir() else place  # a name of the hub stays


def check_parts(config: DictConfig, settings: HiExpConfig) -> None:
    """Refuse another agent loop or dataset where experience needs ours, and another reward where the dump of episodes needs ours."""
    found = config.actor_rollout_ref.rollout.agent.default_agent_loop
    if settings.enabled and found != "hiexp_agent":
        setting = f"actor_rollout_ref.rollout.agent.default_agent_loop={found}"
        raise HiExpError(f"{setting} shows no experience; set it to hiexp_agent, or hiexp.enabled=false")
    if settings.enabled:
        check_dataset(config.data.get("custom_cls") or {})
    found = (config.reward.get("custom_reward_function") or {}).get("path")
    if settings.dump_dir and found != REWARD:
        raise HiExpError(
            f"hiexp.dump_dir needs the episodes that hiexp's reward returns, found reward.custom_reward_function.path={found}; "
            f"set it to {REWARD}, or hiexp.dump_dir=null"
        )


def check_domain(settings: HiExpConfig) -> Domain:
    """Return the domain of a run; refuse one that lacks what it needs, or whose tool verl's agent loop does not run."""
    domain = domain_named(settings.domain)
    if domain.tool not in (None, SEARCH.tool):
        fault = f"hiexp.domain={settings.domain} has a tool of its own, which training does not run"
        raise HiExpError(f"{fault}; use `hiexp rollout`, `hiexp build` and `hiexp eval`, or a domain without a tool")
    domain.check()
    check_steps(settings.tool, domain)
    return domain


def check_dataset(custom: Any) -> None:
    """Refuse a dataset (verl's `data.custom_cls`) that does not mark its rows, as `QuestionDataset` and its subclasses do."""
    path, name = custom.get("path"), custom.get("name")
    setting = f"data.custom_cls.path={path}"
    try:
        dataset = load_extern_object(path, name) if path else None
    except Exception as error:  # importing a module can raise anything
        fault = f"{type(error).__name__}: {first_line(error)}"
        raise HiExpError(f"{setting} cannot be loaded as {name} ({fault}); correct data.custom_cls") from error
    if not (isinstance(dataset, type) and issubclass(dataset, QuestionDataset)):
        raise HiExpError(
            f"{setting} does not mark which rows are for training; leave data.custom_cls out, or name a subclass of "
            f"{QuestionDataset.__module__}.{QuestionDataset.__name__}, or set hiexp.enabled=false"
        )


def check_parallel_calls(config: DictConfig) -> None:
    """Refuse several calls a turn where the chat template of a model directory raises at them (Llama 3's does)."""
    model, rollout = Path(config.actor_rollout_ref.model.path).expanduser(), config.actor_rollout_ref.rollout
    calls = rollout.multi_turn.max_parallel_calls
    if calls < 2 or not model.exists() or hasattr(HiExpAgentLoop, "apply_chat_template"):  # verl 0.9.0 renders the answers alone
        return
    builder = create_continuous_token_builder(
        hf_tokenizer(str(model)),
        hf_model_type=AutoConfig.from_pretrained(str(model)).model_type,
        chat_template_kwargs={str(key): value for key, value in (config.data.get("apply_chat_template_kwargs") or {}).items()},
        processor=hf_processor(str(model)),
    )
    asked: list[Message] = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Two searches."}]
    answers: list[Message] = [{"role": "tool", "content": "me"}, {"role": "tool", "content": "you"}]
    try:
        builder.tokenize_context_incremental_messages(asked, asked + answers)
    except TemplateError as error:
        raise HiExpError(
            f"the chat template in {model} does not take {calls} calls of one turn ({str(error)[:200]}); "
            "set actor_rollout_ref.rollout.multi_turn.max_parallel_calls=1"
        ) from error


def check_engine(config: DictConfig, settings: HiExpConfig) -> None:
    """Refuse a program or a trainer that does not log experience, and what does not run on a CPU."""
    for key, program in OTHER_PROGRAMS.items():
        if settings.enabled and key in config:
            raise HiExpError(
                f"verl.experimental.{program} runs without our trainer: experience would not be counted, and its state not be in "
                "checkpoints; run verl.trainer.main_ppo, or set hiexp.enabled=false"
            )
    if not config.trainer.use_v1:
        raise HiExpError("trainer.use_v1=false selects verl's earlier trainer, which has no plugins; set it to true")
    mode = config.trainer.v1.trainer_mode
    if settings.enabled and mode not in TRAINERS and not _is_ours(mode):
        raise HiExpError(
            f"trainer.v1.trainer_mode={mode} does not log experience; set one of {', '.join(TRAINERS)}, or hiexp.enabled=false"
        )
    if config.trainer.device == "cpu":
        check_cpu(config)


def _is_ours(mode: str) -> bool:
    """Return whether a trainer is a subclass of ours, registered by the user's module."""
    from verl.trainer.ppo.v1 import get_trainer_cls

    from hiexp_verl.plugin.trainer import HiExpTrainer

    try:
        return issubclass(get_trainer_cls(mode), HiExpTrainer)
    except ValueError:
        return False


def check_cpu(config: DictConfig) -> None:
    """Refuse settings that need an accelerator, and micro-batches that do not fit."""
    model, rollout = config.actor_rollout_ref.model, config.actor_rollout_ref.rollout
    if (mode := config.trainer.v1.trainer_mode).endswith("separate_async"):
        sync = mode.replace("separate_async", "sync")
        raise HiExpError(f"trainer.v1.trainer_mode={mode} needs separate devices for rollouts; on a CPU set it to {sync}")
    for setting, works in ON_CPU.items():
        found = OmegaConf.select(config, setting)
        if found != works:
            raise HiExpError(f"{setting}={found} does not run on a CPU; set it to {works}")
    if (model.lora.get("rank", 0) > 0 or model.lora_rank > 0) and not model.lora.merge:  # verl takes either for the rank
        raise HiExpError("on a CPU vLLM cannot load adapters beside its packed weights; set actor_rollout_ref.model.lora.merge=true")
    episodes = config.data.train_batch_size * rollout.n
    for name in ("rollout", "ref") if config.actor_rollout_ref.actor.use_kl_loss else ("rollout",):
        block = config.actor_rollout_ref[name]
        size = block.log_prob_micro_batch_size_per_gpu
        if size and not block.log_prob_use_dynamic_bsz and episodes % size:  # verl checks it after all are played
            setting = f"actor_rollout_ref.{name}.log_prob_micro_batch_size_per_gpu={size}"
            raise HiExpError(f"data.train_batch_size x actor_rollout_ref.rollout.n = {episodes} is not divisible by {setting}; change one")


def warn_of_reward(settings: HiExpConfig) -> None:
    """Warn of a reward that a policy can earn by naming several answers at once."""
    if settings.reward.kind in ("pvpo", "cem"):
        logger.warning(f"hiexp.reward.kind={settings.reward.kind} also pays for 'A or B' and 'not A'; concise, the default, does not")


def check_resume(settings: HiExpConfig, hek: HEK | None, config: DictConfig) -> None:
    """Refuse a checkpoint to resume that is incomplete or of other settings; warn where a kill could lose all checkpoints."""
    folder = folder_to_resume(config)
    if folder is not None:
        load_state(folder, identity_of(settings, hek, config), settings.allow_mismatch)
    if config.trainer.get("max_actor_ckpt_to_keep") == 1 or config.trainer.get("remove_previous_ckpt_in_save"):
        logger.warning(
            "trainer.max_actor_ckpt_to_keep=1, or remove_previous_ckpt_in_save=true, deletes the last checkpoint before the next is "
            "complete; set max_actor_ckpt_to_keep=2 to survive a kill"
        )


def check_model(path: str) -> None:
    """Refuse a directory without a model, and a hub name that cannot be fetched; remote paths are not checked: verl fetches them."""
    setting = f"actor_rollout_ref.model.path={path}"
    folder = Path(path).expanduser()
    if "://" in path or (folder / "config.json").is_file():
        return
    if folder.exists():
        raise HiExpError(f"{setting}: found no config.json in it; give a Hugging Face model folder")
    try:
        validate_repo_id(path)
    except HFValidationError as error:
        where = "" if folder.is_absolute() else f" in {Path.cwd()}"
        raise HiExpError(f"{setting} does not exist{where}; give a model folder or a hub name") from error
    if constants.HF_HUB_OFFLINE and not isinstance(try_to_load_from_cache(path, "config.json"), str):
        raise HiExpError(
            f"{setting} is neither a directory in {Path.cwd()} nor in the hub cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE "
            "forbids the download; give a model folder, or unset HF_HUB_OFFLINE"
        )


def check_search(settings: HiExpConfig, max_response_chars: int) -> None:
    """Refuse a search without a corpus or a server that answers, and documents that verl would cut again, closing tag included."""
    search = settings.search
    if search.engine == "http":
        if not search.url:
            raise HiExpError("hiexp.search.engine=http needs hiexp.search.url, the address of a retrieval server")
        HttpSearch(search.url, search.timeout, retries=0).check("hiexp.search.url")
    elif not search.corpus:
        raise HiExpError(f"hiexp.search.engine={search.engine} needs hiexp.search.corpus, a JSONL of id, title, text")
    else:
        read_corpus(Path(search.corpus), most=_CHECKED_PASSAGES)
    if search.max_chars > max_response_chars:
        raise HiExpError(
            f"hiexp.search.max_chars={search.max_chars} is over verl's limit of {max_response_chars} characters; raise "
            "actor_rollout_ref.rollout.multi_turn.max_tool_response_length above it"
        )


def check_blocks(settings: HiExpConfig, limit: int) -> None:
    """Refuse a response that blocks between steps could fill."""
    blocks = settings.tool.steps * settings.tool.max_tokens
    if blocks >= limit:
        fault = f"hiexp.tool.steps={settings.tool.steps} blocks of hiexp.tool.max_tokens={settings.tool.max_tokens} fill"
        raise HiExpError(f"{fault} data.max_response_length={limit}; set it to {2 * blocks} or more, or lower the others")


def check_response_length(settings: HiExpConfig, limit: int) -> None:
    """Refuse a response without room for two searches and an answer, estimated at 4 characters or 1 / 1.35 words a token."""
    search = settings.search
    documents = min(search.max_chars / 4, search.top_k * search.max_words_per_passage * 1.35)
    experience = settings.tool.max_tokens if shows_at("tool", settings) else 0
    turn = min(TURN_TOKENS, settings.max_tokens_per_turn or TURN_TOKENS)
    wanted = math.ceil(2 * (documents + experience) + 3 * turn)
    if limit < wanted:
        raise HiExpError(
            f"data.max_response_length={limit} has no room for two searches of about {documents + experience:.0f} tokens and an "
            f"answer; set it to {wanted} or more, or lower hiexp.search.top_k or hiexp.search.max_words_per_passage"
        )
