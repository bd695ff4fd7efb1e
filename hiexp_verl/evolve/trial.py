"""The rollouts of a round: what is played with which version, their rows, the screening of drafts, and the test of a candidate."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from statistics import fmean

from hiexp_verl.distil.distillers import Distiller
from hiexp_verl.evolve.asked import Drawn
from hiexp_verl.evolve.spec import EvolveSpec
from hiexp_verl.guide.mask import Mask
from hiexp_verl.guide.record import EpisodeRecord
from hiexp_verl.guide.select import selects
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.datasets import read_trajectories
from hiexp_verl.ledger.drift import Span, with_rows
from hiexp_verl.ledger.gate import LOOKS, Verdict, judge
from hiexp_verl.ledger.rows import LedgerRow, row_of
from hiexp_verl.ledger.values import fit
from hiexp_verl.rollout.episode import Client, Players, seed_of
from hiexp_verl.rollout.opening import Opened
from hiexp_verl.rollout.rollout import TRAJECTORIES, Job, play
from hiexp_verl.types import Question, Trajectory

logger = logging.getLogger(__name__)

ROUNDS = "rounds"
SCREENED = 0.25  # share of what is left of the budget that a screening takes at most


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
        return Players(self.client, self.opened.engine, guide, self.opened.spec.search, self.opened.domain)


class Played:
    """Rollouts of a round with several versions, side by side in the groups of the same questions; `known`: rows of the rounds before."""

    def __init__(self, spec: EvolveSpec, number: int, arms: Mapping[str, HEK | None], stage: Stage, known: Sequence[LedgerRow]) -> None:
        self.spec, self.number, self.arms, self.known = spec, number, arms, known
        self._stage = stage
        self.rows: list[LedgerRow] = []
        self.rollouts: list[Trajectory] = []

    @property
    def each(self) -> int:
        """Return the rollouts of a question."""
        return sum(map(self._k, self.arms))

    @property
    def tokens(self) -> int:
        """Return the tokens that the policy wrote."""
        return sum(EpisodeRecord.of(t).completion_tokens or 0 for t in self.rollouts)

    def play(self, questions: Sequence[Question], name: str) -> None:
        """Play the questions in every arm, or read what was played before; `name` is that of the folder in the round's."""
        spec, mask = self.spec, Mask(self.spec.mask, f"{self.spec.seed}/{self.number}")
        first = 0  # number of the arm's first rollout within a group
        for arm, hek in self.arms.items():
            folder = spec.out / ROUNDS / f"{self.number:02d}" / name / arm
            seeded = replace(spec.settings, seed=seed_of(spec.seed, self.number, first))
            job = replace(self._stage.job, out=folder, settings=seeded, k=self._k(arm), progress=f"round {self.number} {arm}")
            play(questions, self._stage.players(hek, mask, self.known), replace(job, resume=(folder / TRAJECTORIES).is_file()))
            for t in read_trajectories(folder / TRAJECTORIES):
                record = EpisodeRecord.of(t)
                session = first + record.sample
                row = row_of(record, t.score, self.number, mask=spec.mask)
                self.rows.append(replace(row, session=session))
                self.rollouts.append(replace(t, id=f"{t.question_id}#{session}@{self.number}"))  # a question comes back in later rounds
            first += self._k(arm)

    def means(self) -> dict[str, float]:
        """Return the mean reward of each arm that was played."""
        names = {self.hash_of(arm): arm for arm in self.arms}
        rewards: dict[str, list[float]] = {}
        for row in self.rows:
            rewards.setdefault(names[row.hek], []).append(row.reward)
        return {arm: round(fmean(values), 4) for arm, values in rewards.items()}

    def hash_of(self, arm: str) -> str:
        """Return the content hash of an arm's version, "" where it has none."""
        hek = self.arms.get(arm)
        return hek.header.content_hash if hek is not None else ""

    def _k(self, arm: str) -> int:
        return self.spec.k_none if arm == "none" else self.spec.k


class Trial(Played):
    """The test of a round's candidate."""

    questions = 0
    detectable: float | None = None  # gain that the test can see, by what the rounds before say; None: they say nothing

    def run(self, asked: Drawn, budget: int, only_removes: bool, screened: int = 0) -> Verdict | None:
        """Play until the gate decides, or the questions of a round or the budget are used up; return the verdict.

        Args:
            budget: rollouts that are left.
            only_removes: see `judge`.
            screened: questions of this round that the screening has asked.
        """
        tested = "candidate" in self.arms
        looks = [self.spec.gate.min_groups * times for times in (LOOKS if tested else LOOKS[:1])]
        looks = sorted({min(look, asked.count - screened, budget // self.each) for look in looks} - {0})
        incumbent, candidate = self.hash_of("incumbent"), self.hash_of("candidate")
        if looks and tested:
            gain = with_rows(Span(incumbent), self.known).detectable(looks[-1], self.spec.gate.z, self.spec.k)
            if gain < inf:
                self.detectable = round(gain, 4)
                logger.info("round %d: with %d questions the test can see a gain of %.3f", self.number, looks[-1], gain)
        verdict = None
        for look in looks:
            self.play(asked.take(look - self.questions), f"{look:05d}")
            self.questions = look
            if tested:
                verdict = judge(self.rows, incumbent, candidate, self.spec.gate, only_removes=only_removes, last=look == looks[-1])
                if verdict.decision != "wait":
                    break
        return verdict


def screen(drafts: Played, asked: Drawn, budget: int) -> int:
    """Play each draft on a few questions, which its test does not ask again; return how many."""
    count = min(drafts.spec.screen, asked.count // 4, int(SCREENED * budget) // drafts.each)
    if count:
        drafts.play(asked.take(count), "screening")
    return count
