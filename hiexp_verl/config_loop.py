"""The blocks `hiexp.ledger` and `hiexp.loop`: what is kept of rollouts, and when the HEK changes while the policy trains."""

from typing import Annotated, Literal

from pydantic import Field

from hiexp_verl.settings import Count, Flag, Number, settings

Rule = Literal["ratchet", "strict", "always"]


@settings()
class GateConfig:
    """When a candidate version of the HEK replaces the incumbent."""

    rule: Rule = Field(
        default="ratchet",
        description="strict: the lower bound of the gain is above 0. ratchet: it is above -margin, and the gain above 0. always: no test. "
        "Of 100 versions that do nothing strict accepts 3, ratchet 17.",
    )
    min_groups: Count = Field(default=200, description="Mixed groups at the first look; the others are at 2 and 4 times as many.")
    z: Annotated[Number, Field(gt=0)] = Field(default=2.13, description="Standard errors of a bound; of each of the three looks.")
    margin: Annotated[Number, Field(ge=0)] = Field(default=0.01, description="ratchet: loss of reward that is not to be ruled out.")


@settings()
class LedgerConfig:
    """A row for each trained rollout, from which `hiexp ledger` computes what each entry does."""

    enabled: Flag = Field(default=False, description="Write HEK/ledger/<run>.jsonl, beside the versions.")
    mask: Annotated[Number, Field(ge=0, lt=1)] = Field(
        default=0.1, description="Share of entries that are left out by chance, by which the bias of look-ups is known; 0: none."
    )


_Share = Annotated[Number, Field(gt=0, le=1)] | None
_Bound = Annotated[Number, Field(gt=0)] | None
_Factor = Annotated[Number, Field(gt=1)] | None


@settings()
class GuardsConfig:
    """Bounds that hold the loop, refuse a candidate, or take a version back; null: off. Held, a test goes on, and publishes nothing."""

    window: Count = Field(default=5, description="Steps whose mean is compared with a bound.")
    length: _Factor = Field(
        default=None, description="Hold while responses have this many times the length of the run's first 20 steps, or that part of it."
    )
    searches: _Factor = Field(default=None, description="As length, of searches per episode.")
    entropy: _Share = Field(default=None, description="Hold while the entropy is below this share of that of the run's first 20 steps.")
    searchless: _Share = Field(default=None, description="Hold while more than this share of the episodes has no search with a result.")
    equal_groups: _Share = Field(default=None, description="Hold while more than this share of the groups has equal rewards.")
    top_entry: _Share = Field(default=None, description="Hold while more than this share of what is shown is one entry.")
    self_sourced: _Share = Field(
        default=None, description="Refuse a candidate if more than this share of what it brings rests on rollouts with experience alone."
    )
    changed_lookups: _Share = Field(
        default=None, description="Refuse one with which more than this share of the questions finds another entry first."
    )
    removed: _Share = Field(default=None, description="Refuse one that has lost more than this share of the entries.")
    reward: _Bound = Field(
        default=None, description="Take a version back after which the reward of the rollouts that see it is this much lower than before."
    )
    answered: _Share = Field(default=None, description="As reward, of the share of episodes with an answer.")
    validation: _Bound = Field(default=None, description="As reward, of the mean of verl's val-core scores; needs trainer.test_freq.")
    follow: Count = Field(default=50, description="Steps after a publication in which a fall takes the version back.")


@settings()
class LoopConfig:
    """A builder in the background proposes versions of the HEK; a candidate is played beside the version in use and judged."""

    enabled: Flag = Field(default=False, description="Needs hiexp.ledger.enabled, hiexp.dump_dir and one of our trainers.")
    every: Count = Field(default=50, description="Steps between two proposals; none is made while a candidate is tested.")
    lag: Count = Field(default=2, description="Steps that the builder has; the candidate is played from the step after them.")
    window: Count = Field(default=100, description="Steps whose rollouts a proposal is made of.")
    distiller: str = Field(
        default="rules",
        description="As of `hiexp build`; a model needs a server of its own (openai:URL#MODEL). policy: the rollout servers, while awake.",
    )
    plan_support: Count = Field(default=2, description="Questions that a plan must have solved.")
    max_new: Count = Field(default=64, description="New E1 of a candidate, at most.")
    edits: Flag = Field(default=False, description="The model of the distiller decides what a new E1 does to those near it.")
    preconditions: Flag = Field(default=False, description="New E1 are shown only where their finding comes up, as by `hiexp build`.")
    gate: GateConfig = Field(default_factory=GateConfig)
    guards: GuardsConfig = Field(default_factory=GuardsConfig)
    max_steps: Count = Field(default=40, description="Steps after which a test ends without a verdict: the version in use stays.")
    retire_after: Count = Field(default=100, description="Exposures before an entry that is shown to harm can leave.")
    capacity_e1: Count = Field(default=2_000, description="E1 that a version has at most.")
    hold_on_alarm: Flag = Field(
        default=True,
        description="While an alarm is triggered nothing is tested or published, and a version of its window is taken back; so is one "
        "whose rollouts gain less than those of the version before, three times in a row.",
    )
    timeout: Annotated[Number, Field(gt=0)] = Field(default=600.0, description="Seconds that a step waits for a late builder.")
