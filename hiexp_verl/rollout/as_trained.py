"""The settings of a checkpoint's training: the defaults of episodes and of experience budgets when it is played."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from reprlib import repr as brief
from typing import Any, get_args

import yaml

from hiexp_verl.config import Budgets, HiExpConfig, Place, SearchConfig
from hiexp_verl.domains import DOMAINS, domain_named
from hiexp_verl.domains.domain import UNMARKED
from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.hek.schema import read_header
from hiexp_verl.hek.store import version_folder
from hiexp_verl.io.files import fingerprint
from hiexp_verl.protocol import Format
from hiexp_verl.rollout.episode import EpisodeSettings
from hiexp_verl.rollout.policy import identity_in, state_of
from hiexp_verl.settings import MOST, block_of, parse_block
from hiexp_verl.text import printable

logger = logging.getLogger(__name__)

_DEFAULTS, _READING = EpisodeSettings(), SearchConfig()
DEFAULTS: dict[str, Any] = {  # by option, where neither the command line nor a training gives a value
    "format": _DEFAULTS.format,
    "max_searches": _DEFAULTS.max_searches,
    "max_tokens": _DEFAULTS.max_tokens,
    "top_k": _READING.top_k,
    "max_words": _READING.max_words_per_passage,
    "max_chars": _READING.max_chars,
}


def as_trained(model: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `domain` and the options of `DEFAULTS`: as given, else as in the checkpoint's training, else the default.

    Deviations from the training, also of `search`, `corpus` and `hek`, are logged.

    Raises:
        HiExpError: the state of the training is damaged; `hek` is not the directory of a HEK.
    """
    state = state_of(model)
    identity = identity_in(state) if state is not None else {}
    try:
        trained = _options(identity)
    except (AttributeError, TypeError, ValueError) as error:
        raise HiExpError(f"{state} is damaged ({first_line(error)}); give another checkpoint") from error
    taken = {option: value for option, value in trained.items() if given[option] is None}
    if taken:
        logger.info("episodes as in the training of %s: %s", model, _as_text(taken))
    found = {**DEFAULTS, **taken, **{option: given[option] for option in DEFAULTS if given[option] is not None}}
    other = {option: value for option, value in trained.items() if found[option] != value}
    if other:
        played = _as_text({option: found[option] for option in other})
        logger.warning("episodes are not those of the training of %s: %s, in training %s", model, played, _as_text(other))
    if identity.get("enabled") is False and found["max_tokens"] == DEFAULTS["max_tokens"]:
        logger.warning("%s was trained without a limit per turn, and is played with --max-tokens %d", model, found["max_tokens"])
    _compare_sources(model, identity, given)
    return {**found, "domain": _domain(model, identity, given["domain"])}


def _domain(model: str, identity: Mapping[str, Any], given: str | None) -> str:
    """Return the domain that is given, else that of the training; what a checkpoint says is taken for a name alone, never for code."""
    trained = str(identity.get("domain", UNMARKED))
    if given is None and trained not in DOMAINS:
        raise HiExpError(f"{model} was trained in the domain {trained!r}, which is not one of ours; give --domain package.module:NAME")
    if identity and given is not None and domain_named(given).name != trained:
        logger.warning("%s was trained in the domain %s, and plays in %s", model, trained, given)
    return given or trained


def _compare_sources(model: str, identity: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Log where search, corpus or HEK are not those of the training."""
    engine = (identity.get("search") or {}).get("engine", given["search"])
    if given["search"] != engine:
        logger.warning("%s was trained with --search %s, and is played with %s", model, engine, given["search"])
    corpus, trained_on = given["corpus"], identity.get("search.corpus")
    if corpus and trained_on and Path(corpus).is_file() and fingerprint(Path(corpus)) != trained_on:
        logger.warning("%s was trained with another corpus than %s", model, corpus)
    shown = identity.get("hek") if identity.get("arm") != "none" else None
    if given["hek"] and shown and shown != read_header(version_folder(given["hek"])).content_hash:
        logger.warning("%s was trained with another HEK (%s) than %s", model, str(shown)[:12], given["hek"])


def _options(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a training by our options."""
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
        del found["format"]  # one of verl's own formats
    found = {option: value for option, value in found.items() if value is not None}
    if odd := [f"{name} is {brief(value)}" for name, value in found.items() if name != "format" and not _is_count(value)]:
        raise ValueError(odd[0])
    return found


def _is_count(value: object) -> bool:
    return isinstance(value, int) and 1 <= value <= MOST


def _as_text(options: Mapping[str, Any]) -> str:
    return ", ".join(f"--{option.replace('_', '-')} {value}" for option, value in options.items())


def read_budgets(assignments: Sequence[str], state: Path | None = None) -> Budgets:
    """Return the budgets of a training (its `state.json`), or the defaults, changed by assignments such as `prompt.top_k=3`.

    Raises:
        HiExpError: an assignment is not KEY=VALUE, or not for `prompt` and `tool`; a setting is unknown or out of range; the state
            is damaged.
    """
    trained, defaults = Budgets(), Budgets().flat()
    if state is not None:
        identity = identity_in(state)
        kept = {place: identity[place] for place in get_args(Place) if place in identity}  # none of a run without experience
        trained = parse_block(Budgets, kept, f"{state}: hiexp")
        if changed := ", ".join(f"{name}={value}" for name, value in trained.flat().items() if value != defaults[name]):
            logger.info("budgets of experience as in the training of %s: %s", state.parent.parent, changed)
    blocks = block_of(trained)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        place, dot, name = key.removeprefix("hiexp.").partition(".")
        if not (equals and dot and name):
            raise HiExpError(f"--set takes KEY=VALUE, as prompt.top_k=3, found {assignment!r}")
        if place not in get_args(Place) and place in {each.name for each in fields(HiExpConfig)}:
            raise HiExpError(f"--set is for hiexp.prompt and hiexp.tool, found {key}; other settings have their own options (--help)")
        try:
            blocks.setdefault(place, {})[name] = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:  # also what its constructors raise
            raise HiExpError(
                f"--set {printable(assignment[:80])}: the value cannot be read ({first_line(error)}); give a number or null"
            ) from error
    return parse_block(Budgets, blocks, "hiexp")
