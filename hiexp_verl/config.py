"""The `hiexp:` block: every setting with its default, its bounds and its meaning; checked when it is read.

The classes are pydantic dataclasses: `HiExpConfig(...)` and `parse_config(block)` both check values and raise `HiExpError`.
`docs/config.md` is generated from them.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from hiexp_verl.config_loop import GateConfig as GateConfig
from hiexp_verl.config_loop import LedgerConfig, LoopConfig
from hiexp_verl.config_loop import Rule as Rule
from hiexp_verl.errors import HiExpError
from hiexp_verl.settings import RENAMED_ARMS, Count, Flag, Natural, Number, PathText, Seed, block_of, parse_block, renamed_arm, settings

Place = Literal["prompt", "tool"]  # the system prompt; the response of the search tool
Match = Literal["kind", "question"]
Select = Literal["cosine", "linucb", "thompson"]
_SELECT = (
    "Which of the entries found are shown. cosine: the nearest. linucb, thompson: those of the highest value by the ledger, or none "
    "where none is worth it; both need evidence of 200 exposures at the place."
)
Engine = Literal["bm25", "dense", "http"]
Dtype = Literal["auto", "float32", "bfloat16"]
RewardKind = Literal["concise", "pvpo", "em", "f1", "cem"]
Arm = Literal["full", "none", "prompt", "tool", "e1", "e2", "e3", "random", "shuffled", "own-question", "constitution"]
ARMS: tuple[Arm, ...] = get_args(Arm)
# What each arm shows; one list of names for training, groups and evaluation.
MEANING_OF: dict[Arm, str] = {
    "full": "the method: E2 and E3 in the system prompt, E1 in tool responses",
    "none": "no experience; all else stays",
    "prompt": "E2 and E3 in the system prompt alone",
    "tool": "E1 in tool responses alone",
    "e1": "E1 alone",
    "e2": "E2 alone",
    "e3": "E3 alone",
    "random": "as many entries of the same levels, drawn at random",
    "shuffled": "titles permuted within each level, plans for plans: a query retrieves a wrong entry (a level of one entry stays as it is)",
    "own-question": "without leave-one-out: measures what leaks through a question's own entries",
    "constitution": "the same E2 and E3 for every question, as `hiexp constitution` chose them",
}

# YAML 1.1 reads a bare `off` as false.
_Alarm = Annotated[Literal["off", "warn", "stop"], BeforeValidator(lambda value: "off" if value is False else value)]


@settings()
class PromptConfig:
    """E2 and E3 in the system prompt, once, matched to the question."""

    top_k: Count = Field(default=1, description="Entries shown, the best ones (paper: 5). Small policies mix the steps of several plans.")
    match: Match = Field(
        default="kind",
        description="What titles are compared with. kind: the question, its names as '...'; question: all of it (paper).",
    )
    select: Select = Field(default="cosine", description=_SELECT)
    instantiate: Flag = Field(default=True, description="Put the question's name into a plan that is shown; the entry stays without.")
    min_score: Number | None = Field(default=None, description="Minimum cosine; null: no threshold (paper).")
    max_tokens: Natural = Field(
        default=448, description="Budget of the whole block; the lowest scores are dropped first. 0: nothing is shown."
    )


@settings()
class ToolConfig:
    """E1 in the response of the search tool; in a domain without a tool between the steps of a derivation."""

    top_k: Count = Field(default=1, description="Entries shown per search (paper: 1).")
    match: Literal["query", "kind"] = Field(
        default="query",
        description="What titles are compared with. query: the search (paper); kind: the question, its names as '...', which nearly always "
        "reaches the calibrated minimum score: for a model that was never trained to search.",
    )
    select: Select = Field(default="cosine", description=_SELECT)
    min_score: Number | None = Field(
        default=None, description="Minimum cosine; null: the HEK's calibrated value (the paper's 0.8 holds for its encoder alone)."
    )
    max_tokens: Natural = Field(default=96, description="Budget of the block. 0: nothing is shown.")
    position: Literal["before", "after"] = Field(
        default="before", description="Side of the documents. An untrained policy takes what it reads last for its task."
    )
    steps: Annotated[int, Field(ge=0, le=100, strict=True)] = Field(
        default=0,
        description="Of a domain without a tool: stops between steps of a derivation at which E1 is looked up and added, at most. "
        "0: none, the prompt shows the E1.",
    )
    step_tokens: Natural = Field(
        default=0, description="A stop is at the first end of a line after so many tokens; 0: after each paragraph (a blank line)."
    )


@settings()
class SearchConfig:
    """The search tool: where passages come from and how much of them the model reads."""

    engine: Engine = Field(default="bm25", description="bm25 and dense search a file; http asks a server.")
    corpus: PathText | None = Field(default=None, description="JSONL or .jsonl.gz with id, title, text (bm25, dense).")
    url: str | None = Field(default=None, description="Address of a Search-R1 retrieval server (http).")
    encoder: str | None = Field(default=None, description="Directory or name (dense); null: the HEK's encoder.")
    top_k: Count = Field(default=5, description="Passages per search.")
    max_words_per_passage: Count = Field(default=100, description="Words of each passage that the model reads.")
    max_chars: Count = Field(default=3600, description="Characters of one tool response; keep below verl's max_tool_response_length.")
    timeout: Annotated[Number, Field(ge=0.001)] = Field(
        default=30.0, description="Seconds per request (http) or batch of queries (bm25, dense); the search has failed after that."
    )
    retries: Natural = Field(default=3, description="Retries of a request (http).")
    cache_size: Natural = Field(default=10_000, description="Queries whose passages are remembered (http).")


@settings()
class EncoderConfig:
    """The encoder of look-ups: which one, and where it runs. `hiexp.encoder=DIR` sets the path alone."""

    path: str | None = Field(
        default=None,
        description="Directory or name, or the address of an OpenAI-compatible server with #MODEL; null: the one named in the HEK.",
    )
    device: Literal["cpu", "cuda"] = Field(
        default="cpu", description="cpu or cuda; a GPU must be left for it (trainer.n_gpus_per_node below those of the node)."
    )
    threads: Count = Field(default=4, description="Of one actor on the CPU; never more than the machine has cores.")
    actors: Count = Field(default=1, description="Processes of a node that answer look-ups; each holds the encoder and the HEK.")
    dtype: Dtype = Field(
        default="auto",
        description="Of the weights. auto: bfloat16 on a CPU that computes in it (1.7 times as fast, 99.6% of nearest neighbours stay), "
        "else float32. A HEK's own vectors are made in float32.",
    )


@settings()
class RewardConfig:
    """The terminal reward (hiexp_verl.scoring)."""

    kind: RewardKind = Field(
        default="concise",
        description="The measure of a well-formed answer. concise: covered, and no more than that; pvpo and cem also pay for several "
        "answers at once and for denied ones.",
    )


@settings()
class GroupConfig:
    """Mixed groups: rollouts of one question with different experience side by side; training only."""

    arms: tuple[Arm, ...] = Field(default=(), description="Rollout i of a group gets arms[i % len]; empty: every rollout gets hiexp.arm.")
    baseline: Literal["shared", "within-arm"] = Field(
        default="shared", description="shared: the group's mean, as in GRPO; within-arm: the mean of the rollouts of the same arm."
    )
    shrinkage: Annotated[Number, Field(ge=0)] = Field(
        default=1.0, description="within-arm: weight of the group's mean against the arm's, in rollouts."
    )
    strip: Flag = Field(default=False, description="Train guided rollouts without the experience in their context.")


@settings()
class CreditConfig:
    """Terms of the advantage beside the reward, within the rollouts of a question; for algorithm.adv_estimator=hiexp_grpo. 0: none."""

    plan: Annotated[Number, Field(ge=0, le=0.1)] = Field(
        default=0.0, description="Of a right rollout that made the searches of the plan it was shown."
    )
    novelty: Annotated[Number, Field(ge=0, le=0.1)] = Field(
        default=0.0, description="Of a right rollout, times 1 - the overlap of its queries' words with the nearest other right rollout."
    )
    turns: Annotated[Number, Field(ge=0)] = Field(
        default=0.0, description="Weight of comparing a turn with those that follow the same query and the same passages elsewhere."
    )


@settings()
class AlarmsConfig:
    """Training-collapse alarms: off, warn or stop."""

    reward: _Alarm = Field(default="warn", description="The reward collapses.")
    length: _Alarm = Field(default="warn", description="The length of responses collapses or explodes.")
    entropy: _Alarm = Field(default="warn", description="The policy's entropy collapses.")
    searches: _Alarm = Field(default="warn", description="No searches, or always as many as are allowed.")
    repeats: _Alarm = Field(default="warn", description="Queries are repeated within their episode.")
    failures: _Alarm = Field(default="warn", description="Most searches fail: time-outs, errors, a server that is gone.")
    gradient: _Alarm = Field(default="warn", description="The gradient norm spikes.")
    window: Annotated[int, Field(ge=2, strict=True)] = Field(default=10, description="Steps judged together; the span of hiexp/window/*.")


@settings()
class ExpectConfig:
    """A run stops when a place has shown no experience in its first steps though the HEK has some, or when look-ups fail."""

    prompt: Flag = Field(default=True, description="Expect E2 or E3 in system prompts.")
    tool: Flag = Field(default=True, description="Expect E1 in tool responses.")
    after: Count = Field(default=5, description="Steps without experience after which the run stops.")
    lookup_failures: Annotated[Number, Field(ge=0, le=1)] = Field(
        default=0.5, description="Share of a step's look-ups that may fail before the run stops."
    )


@settings()
class SelfDistilConfig:
    """Self-distillation: the policy with a privilege in its prompt teaches the policy without one (Search-E1)."""

    every: Natural = Field(
        default=0, description="A round follows every so many steps; 0: none. Needs hiexp.dump_dir, and rollouts without experience."
    )
    privilege: Literal["sibling", "hek", "both"] = Field(
        default="sibling", description="sibling: the question's right rollout with the fewest searches; hek: its E2 and E3; both."
    )
    pairs: Count = Field(default=512, description="Questions of a round, at most.")
    top_k: Count = Field(default=64, description="Vocabulary entries of the teacher that are kept; the others are one bucket.")
    clip: Annotated[Number, Field(gt=0)] = Field(
        default=0.05, description="Most that one vocabulary entry adds to the KL of a token; an entry above it is not learnt at that token."
    )
    tokens: Literal["all", "query"] = Field(
        default="all", description="What is learnt of a rollout. all: what the policy wrote; query: its search calls alone (SD-Search)."
    )
    teacher: Literal["policy", "base"] = Field(
        default="policy", description="policy: as it is when the round begins; base: without its LoRA adapter, which is what learns."
    )
    mini_batch: Count = Field(
        default=32, description="Pairs of one update; a round is as strong as its updates are many, times the learning rate."
    )
    epochs: Count = Field(default=1, description="Passes over the pairs of a round.")
    held_out: Natural = Field(
        default=16, description="Students of a round that are not learnt from but watched, at most, and at most a quarter of them."
    )
    check_every: Count = Field(default=4, description="Mini-batches between two looks at the held-out students.")
    stop_on_drop: Flag = Field(
        default=True,
        description="End a round where the held-out KL to the teacher rises, or the drift exceeds max_drift; the weights before come back.",
    )
    max_drift: Annotated[Number, Field(gt=0)] = Field(
        default=0.1, description="KL of a held-out token from the policy at the round's start, in nats."
    )


@settings()
class HiExpConfig:
    """The whole block. `enabled=false` is the vanilla search agent: same tool, same reward, no experience."""

    enabled: Flag = Field(default=True, description="false: verl's own tool agent, token for token.")
    hek: PathText | None = Field(default=None, description="Directory of a HEK, or of one version in it.")
    hek_hash: str | None = Field(default=None, description="Content hash that the HEK must have; null: its hash when the run starts.")
    encoder: Annotated[EncoderConfig, BeforeValidator(lambda value: {"path": value} if isinstance(value, str | None) else value)] = Field(
        default_factory=EncoderConfig
    )
    domain: str = Field(
        default="search",
        description="What the questions are about: search, maths, or package.module:DOMAIN of your own, which is code and is run.",
    )
    other_domain: Flag = Field(default=False, description="Show a HEK that was distilled in another domain, as a control.")
    arm: Arm = Field(default="full", description="Which experience rollouts see.")
    val_arm: Arm | None = Field(default=None, description="Which experience validation sees; null: as hiexp.arm.")
    leave_one_out: Flag = Field(default=True, description="A question never sees experience distilled from itself alone.")
    max_tokens_per_turn: Count | None = Field(
        default=None, description="Tokens of one turn; null: no limit below data.max_response_length. Ignored with enabled=false."
    )
    dump_dir: PathText | None = Field(default=None, description="Directory for trajectories with the experience shown, one JSONL per step.")
    stop_at_search: Flag = Field(
        default=False, description="End a turn at </search> (search_tags): for a base model, which does not end it by itself."
    )
    seed: Seed | None = Field(default=None, description="Makes training repeatable: every turn gets its own seed; null: vLLM chooses.")
    allow_mismatch: Flag = Field(
        default=False, description="Resume a checkpoint of a run with another HEK, other questions, search, sampling, reward or seed."
    )
    prompt: PromptConfig = Field(default_factory=PromptConfig)
    tool: ToolConfig = Field(default_factory=ToolConfig)
    search: SearchConfig = Field(default_factory=SearchConfig)
    reward: RewardConfig = Field(default_factory=RewardConfig)
    group: GroupConfig = Field(default_factory=GroupConfig)
    credit: CreditConfig = Field(default_factory=CreditConfig)
    ledger: LedgerConfig = Field(default_factory=LedgerConfig)
    loop: LoopConfig = Field(default_factory=LoopConfig)
    distil: SelfDistilConfig = Field(default_factory=SelfDistilConfig)
    expect: ExpectConfig = Field(default_factory=ExpectConfig)
    alarms: AlarmsConfig = Field(default_factory=AlarmsConfig)


@settings()
class Budgets:
    """The blocks `hiexp.prompt` and `hiexp.tool`: how much experience is shown at each place."""

    prompt: PromptConfig = Field(default_factory=PromptConfig)
    tool: ToolConfig = Field(default_factory=ToolConfig)

    def flat(self) -> dict[str, Any]:
        """Return every setting by its dotted name."""
        return {f"{place}.{name}": value for place in get_args(Place) for name, value in block_of(getattr(self, place)).items()}


def parse_config(block: dict[str, Any]) -> HiExpConfig:
    """Return the settings that a `hiexp:` block holds.

    Raises:
        HiExpError: an unknown key (names the nearest known one), a value of the wrong type or out of range, an unknown choice.
    """
    return parse_block(HiExpConfig, block, "hiexp")


def arm_named(name: str) -> Arm:
    """Return the arm of this name.

    Raises:
        HiExpError: there is none; an earlier name is answered with the present one.
    """
    if name in RENAMED_ARMS:
        raise HiExpError(renamed_arm(name))
    if name not in ARMS:
        raise HiExpError(f"unknown arm {name!r}; use one of {', '.join(ARMS)}")
    return name
