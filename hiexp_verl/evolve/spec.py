"""What `hiexp evolve` is asked for."""

from dataclasses import field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from hiexp_verl.config import GateConfig
from hiexp_verl.distil.pipeline import DistilSettings
from hiexp_verl.errors import HiExpError
from hiexp_verl.ledger.keep import KeepConfig
from hiexp_verl.rollout.spec import PlaySpec
from hiexp_verl.settings import Count, Flag, Number, Seed, settings

GATE = GateConfig(min_groups=50)


@settings(kw_only=True)
class EvolveSpec(PlaySpec):
    """What `hiexp evolve` is asked for."""

    questions: Path
    rounds: Count = 4
    budget_rollouts: Count = 4_000  # episodes of all rounds
    k: Count = 2  # rollouts of a question with each version
    k_none: Count = 2  # and without experience
    gate: GateConfig = GATE
    keep: KeepConfig = field(default_factory=KeepConfig)
    build: DistilSettings = field(default_factory=DistilSettings)
    distiller: str = "rules"
    mask: Annotated[Number, Field(ge=0, lt=1)] = 0.1  # share of entries that are left out by chance
    max_new: Count = 64  # E1 of a candidate
    edits: Flag = False  # a model decides what each new E1 does to those near it
    explore: Flag = False  # questions of thin kinds first (`evolve.asked`)
    refine: Flag = False  # what lost in a candidate leaves it or is rewritten, and the rest is proposed again (`evolve.refine`)
    drafts: Count = 1  # of a candidate; the one that earns most on the questions of a screening is tested
    screen: Count = 12  # questions of a screening, at most
    seed: Seed = 0

    def __post_init__(self) -> None:
        if self.hek is None:
            raise HiExpError("evolve starts from a HEK; make one with `hiexp rollout` and `hiexp build`, and give it as --hek")
        if self.edits and self.distiller == "rules":
            raise HiExpError("--edits needs a distiller that is a model; rules add what is new, and unite what is nearly there")
        if self.drafts > 1 and self.distiller.partition(":")[0] in ("rules", "files"):
            raise HiExpError(f"--drafts needs a distiller that draws; {self.distiller} writes the same each time")
        if not self.settings.temperature:
            raise HiExpError("evolve compares rollouts of the same question, which are all alike at temperature 0; raise it")
