"""`hiexp evolve`: a HEK grows and sheds by measured gain, without training.

Each round plays new questions without experience, with the version in use, and with a candidate, in the same groups; the gate decides
on the candidate; the rollouts are the material of the next one.
"""

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from statistics import fmean
from typing import Annotated

from pydantic import Field

from hiexp_verl.config import GateConfig
from hiexp_verl.distil.distillers import Distiller, open_distiller
from hiexp_verl.distil.pipeline import DistilSettings
from hiexp_verl.distil.replies import REPLIES
from hiexp_verl.errors import HiExpError
from hiexp_verl.evolve.propose import Proposal, Proposer
from hiexp_verl.evolve.table import TABLE_JSON, TABLE_MD, Round, in_one_line, write_table
from hiexp_verl.guide.mask import Mask
from hiexp_verl.guide.record import EpisodeRecord
from hiexp_verl.guide.select import selects
from hiexp_verl.hek.opening import find_encoder, remember_encoder
from hiexp_verl.hek.store import HEK, set_current
from hiexp_verl.io.datasets import read_questions, read_trajectories
from hiexp_verl.io.files import locked, only_one, write_jsonl
from hiexp_verl.io.manifest import MANIFEST, Manifest, read_manifest, timed
from hiexp_verl.ledger.credit import credit
from hiexp_verl.ledger.drift import Span, with_rows
from hiexp_verl.ledger.gate import LOOKS, Verdict, judge
from hiexp_verl.ledger.keep import KeepConfig
from hiexp_verl.ledger.rows import LEDGER, LedgerRow, row_of
from hiexp_verl.ledger.values import fit
from hiexp_verl.models.chat import open_model
from hiexp_verl.rollout.episode import Client, Players, seed_of
from hiexp_verl.rollout.opening import Opened, check_policy, open_spec
from hiexp_verl.rollout.policy import find_policy
from hiexp_verl.rollout.rollout import TRAJECTORIES, Job, play
from hiexp_verl.rollout.spec import PlaySpec
from hiexp_verl.settings import Count, Flag, Number, Seed, block_of, settings
from hiexp_verl.types import Question, Trajectory

logger = logging.getLogger(__name__)

HEK_FOLDER, ROUNDS = "hek", "rounds"


@settings(kw_only=True)
class EvolveSpec(PlaySpec):
    """What `hiexp evolve` is asked for."""

    questions: Path
    rounds: Count = 4
    budget_rollouts: Count = 4_000  # episodes of all rounds
    k: Count = 2  # rollouts of a question with each version
    k_none: Count = 2  # and without experience
    gate: GateConfig = field(default_factory=lambda: GateConfig(min_groups=50))
    keep: KeepConfig = field(default_factory=KeepConfig)
    build: DistilSettings = field(default_factory=DistilSettings)
    distiller: str = "rules"
    mask: Annotated[Number, Field(ge=0, lt=1)] = 0.1  # share of entries that are left out by chance
    max_new: Count = 64  # E1 of a candidate
    edits: Flag = False  # a model decides what each new E1 does to those near it
    seed: Seed = 0

    def __post_init__(self) -> None:
        if self.hek is None:
            raise HiExpError("evolve starts from a HEK; make one with `hiexp rollout` and `hiexp build`, and give it as --hek")
        if self.edits and self.distiller == "rules":
            raise HiExpError("--edits needs a distiller that is a model; rules add what is new, and unite what is nearly there")
        if not self.settings.temperature:
            raise HiExpError("evolve compares rollouts of the same question, which are all alike at temperature 0; raise it")


def evolve(spec: EvolveSpec) -> list[Round]:
    """Run the rounds; leave versions and ledger in OUT/hek, episodes in OUT/rounds, table.md and table.json; return the rounds.

    What is played is on disk: the same call with `resume` plays only what is missing, and comes to the same versions.

    Raises:
        HiExpError: questions, search, model, HEK or distiller are not usable, or the output is there already and `resume` is off.
    """
    assert spec.hek is not None
    if not spec.resume and (spec.out / ROUNDS).exists():
        raise HiExpError(f"{spec.out} holds rounds already; add --resume to go on, or choose another output directory")
    questions = read_questions(spec.questions)[: spec.limit]
    with only_one(spec.out):
        policy = find_policy(spec.model, spec.out)
        opened = open_spec(spec, check_policy(policy.spec, questions, spec))
        assert opened.retriever is not None
        start = opened.retriever.hek
        manifest = _manifest(spec, start)
        with (
            timed(spec.out, manifest),
            open_model(policy.spec, spec.batch_size, spec.max_model_len, policy.name) as client,
            open_distiller(spec.distiller, spec.out / REPLIES, spec.resume) as distiller,
        ):
            job = Job(spec.out, spec.settings, batch_size=spec.batch_size, corpus=opened.corpus, policy=policy.identity)
            stage = Stage(client, opened, distiller, replace(job, same_policy=spec.same_model))
            rounds: list[Round] = []
            for each in run_rounds(spec, questions, stage, start):
                rounds.append(each)
                logger.info("%s", in_one_line(each))
                write_table(spec.out, rounds)
        manifest.finish(spec.out, rounds=len(rounds), accepted=sum(each.accepted for each in rounds))
    return rounds


