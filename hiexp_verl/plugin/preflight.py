"""Checks before any device time is spent: a hydra callback in the driver of `main_ppo`."""

import logging
import math
import sys
from pathlib import Path
from typing import Any

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.utils import HFValidationError, validate_repo_id
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from hiexp_verl.config import HiExpConfig
from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.hek.store import HEK
from hiexp_verl.jsonl import read_corpus
from hiexp_verl.plugin.agent_loop import settings_of
from hiexp_verl.plugin.check_engine import check_engine
from hiexp_verl.plugin.check_parts import check_parts
from hiexp_verl.plugin.check_questions import check_questions, check_validation
from hiexp_verl.plugin.check_template import check_parallel_calls
from hiexp_verl.plugin.checkpoint import folder_to_resume, identity_of, load_state
from hiexp_verl.run.arm import STRATA
from hiexp_verl.run.control import levels_at
from hiexp_verl.run.encoders import open_encoders, open_hek
from hiexp_verl.search.http import HttpSearch

logger = logging.getLogger(__name__)

TURN_TOKENS = 64  # a thought and a query, or an answer


class Preflight(Callback):
    """Refuses a run whose settings, corpus, HEK, encoder, model or questions cannot work."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Exit with one line that says what to do. Not an exception: hydra turns a callback's into a mere warning."""
        try:
            check_run(config)
        except HiExpError as error:
            sys.exit(f"hiexp: {error}")
        except Exception as error:  # else hydra would turn it into a warning, and the run would start all the same
            sys.exit(f"hiexp: the check before the run failed ({type(error).__name__}: {first_line(error)}); correct what it names")


def check_run(config: DictConfig) -> None:
    """Check everything that a run needs.

    Raises:
        HiExpError: the first fault found.
    """
    settings = settings_of(config)
    check_engine(config, settings)
    check_parts(config, settings)
    check_search(settings)
    check_tool_response_length(settings, config.actor_rollout_ref.rollout.multi_turn.max_tool_response_length)
    check_response_length(settings, config.data.max_response_length)
    if settings.enabled and not settings.hek:
        raise HiExpError("hiexp.hek is not set; give the directory of a HEK (`hiexp build`), or hiexp.enabled=false")
    check_group(settings, config)
    hek = open_hek(settings)
    check_resume(settings, hek, config)
    encoder, _ = open_encoders(settings, hek)
    check_model(str(config.actor_rollout_ref.model.path))
    check_parallel_calls(config)
    training, validation = check_questions(config, "train_files"), check_questions(config, "val_files")
    if not config.trainer.val_only:
        check_validation(config, training, validation, hek, encoder)


def check_group(settings: HiExpConfig, config: DictConfig) -> None:
    """Check that mixed groups can be mixed, and that what they need of verl is on."""
    group, n = settings.group, int(config.actor_rollout_ref.rollout.n)
    share = group.with_experience
    if group.stratified and share != 1:
        raise HiExpError("hiexp.group.stratified has rollouts without experience already; leave hiexp.group.with_experience at 1")
    if n < 2 and (group.stratified or 0 < share < 1):
        raise HiExpError(f"hiexp.group mixes rollouts of one question, and actor_rollout_ref.rollout.n={n}; raise it to 2 or more")
    if group.baseline == "within-arm" and config.algorithm.adv_estimator != "hiexp_grpo":
        raise HiExpError(
            f"hiexp.group.baseline=within-arm is known to algorithm.adv_estimator=hiexp_grpo alone, found {config.algorithm.adv_estimator}"
        )
    if group.baseline == "within-arm" and group.stratified and n < 2 * len(STRATA):
        logger.warning(
            f"hiexp.group.stratified has {len(STRATA)} arms, and an arm of one rollout has the group's mean as its baseline, not its own; "
            f"within-arm wants actor_rollout_ref.rollout.n={2 * len(STRATA)} or more, found {n}"
        )
    if group.strip:
        if not config.actor_rollout_ref.rollout.calculate_log_probs:
            raise HiExpError("hiexp.group.strip needs the rollout's probabilities; set actor_rollout_ref.rollout.calculate_log_probs=true")
        if config.algorithm.rollout_correction.get("bypass_mode"):
            raise HiExpError("hiexp.group.strip needs probabilities without experience; set algorithm.rollout_correction.bypass_mode=false")


