"""The `hiexp:` block: every setting of ours, with its default, checked when it is read."""

import difflib
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_type_hints

from hiexp_verl.errors import HiExpError

Config = TypeVar("Config")


# What versions without a setting did: files of theirs do not name it, and their runs are the same as with this.
UNNAMED = {"start.match": "question", "step.position": "after"}


def with_unnamed(blocks: Mapping[str, Any]) -> dict[str, Any]:
    """Return the blocks of `hiexp:` that there are, `start` and the like, with what their version did not name."""
    found = dict(blocks)
    for name, value in UNNAMED.items():
        place, _, setting = name.partition(".")
        if isinstance(found.get(place), dict):
            found[place] = {setting: value, **found[place]}
    return found


@dataclass(frozen=True)
class StartConfig:
    """E2 and E3 in the system prompt, once, matched to the question (paper: the top 5)."""

    top_k: int = 5
    match: str = "way"  # way: to the question without its names and what it asks for (run.lookup) | question: to all of it, as in the paper
    min_score: float | None = None  # None: no threshold, as in the paper
    max_tokens: int = 448  # of the whole block; the lowest scores are dropped first


@dataclass(frozen=True)
class StepConfig:
    """E1 with the documents of a search call, matched to the query (paper: the top 1 at cosine 0.8 or more)."""

    top_k: int = 1
    min_score: float | None = None  # None: what the HEK was calibrated to, since 0.8 means nothing without the encoder
    max_tokens: int = 96
    position: str = "before"  # before | after the documents: a policy that was not trained on E1 takes what it reads last for its task


@dataclass(frozen=True)
class Budgets:
    """The blocks `hiexp.start` and `hiexp.step`."""

    start: StartConfig = field(default_factory=StartConfig)
    step: StepConfig = field(default_factory=StepConfig)

    def told(self) -> dict[str, Any]:
        """Return every setting by its dotted name."""
        return {f"{place}.{name}": value for place, block in asdict(self).items() for name, value in block.items()}


@dataclass(frozen=True)
class SearchConfig:
    """The search tool: where passages come from and how much of them the model reads."""

    engine: str = "bm25"  # bm25 | dense | http
    corpus: str | None = None  # JSONL or .jsonl.gz with id, title, text (bm25, dense)
    url: str | None = None  # of a Search-R1 retrieval server (http)
    encoder: str | None = None  # directory or name (dense); None: the HEK's
    top_k: int = 5
    max_words_per_passage: int = 100
    max_chars: int = 3600  # of one tool response; keep below verl's max_tool_response_length
    timeout: float = 30.0  # seconds per request (http) or batch of queries (bm25, dense); then the search has failed
    retries: int = 3
    cache_size: int = 10_000  # queries


@dataclass(frozen=True)
class RewardConfig:
    """The terminal reward (see hiexp_verl.scoring)."""

    kind: str = "default"  # default | em | f1 | cem


@dataclass(frozen=True)
class GroupConfig:
    """Mixed groups: rollouts of one question with and without experience side by side (`run.arm`); training only."""

    with_experience: float = 1.0  # share of each group's rollouts that sees experience
    stratified: bool = False  # by session: none, E2 + E3, E1, all, none, ...
    baseline: str = "shared"  # shared: the group's mean, as in GRPO | within-arm: the mean of those that saw the same
    shrinkage: float = 1.0  # within-arm: what the group's mean weighs against the arm's, in rollouts
    strip: bool = False  # train guided rollouts without the experience in their context, so that the policy learns to do without


@dataclass(frozen=True)
class AlarmsConfig:
    """What is said of a run that goes wrong (`plugin.alarms`): each off, warn or stop."""

    reward: str = "warn"
    length: str = "warn"  # of responses
    entropy: str = "warn"
    searches: str = "warn"  # none at all, or always as many as there may be
    repeats: str = "warn"  # queries asked again in their episode
    gradient: str = "warn"
    window: int = 10  # steps that are judged together, and that `hiexp/window/*` spans


@dataclass(frozen=True)
class ExpectConfig:
    """A training run stops when a place has shown no experience at all in its first steps, though the HEK has some.

    Later it stops when look-ups of experience fail, since verl only logs what goes wrong in an episode.
    """

    start: bool = True
    step: bool = True
    after: int = 5  # steps
    lookup_failures: float = 0.5  # share of a step's look-ups; beyond it the encoder is dead and not just unwell