def _manifest(spec: EvolveSpec, start: HEK) -> Manifest:
    """Return a new manifest, or that of the rounds to go on with.

    Raises:
        HiExpError: they were made with other settings.
    """
    named = {"model": spec.model, "questions": str(spec.questions), "hek": start.header.content_hash, "distiller": spec.distiller}
    numbers = {name: getattr(spec, name) for name in ("limit", "k", "k_none", "mask", "max_new", "edits", "seed")}
    described = named | numbers | {name: block_of(getattr(spec, name)) for name in ("gate", "keep", "build", "settings", "budgets")}
    results = {"table": [TABLE_MD, TABLE_JSON], "versions": [HEK_FOLDER]}
    if not spec.resume or not (spec.out / MANIFEST).is_file():
        return Manifest(kind="evolution", spec=described, results=results)
    before = read_manifest(spec.out)
    for name, value in described.items():
        if before.spec.get(name) != value and not (name == "model" and spec.same_model):
            raise HiExpError(
                f"{spec.out} was made with {name} = {before.spec.get(name)!r}, now it is {value!r}; use the same, or another --out"
            )
    return before


@dataclass(frozen=True)
class Stage:
    """What rounds are played with."""

    client: Client
    opened: Opened
    distiller: Distiller
    job: Job

    def players(self, hek: HEK | None, mask: Mask, rows: Sequence[LedgerRow]) -> Players:
        """Return the players with a version of the HEK, or without experience; selection by value knows these rows."""
        guide = None
        if hek is not None:
            budgets = self.opened.spec.budgets
            guide = self.opened.guide_of(hek, mask, fit(rows, hek, budgets) if selects(budgets) else None, draw=mask.key)
        return Players(self.client, self.opened.search, guide, self.opened.spec.search)


def run_rounds(spec: EvolveSpec, questions: Sequence[Question], stage: Stage, start: HEK) -> Iterator[Round]:
    """Yield the rounds as they are finished; versions are saved and made current, the ledger is written after each.

    1. Propose: a candidate from the rollouts so far and the credit of entries.
    2. Play: new questions without experience, with the incumbent, and with the candidate.
    3. Judge: accept, reject, or more questions, at fixed numbers of groups.
    4. Publish the candidate, or leave what it brought alone from here on.
    """
    root, retriever = spec.out / HEK_FOLDER, stage.opened.retriever
    assert retriever is not None and spec.hek is not None
    proposer = Proposer(retriever.encoder, stage.distiller, spec.build, spec.keep, spec.max_new, spec.edits)
    asked = _Drawn(questions, spec.seed)
    incumbent = start
    name = start.save(root, candidate=(root / "CURRENT").is_file()).name  # a resumed evolution has another in use by now
    remember_encoder(root, find_encoder(start.header, spec.hek, spec.encoder))
    rows: list[LedgerRow] = []
    rollouts: list[Trajectory] = []
    rejected: frozenset[str] = frozenset()
    for number in range(1, spec.rounds + 1):
        if rollouts:
            proposal = proposer.propose(incumbent, rollouts, credit(rows, incumbent.entries).of, rejected)
        else:
            proposal = Proposal(why="no rollouts to learn from yet")
        version = proposal.hek.save(root, candidate=True) if proposal.hek is not None else None
        candidate = HEK.load(version) if version is not None else None
        test = _Test(spec, number, incumbent, candidate, stage, proposal.only_removes, tuple(rows))
        verdict = test.run(asked, spec.budget_rollouts - len(rows))
        if not test.rows:
            return  # the budget is spent
        rows += test.rows
        rollouts += test.rollouts
        write_jsonl(root / LEDGER / "evolve.jsonl", (row.to_json() for row in rows))
        done = test.round(name, version.name if version else None, proposal, verdict)
        if candidate is not None and version is not None and done.accepted:
            with locked(root):
                set_current(root, version.name)
            incumbent, name = candidate, version.name
        else:
            rejected |= {change.content for change in proposal.came}
        yield done


