"""How much experience is shown when a policy is evaluated: as much as in its training, or as `--set` says."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from hiexp_verl.config import Budgets, HiExpConfig, parse_block, with_unnamed
from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.run.policy import identity_in

logger = logging.getLogger(__name__)


_PLACES = tuple(each.name for each in fields(Budgets))


def read_budgets(assignments: Sequence[str], state: Path | None = None) -> Budgets:
    """Return the budgets of a training (its `state.json`), the defaults where there is none, changed by `start.top_k=3` and the like.

    Raises:
        HiExpError: an assignment is none, or not for `start` and `step`; a setting is unknown or out of range; the state is damaged.
    """
    trained = _trained(state) if state is not None else Budgets()
    if state is not None and trained != Budgets():
        usual = Budgets().told()
        told = ", ".join(f"{name}={value}" for name, value in trained.told().items() if value != usual[name])
        logger.info("budgets of experience as in the training of %s: %s", state.parent.parent, told)
    blocks = asdict(trained)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        place, dot, name = key.removeprefix("hiexp.").partition(".")
        if not (equals and dot and name):
            raise HiExpError(f"--set takes KEY=VALUE, as start.top_k=3, found {assignment!r}")
        if place not in _PLACES and place in {each.name for each in fields(HiExpConfig)}:
            raise HiExpError(f"--set is for hiexp.start and hiexp.step, found {key}; the other options say the rest (see --help)")
        blocks.setdefault(place, {})[name] = _value(assignment, text)
    return parse_block(Budgets, blocks, "hiexp")


def _value(assignment: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise HiExpError(f"--set {assignment}: the value cannot be read ({first_line(error)}); give a number or null") from error


def _trained(state: Path) -> Budgets:
    identity = identity_in(state)
    kept = {place: identity[place] for place in _PLACES if place in identity}  # none of a run without experience
    return parse_block(Budgets, with_unnamed(kept), f"{state}: hiexp")