def check_resume(settings: HiExpConfig, hek: HEK | None, config: DictConfig) -> None:
    """Check that the checkpoint to resume from is whole, and of a run with the same experience."""
    folder = folder_to_resume(config)
    if folder is not None:
        load_state(folder, identity_of(settings, hek, config), settings.allow_mismatch)
    if config.trainer.get("max_actor_ckpt_to_keep") == 1 or config.trainer.get("remove_previous_ckpt_in_save"):
        logger.warning(
            "trainer.max_actor_ckpt_to_keep=1, or remove_previous_ckpt_in_save=true, deletes the last checkpoint before the next is "
            "whole; max_actor_ckpt_to_keep=2 alone survives a kill"
        )


def check_model(path: str) -> None:
    """Check a model directory; a hub name or a remote path is verl's to fetch, unless the hub is out of reach.

    Raises:
        HiExpError: the directory is missing or holds no model, or the hub may not be asked and its cache has no such model.
    """
    setting = f"actor_rollout_ref.model.path={path}"
    folder = Path(path).expanduser()
    if "://" in path or (folder / "config.json").is_file():
        return
    if folder.exists():
        raise HiExpError(f"{setting} is no model directory: found no config.json in it; give a Hugging Face model folder")
    try:
        validate_repo_id(path)
    except HFValidationError as error:
        where = "" if folder.is_absolute() else f" in {Path.cwd()}"
        raise HiExpError(f"{setting} is no model directory: it does not exist{where}; give a model folder or a hub name") from error
    if constants.HF_HUB_OFFLINE and not isinstance(try_to_load_from_cache(path, "config.json"), str):
        raise HiExpError(
            f"{setting} is neither a directory in {Path.cwd()} nor in the hub cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE "
            "forbids to fetch it; give a model folder, or unset HF_HUB_OFFLINE"
        )


def check_search(settings: HiExpConfig) -> None:
    """Check that the search tool has something to search."""
    search = settings.search
    if search.engine == "http":
        if not search.url:
            raise HiExpError("hiexp.search.engine=http needs hiexp.search.url, the address of a retrieval server")
        HttpSearch(search.url, search.timeout, retries=0).check("hiexp.search.url")
    elif not search.corpus:
        raise HiExpError(f"hiexp.search.engine={search.engine} needs hiexp.search.corpus, a JSONL of id, title, text")
    else:
        read_corpus(Path(search.corpus))


def check_tool_response_length(settings: HiExpConfig, limit: int) -> None:
    """Check that verl will not cut the documents once more, their closing tag included."""
    if settings.search.max_chars > limit:
        raise HiExpError(
            f"hiexp.search.max_chars={settings.search.max_chars} is over verl's limit of {limit} characters; raise "
            "actor_rollout_ref.rollout.multi_turn.max_tool_response_length above it"
        )


def check_response_length(settings: HiExpConfig, limit: int) -> None:
    """Check that two searches and an answer fit into the response, by estimate: 4 characters or 1 / 1.35 words a token."""
    search = settings.search
    documents = min(search.max_chars / 4, search.top_k * search.max_words_per_passage * 1.35)
    experience = settings.step.max_tokens if settings.enabled and levels_at(settings.control, "step") else 0
    turn = min(TURN_TOKENS, settings.max_tokens_per_turn or TURN_TOKENS)
    wanted = math.ceil(2 * (documents + experience) + 3 * turn)
    if limit < wanted:
        raise HiExpError(
            f"data.max_response_length={limit} has no room for two searches of about {documents + experience:.0f} tokens each and an "
            f"answer; set it to {wanted} or more, or lower hiexp.search.top_k or hiexp.search.max_words_per_passage"
        )