class _Drawn:
    """The questions in a drawn order, again and again."""

    def __init__(self, questions: Sequence[Question], seed: int) -> None:
        self.count = len(questions)
        self._order = random.Random(seed).sample(list(questions), self.count)
        self._next = 0

    def take(self, count: int) -> list[Question]:
        """Return the next ones, at most all of them."""
        found = [self._order[(self._next + i) % self.count] for i in range(count)]
        self._next += count
        return found


class _Test:
    """The rollouts of a round, and the verdict on its candidate."""

    def __init__(
        self,
        spec: EvolveSpec,
        number: int,
        incumbent: HEK,
        candidate: HEK | None,
        stage: Stage,
        only_removes: bool,
        known: Sequence[LedgerRow],
    ) -> None:
        self._known = known  # rows of the rounds before
        self._spec, self._number, self._stage, self._only_removes = spec, number, stage, only_removes
        self._incumbent = incumbent.header.content_hash
        self._arms = {"none": None, "incumbent": incumbent} | ({"candidate": candidate} if candidate is not None else {})
        self.rows: list[LedgerRow] = []
        self.rollouts: list[Trajectory] = []
        self.questions = 0
        self.detectable: float | None = None  # gain that the test can see, by what the rounds before say; None: they say nothing

    def run(self, asked: _Drawn, budget: int) -> Verdict | None:
        """Play until the gate decides, or the questions of a round or the budget are used up; return the verdict."""
        each = sum(self._k(arm) for arm in self._arms)
        looks = [self._spec.gate.min_groups * times for times in (LOOKS if "candidate" in self._arms else LOOKS[:1])]
        looks = sorted({min(look, asked.count, budget // each) for look in looks} - {0})
        if looks and "candidate" in self._arms:
            span = with_rows(Span(self._incumbent), self._known)
            gain = span.detectable(looks[-1], self._spec.gate.z)
            if gain < inf:
                self.detectable = round(gain, 4)
                logger.info("round %d: with %d questions the test can see a gain of %.3f", self._number, looks[-1], gain)
        verdict = None
        for look in looks:
            self._play(asked.take(look - self.questions), look)
            if "candidate" in self._arms:
                verdict = self._judged(last=look == looks[-1])
                if verdict.decision != "wait":
                    break
        return verdict

    def _judged(self, last: bool) -> Verdict:
        versions = [hek.header.content_hash for hek in (self._arms["incumbent"], self._arms["candidate"]) if hek is not None]
        return judge(self.rows, versions[0], versions[1], self._spec.gate, only_removes=self._only_removes, last=last)

    def _k(self, arm: str) -> int:
        return self._spec.k_none if arm == "none" else self._spec.k

    def _play(self, questions: Sequence[Question], look: int) -> None:
        self.questions = look
        mask = Mask(self._spec.mask, f"{self._spec.seed}/{self._number}")
        first = 0  # number of the arm's first rollout within a group
        for arm, hek in self._arms.items():
            folder = self._spec.out / ROUNDS / f"{self._number:02d}" / f"{look:05d}" / arm
            seeded = replace(self._spec.settings, seed=seed_of(self._spec.seed, self._number, first))
            job = replace(self._stage.job, out=folder, settings=seeded, k=self._k(arm), progress=f"round {self._number} {arm}")
            play(questions, self._stage.players(hek, mask, self._known), replace(job, resume=(folder / TRAJECTORIES).is_file()))
            for t in read_trajectories(folder / TRAJECTORIES):
                record = EpisodeRecord.of(t)
                session = first + record.sample
                row = row_of(record, t.score, self._number, mask=self._spec.mask)
                self.rows.append(replace(row, session=session))
                self.rollouts.append(replace(t, id=f"{t.question_id}#{session}@{self._number}"))  # a question comes back in later rounds
            first += self._k(arm)

    def round(self, incumbent: str, candidate: str | None, proposal: Proposal, verdict: Verdict | None) -> Round:
        """Return what the round did; the versions by name."""
        tokens = sum(EpisodeRecord.of(t).completion_tokens or 0 for t in self.rollouts)
        played = self.questions, len(self.rows), tokens
        return Round(self._number, incumbent, candidate, proposal, verdict, *played, self._means(), self.detectable)

    def _means(self) -> dict[str, float]:
        names = {hek.header.content_hash if hek is not None else "": arm for arm, hek in self._arms.items()}
        rewards: dict[str, list[float]] = {}
        for row in self.rows:
            rewards.setdefault(names[row.hek], []).append(row.reward)
        return {arm: round(fmean(values), 4) for arm, values in rewards.items()}
