"""What a rollout and an evaluation are asked to do; the command line makes these from its options."""

from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from hiexp_verl.config import Arm, Budgets, EncoderConfig, HiExpConfig, SearchConfig
from hiexp_verl.models.chat import MAX_MODEL_LEN
from hiexp_verl.rollout.episode import EpisodeSettings
from hiexp_verl.settings import Count, Flag, Natural, PathText, Seed, settings


@settings(kw_only=True)
class PlaySpec:
    """Which model plays, in which domain, with which search and experience, and how. A text is taken for a path, too."""

    model: PathText  # directory of a model or of a verl checkpoint, URL, or URL#MODEL
    out: Path
    search: SearchConfig
    domain: str = "search"  # or package.module:DOMAIN (`domains.domain_named`)
    hek: Path | None = None
    other_domain: Flag = False  # the HEK may be of another domain
    encoder: PathText | None = None  # directory or name of the HEK's encoder, if it has moved
    budgets: Budgets = field(default_factory=Budgets)
    settings: EpisodeSettings = field(default_factory=EpisodeSettings)
    limit: Count | None = None  # only the first questions of a file
    max_model_len: Count = MAX_MODEL_LEN
    batch_size: Count = 16  # episodes at a time
    resume: bool = False
    same_model: bool = False  # with `resume`: the model has another address and is the same

    def config(self) -> HiExpConfig:
        """Return the `hiexp:` block of a training with the same HEK, budgets and search."""
        hek = str(self.hek) if self.hek else None
        shown = {"prompt": self.budgets.prompt, "tool": self.budgets.tool}
        asked = {"domain": self.domain, "other_domain": self.other_domain, "search": self.search}
        return HiExpConfig(enabled=hek is not None, hek=hek, encoder=EncoderConfig(path=self.encoder), **asked, **shown)


@settings(kw_only=True)
class RolloutSpec(PlaySpec):
    """K episodes on every question of a file, in one arm."""

    questions: Path
    k: Count = 4
    arm: Arm = "full"


def _as_tuple(given: Any) -> Any:
    return (given,) if isinstance(given, str | Path) else given


@settings(kw_only=True)
class EvalSpec(PlaySpec):
    """Every question of every file, once with every seed in every arm."""

    questions: Annotated[tuple[Path, ...], BeforeValidator(_as_tuple)]
    settings: EpisodeSettings = field(default_factory=lambda: EpisodeSettings(temperature=0.0))
    arms: tuple[str, ...] = ("none", "full")
    seeds: tuple[Seed, ...] = (0,)
    alone: Natural = 16  # episodes that are replayed one at a time
    judge: PathText | None = None  # a model that judges answers: directory or URL
