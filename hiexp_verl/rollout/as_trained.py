"""How a checkpoint played in its training: the defaults of episodes with it.

How much experience is shown when a policy is evaluated: as much as in its training, or as `--set` says."""

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import yaml

from hiexp_verl.config import Budgets, HiExpConfig, Place, block_of, parse_block
from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.hek.schema import read_header
from hiexp_verl.hek.store import version_folder
from hiexp_verl.io.files import fingerprint
from hiexp_verl.protocol import Format
from hiexp_verl.rollout.episode import EpisodeSettings
from hiexp_verl.rollout.policy import identity_in, state_of

logger = logging.getLogger(__name__)

_USUAL = EpisodeSettings()
USUAL: dict[str, Any] = {  # by option, where neither it nor a training says
    "format": _USUAL.format,
    "max_searches": _USUAL.max_searches,
    "max_tokens": _USUAL.max_tokens,
    "top_k": _USUAL.top_k,
    "max_words": _USUAL.max_words_per_passage,
    "max_chars": _USUAL.max_chars,
}


def play_as_trained(arguments: argparse.Namespace) -> None:
    """Set the options of `USUAL` that are not given as the checkpoint's training had them; tell of what is otherwise.

    Raises:
        HiExpError: the state of the training is damaged; `--hek` is no HEK.
    """
    state = state_of(arguments.model)
    identity = identity_in(state) if state is not None else {}
    trained = _options(identity)
    taken = {option: value for option, value in trained.items() if getattr(arguments, option) is None}
    other = {option: value for option, value in trained.items() if option not in taken and getattr(arguments, option) != value}
    for option, usual in USUAL.items():
        if getattr(arguments, option) is None:
            setattr(arguments, option, taken.get(option, usual))
    if taken:
        logger.info("episodes as in the training of %s: %s", arguments.model, _told(taken))
    if other:
        given = _told({option: getattr(arguments, option) for option in other})
        logger.warning("episodes are not those of the training of %s: %s, in training %s", arguments.model, given, _told(other))
    if identity.get("enabled") is False and arguments.max_tokens == USUAL["max_tokens"]:
        logger.warning("%s was trained without a limit per turn, and is played with --max-tokens %d", arguments.model, arguments.max_tokens)
    engine = (identity.get("search") or {}).get("engine", arguments.search)
    if arguments.search != engine:
        logger.warning("%s was trained with --search %s, and is played with %s", arguments.model, engine, arguments.search)
    corpus, trained_on = arguments.corpus, identity.get("search.corpus")
    if corpus and trained_on and Path(corpus).is_file() and fingerprint(Path(corpus)) != trained_on:
        logger.warning("%s was trained with another corpus than %s", arguments.model, corpus)
    shown = identity.get("hek") if identity.get("arm") != "none" else None
    if arguments.hek and shown and shown != read_header(version_folder(arguments.hek)).content_hash:
        logger.warning("%s was trained with another HEK (%s) than %s", arguments.model, str(shown)[:12], arguments.hek)


def _options(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return these settings by our option."""
    turns = "actor_rollout_ref.rollout.multi_turn"
    search = identity.get("search") or {}
    found = {
        "format": identity.get(f"{turns}.format"),
        "max_searches": (identity.get(f"{turns}.max_assistant_turns") or 1) - 1 or None,  # the last turn is the answer's
        "max_tokens": identity.get("max_tokens_per_turn"),
        "top_k": search.get("top_k"),
        "max_words": search.get("max_words_per_passage"),
        "max_chars": search.get("max_chars"),
    }
    if found["format"] not in get_args(Format):
        del found["format"]  # a dialect of verl's own
    return {option: value for option, value in found.items() if value is not None}


def _told(options: Mapping[str, Any]) -> str:
    return ", ".join(f"--{option.replace('_', '-')} {value}" for option, value in options.items())


def read_budgets(assignments: Sequence[str], state: Path | None = None) -> Budgets:
    """Return the budgets of a training (its `state.json`), the defaults where there is none, changed by `prompt.top_k=3` and the like.

    Raises:
        HiExpError: an assignment is none, or not for `prompt` and `tool`; a setting is unknown or out of range; the state is damaged.
    """
    trained = _trained(state) if state is not None else Budgets()
    if state is not None and trained != Budgets():
        usual = Budgets().flat()
        told = ", ".join(f"{name}={value}" for name, value in trained.flat().items() if value != usual[name])
        logger.info("budgets of experience as in the training of %s: %s", state.parent.parent, told)
    blocks = block_of(trained)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        place, dot, name = key.removeprefix("hiexp.").partition(".")
        if not (equals and dot and name):
            raise HiExpError(f"--set takes KEY=VALUE, as prompt.top_k=3, found {assignment!r}")
        if place not in get_args(Place) and place in {each.name for each in fields(HiExpConfig)}:
            raise HiExpError(f"--set is for hiexp.prompt and hiexp.tool, found {key}; the other options say the rest (see --help)")
        blocks.setdefault(place, {})[name] = _value(assignment, text)
    return parse_block(Budgets, blocks, "hiexp")


def _value(assignment: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise HiExpError(f"--set {assignment}: the value cannot be read ({first_line(error)}); give a number or null") from error


def _trained(state: Path) -> Budgets:
    identity = identity_in(state)
    kept = {place: identity[place] for place in get_args(Place) if place in identity}  # none of a run without experience
    return parse_block(Budgets, kept, f"{state}: hiexp")