@dataclass(frozen=True)
class HiExpConfig:
    """The whole block. `enabled=false` is the vanilla search agent: same tool, same reward, no experience."""

    enabled: bool = True
    hek: str | None = None  # directory of a HEK, or of one version in it
    hek_hash: str | None = None  # the content hash that it must have; None: that which it has when the run starts
    encoder: str | None = None  # directory or name; None: the one named in the HEK
    control: str = "full"  # what is shown instead, to see what an effect rests on (hiexp_verl.guide.arms)
    leave_one_out: bool = True  # a question never sees experience distilled from itself alone
    # None: verl's own limit, which is the whole response budget; with enabled=false it is always that, as in verl's tool agent.
    max_tokens_per_turn: int | None = None
    dump_dir: str | None = None  # trajectories with the experience shown, one JSONL per step
    # Every turn of training is sampled with a seed of its own made of this, so that a run can be repeated; None: as vLLM likes.
    seed: int | None = None
    allow_mismatch: bool = False  # resume a checkpoint that was made with another HEK, control, group or seed
    start: StartConfig = field(default_factory=StartConfig)
    step: StepConfig = field(default_factory=StepConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    group: GroupConfig = field(default_factory=GroupConfig)
    expect: ExpectConfig = field(default_factory=ExpectConfig)
    alarms: AlarmsConfig = field(default_factory=AlarmsConfig)


CONTROLS = (
    *("full", "none", "random", "shuffled", "e1", "e2", "e3", "start-only", "step-only"),
    *("train-only", "inference-only", "with-own-question"),
)
CHOICES = {
    "control": CONTROLS,
    "engine": ("bm25", "dense", "http"),
    "kind": ("default", "em", "f1", "cem"),
    "baseline": ("shared", "within-arm"),
    "match": ("way", "question"),
    "position": ("before", "after"),
    **dict.fromkeys(("reward", "length", "entropy", "searches", "repeats", "gradient"), ("off", "warn", "stop")),
}
AT_LEAST: dict[str, float] = {
    "top_k": 1,
    "max_words_per_passage": 1,
    "max_chars": 1,
    "max_tokens_per_turn": 1,
    "max_tokens": 0,  # 0: none of this place's experience
    "after": 1,
    "window": 2,
    "with_experience": 0,
    "shrinkage": 0,
    "seed": 0,
    "retries": 0,
    "cache_size": 0,
    "timeout": 0.001,
    "lookup_failures": 0.0,
}
AT_MOST: dict[str, float] = {"with_experience": 1, "lookup_failures": 1}
PATHS = ("hek", "corpus", "dump_dir")


def parse_config(block: dict[str, Any]) -> HiExpConfig:
    """Turn the `hiexp:` block into a config; `~` in a path is the home directory.

    Raises:
        HiExpError: an unknown key (names the nearest known one), a value of the wrong type or out of range, an unknown choice.
    """
    return parse_block(HiExpConfig, block, "hiexp")


def parse_block(cls: type[Config], block: Any, path: str) -> Config:
    """Turn a block of settings into a dataclass of this module; `path` is its name in errors. Raises as `parse_config`."""
    if not isinstance(block, dict):
        raise HiExpError(f"{path} must be a block of settings, found {block!r}")
    hints = get_type_hints(cls)
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in block.items():
        if key not in known:
            raise HiExpError(f"unknown setting {path}.{key}; {_suggest(str(key), known)}")
        hint = hints[key]
        where = f"{path}.{key}"
        values[key] = parse_block(hint, value, where) if isinstance(hint, type) and is_dataclass(hint) else _check(value, hint, where)
    return cls(**values)


def _suggest(key: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"did you mean {nearest[0]!r}?" if nearest else f"known here: {', '.join(known)}"


def _check(value: Any, hint: Any, where: str) -> Any:
    allowed = get_args(hint) or (hint,)
    if value is None and type(None) in allowed:
        return None
    name = where.rsplit(".", 1)[-1]
    if value is False and "off" in CHOICES.get(name, ()):
        value = "off"  # what a bare `off` is in a YAML 1.1 file
    if isinstance(value, bool) and bool not in allowed:
        raise HiExpError(f"{where} must be {_names(allowed)}, found {value!r}")
    if isinstance(value, int) and not isinstance(value, bool) and float in allowed:
        value = float(value)
    if not any(isinstance(value, kind) for kind in allowed):
        raise HiExpError(f"{where} must be {_names(allowed)}, found {value!r}")
    if name in CHOICES and value not in CHOICES[name]:
        raise HiExpError(f"{where} must be one of {', '.join(CHOICES[name])}, found {value!r}")
    if name in AT_LEAST and not value >= AT_LEAST[name]:  # also when it is not a number
        raise HiExpError(f"{where} must be at least {AT_LEAST[name]:g}, found {value}")
    if name in AT_MOST and not value <= AT_MOST[name]:
        raise HiExpError(f"{where} must be at most {AT_MOST[name]:g}, found {value}")
    if isinstance(value, float) and not math.isfinite(value):
        raise HiExpError(f"{where} must be finite, found {value}")
    return os.path.expanduser(str(value)) if name in PATHS else value


def _names(kinds: tuple[Any, ...]) -> str:
    return " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
