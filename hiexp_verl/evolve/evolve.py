"""`hiexp evolve`: a HEK grows and sheds by measured gain, without training.

Each round plays new questions without experience, with the version in use, and with a candidate, in the same groups; the gate decides
on the candidate; the rollouts are the material of the next one.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hiexp_verl.distil.distillers import open_distiller
from hiexp_verl.distil.replies import REPLIES
from hiexp_verl.errors import HiExpError
from hiexp_verl.evolve.asked import Drawn, Thinnest
from hiexp_verl.evolve.propose import Change, Proposal, Proposer, change_of, contents
from hiexp_verl.evolve.refine import Refined, refined
from hiexp_verl.evolve.spec import EvolveSpec
from hiexp_verl.evolve.table import TABLE_JSON, TABLE_MD, Round, Screened, in_one_line, write_table
from hiexp_verl.evolve.trial import ROUNDS, Played, Stage, Trial, screen
from hiexp_verl.hek.opening import find_encoder, remember_encoder
from hiexp_verl.hek.store import HEK, set_current
from hiexp_verl.io.datasets import read_questions
from hiexp_verl.io.files import locked, only_one, write_jsonl
from hiexp_verl.io.manifest import MANIFEST, Manifest, read_manifest, timed
from hiexp_verl.ledger.credit import credit
from hiexp_verl.ledger.rows import LEDGER, LedgerRow
from hiexp_verl.models.chat import open_model
from hiexp_verl.rollout.opening import check_policy, open_spec
from hiexp_verl.rollout.policy import find_policy
from hiexp_verl.rollout.rollout import Job
from hiexp_verl.settings import block_of
from hiexp_verl.types import Entry, Question, Trajectory

logger = logging.getLogger(__name__)

HEK_FOLDER = "hek"
_OFF = {"explore": False, "refine": False, "drafts": 1, "screen": 12}  # settings that a manifest names where they are another


def evolve(spec: EvolveSpec) -> list[Round]:
    """Run the rounds; leave versions and ledger in OUT/hek, episodes in OUT/rounds, table.md and table.json; return the rounds.

    What is played is on disk: the same call with `resume` plays only what is missing, and comes to the same versions.

    Raises:
        HiExpError: questions, search, model, HEK or distiller are not usable, or the output is there already and `resume` is off.
    """
    assert spec.hek is not None
    if spec.other_domain:
        raise HiExpError("an evolution adds to a HEK of its own domain; leave --other-domain out")
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
            open_distiller(spec.distiller, spec.out / REPLIES, spec.resume, domain=opened.domain) as distiller,
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
    described |= {name: value for name, off in _OFF.items() if (value := getattr(spec, name)) != off}
    results = {"table": [TABLE_MD, TABLE_JSON], "versions": [HEK_FOLDER]}
    if not spec.resume or not (spec.out / MANIFEST).is_file():
        return Manifest(kind="evolution", spec=described, results=results)
    before = read_manifest(spec.out)
    for name, value in ((name, described.get(name)) for name in dict.fromkeys((*described, *_OFF))):
        if before.spec.get(name) != value and not (name == "model" and spec.same_model):
            raise HiExpError(
                f"{spec.out} was made with {name} = {before.spec.get(name)!r}, now it is {value!r}; use the same, or another --out"
            )
    return before


def run_rounds(spec: EvolveSpec, questions: Sequence[Question], stage: Stage, start: HEK) -> Iterator[Round]:
    """Yield the rounds as they are finished; versions are saved and made current, the ledger is written after each.

    1. Propose: a candidate from the rollouts so far and the credit of entries; of several drafts, the best on a few questions.
    2. Play: new questions without experience, with the incumbent, and with the candidate.
    3. Judge: accept, reject, or more questions, at fixed numbers of groups.
    4. Publish the candidate, or do not propose its changes again; of one that lost narrowly, what lost (`refine`).
    """
    root, retriever = spec.out / HEK_FOLDER, stage.opened.retriever
    assert retriever is not None and spec.hek is not None
    proposer = Proposer(retriever.encoder, stage.distiller, spec.build, spec.keep, spec.max_new, spec.edits)
    asked = Thinnest(questions, spec.seed, retriever.encoder, stage.opened.domain) if spec.explore else Drawn(questions, spec.seed)
    incumbent = start
    name = start.save(root, candidate=(root / "CURRENT").is_file()).name  # a resumed evolution has another in use by now
    remember_encoder(root, find_encoder(start.header, spec.hek, spec.encoder))
    known = _Known()
    for number in range(1, spec.rounds + 1):
        asked.begin(incumbent, known.rows)
        left, before = spec.budget_rollouts - len(known.rows), tuple(known.rows)
        candidates = [_Candidate.saved(proposal, root) for proposal in _proposals(proposer, incumbent, known, spec.drafts)]
        drafts = Played(spec, number, {f"draft-{i}": each.hek for i, each in enumerate(candidates, start=1)}, stage, before)
        screened = screen(drafts, asked, left) if len(candidates) > 1 else 0
        earned = drafts.means()
        best = max(range(len(candidates)), key=lambda i: earned.get(f"draft-{i + 1}", 0.0))  # of equals the first
        candidate = candidates[best]
        arms = {"none": None, "incumbent": incumbent} | ({"candidate": candidate.hek} if candidate.hek is not None else {})
        trial = Trial(spec, number, arms, stage, before)
        verdict = trial.run(asked, left - len(drafts.rows), candidate.proposal.only_removes, screened)
        if not trial.rows:
            return  # the budget is spent
        known.add(drafts, trial)
        write_jsonl(root / LEDGER / "evolve.jsonl", (row.to_json() for row in known.rows))
        done = Round(number, name, candidate.version, candidate.proposal, verdict, *_played(drafts, trial, screened), trial.detectable)
        found = Refined()
        if done.accepted and candidate.hek is not None and candidate.version is not None:
            with locked(root):
                set_current(root, candidate.version)
            incumbent, name = candidate.hek, candidate.version
            known.rejected -= contents(incumbent.entries)  # what was not to leave the version before may leave this one
        else:
            if spec.refine:
                of_test = trial.rows, trial.rollouts, incumbent.header.content_hash
                found = refined(candidate.proposal, verdict, *of_test, stage.distiller)
            known.turn_down(found.lost or (*candidate.proposal.came, *candidate.proposal.went))
        gone = known.rejected | contents(incumbent.entries)
        known.rewritten = [each for each in (*known.rewritten, *found.rewritten) if each.content_id not in gone]
        shown = tuple(
            Screened(str(each.version), reward, screened * spec.k) for each, reward in zip(candidates, earned.values(), strict=False)
        )
        yield replace(done, drafts=shown, lost=found.lost, rewritten=tuple(map(change_of, found.rewritten)))


@dataclass
class _Known:
    """What the rounds so far leave behind."""

    rows: list[LedgerRow] = field(default_factory=list)
    rollouts: list[Trajectory] = field(default_factory=list)
    rejected: frozenset[str] = frozenset()  # content ids, see `Proposer.propose`
    rewritten: list[Entry] = field(default_factory=list)  # to be proposed

    def add(self, *played: Played) -> None:
        for each in played:
            self.rows += each.rows
            self.rollouts += each.rollouts

    def turn_down(self, changes: Sequence[Change]) -> None:
        self.rejected |= {change.content for change in changes}


@dataclass(frozen=True)
class _Candidate:
    """A proposal that is saved, where it has a HEK."""

    proposal: Proposal
    version: str | None = None
    hek: HEK | None = None

    @classmethod
    def saved(cls, proposal: Proposal, root: Path) -> "_Candidate":
        if proposal.hek is None:
            return cls(proposal)
        version = proposal.hek.save(root, candidate=True)
        return cls(proposal, version.name, HEK.load(version))


def _proposals(proposer: Proposer, incumbent: HEK, known: _Known, drafts: int) -> list[Proposal]:
    """Return the drafts of a candidate that differ; one without a HEK where there is nothing to propose."""
    if not known.rollouts:
        return [Proposal(why="no rollouts to learn from yet")]
    credits, found = credit(known.rows, incumbent.entries).of, {}
    for draft in range(drafts):
        drawn = replace(proposer, distiller=proposer.distiller.again(draft))
        proposal = drawn.propose(incumbent, known.rollouts, credits, known.rejected, known.rewritten)
        found.setdefault(proposal.hek.content_hash() if proposal.hek is not None else "", proposal)
    return [proposal for proposal in found.values() if proposal.hek is not None] or list(found.values())


def _played(drafts: Played, trial: Trial, screened: int) -> tuple[int, int, int, dict[str, float]]:
    """Return what a round played: questions, rollouts, tokens, and the mean rewards of its test."""
    return trial.questions + screened, len(drafts.rows) + len(trial.rows), drafts.tokens + trial.tokens, trial.means()
