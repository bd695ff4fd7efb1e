"""A proposal as a task of its own process, while training goes on: files in, a saved candidate out."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hiexp_verl.config import Budgets, LoopConfig
from hiexp_verl.distil.distillers import PromptedDistiller, open_distiller
from hiexp_verl.distil.pipeline import DistilSettings
from hiexp_verl.distil.replies import ModelReplies
from hiexp_verl.domains import Domain, domain_named
from hiexp_verl.domains.domain import UNMARKED
from hiexp_verl.errors import HiExpError
from hiexp_verl.evolve.propose import Proposer
from hiexp_verl.guide.lookup import ExperienceRequest, Lookup
from hiexp_verl.guide.record import EpisodeRecord, share
from hiexp_verl.guide.select import selects
from hiexp_verl.hek.opening import open_encoder
from hiexp_verl.hek.retrieve import Retriever
from hiexp_verl.hek.same_question import SameQuestions
from hiexp_verl.hek.store import HEK, root_of
from hiexp_verl.io.datasets import read_trajectories
from hiexp_verl.ledger.credit import credit
from hiexp_verl.ledger.keep import KeepConfig
from hiexp_verl.ledger.rows import read_run
from hiexp_verl.ledger.values import fit
from hiexp_verl.models.encoder import Encoder
from hiexp_verl.types import Trajectory

LOOKED_UP = 200  # questions by which a candidate is compared with its parent


@dataclass(frozen=True)
class Task:
    """What a candidate is made of; the same task gives the same candidate."""

    parent: str  # directory of the version
    encoder: str | None  # place of the encoder, where it is not the one remembered
    episodes: tuple[str, ...]  # files of trained rollouts, oldest first
    ledger: str  # file of the run: what other runs add meanwhile does not change the candidate
    until: int  # the last step whose rows of the ledger count
    config: LoopConfig
    rejected: tuple[str, ...] = ()  # content ids, see `Proposer.propose`
    validation: tuple[str, ...] = ()  # questions that no candidate may know
    budgets: Budgets = field(default_factory=Budgets)  # by which experience is looked up
    domain: str = UNMARKED  # by `domains.domain_named`


@dataclass(frozen=True)
class Candidate:
    """What came of it."""

    path: str = ""  # "": nothing to propose
    content_hash: str = ""
    came: tuple[str, ...] = ()  # content ids
    went: tuple[str, ...] = ()
    why: str = ""
    self_sourced: float = 0.0  # share of the entries that came which rest on rollouts with experience alone
    changed_lookups: float = 0.0  # share of the questions of the window whose first entry in the prompt is another one
    removed: float = 0.0  # share of the parent's entries that went

    @property
    def only_removes(self) -> bool:
        """Whether it is its parent without some entries."""
        return not self.came


def make_candidate(task: Task, policy: Any = None) -> Candidate:
    """Return the candidate, saved as a version beside its parent; CURRENT stays. `policy`: the model of the distiller `policy`.

    Raises:
        HiExpError: a file, the encoder or the distiller cannot be used, or the candidate knows a validation question.
    """
    path = Path(task.parent)
    parent = HEK.load(path)
    encoder = open_encoder(parent, path, task.encoder)
    rows = [row for row in read_run(Path(task.ledger)) if row.step <= task.until]
    config = task.config
    domain = domain_named(task.domain)
    prompted = PromptedDistiller(ModelReplies(policy, "policy"), domain) if config.distiller == "policy" else None
    with nullcontext(prompted) if prompted is not None else open_distiller(config.distiller, domain=domain) as distiller:
        keep = KeepConfig(n_min=config.retire_after, e1=config.capacity_e1)
        settings = DistilSettings(plan_support=config.plan_support, preconditions=config.preconditions)
        proposer = Proposer(encoder, distiller, settings, keep, config.max_new, config.edits)
        trajectories = list(read_trajectories(*map(Path, task.episodes)))
        proposal = proposer.propose(parent, trajectories, credit(rows, parent.entries).of, frozenset(task.rejected))
    if proposal.hek is None:
        return Candidate(why=proposal.why)
    _check_validation(SameQuestions.of(proposal.hek.sources, encoder), task.validation)
    version = proposal.hek.save(root_of(path), candidate=True)
    if selects(task.budgets):
        fit(rows, proposal.hek, task.budgets).save(version, proposal.hek.content_hash())
    came, went = (tuple(change.content for change in changes) for changes in (proposal.came, proposal.went))
    changed = _changed_lookups(parent, proposal.hek, encoder, [t.question for t in trajectories], task.budgets, domain)
    return Candidate(
        str(version),
        proposal.hek.content_hash(),
        came,
        went,
        proposal.why,
        self_sourced=self_sourced(proposal.hek, frozenset(came), trajectories),
        changed_lookups=changed,
        removed=share(len(went), len(parent.entries)),
    )


def self_sourced(hek: HEK, came: frozenset[str], trajectories: Sequence[Trajectory]) -> float:
    """Return the share of the entries that came which rest on rollouts with experience alone."""
    guided = {t.id for t in trajectories if EpisodeRecord.of(t).shown}
    sources = [entry.sources for entry in hek.entries if entry.content_id in came and entry.sources]
    return share(sum(guided.issuperset(each) for each in sources), len(sources))


def _changed_lookups(parent: HEK, candidate: HEK, encoder: Encoder, questions: Sequence[str], budgets: Budgets, domain: Domain) -> float:
    """Return the share of the questions that find another entry first."""
    asked = [ExperienceRequest("prompt", question) for question in list(dict.fromkeys(questions))[-LOOKED_UP:]]
    lookups = [Lookup(Retriever(hek, encoder), budgets.prompt, budgets.tool, domain=domain) for hek in (parent, candidate)]
    firsts = [[next((hit.entry.content_id for hit in lookup.now(request)), "") for request in asked] for lookup in lookups]
    return share(sum(old != new for old, new in zip(*firsts, strict=True)), len(asked))


def _check_validation(known: SameQuestions, texts: Sequence[str]) -> None:
    found = [text for text, same in zip(texts, known.find(texts), strict=True) if same]
    if found:
        raise HiExpError(
            f"the candidate was distilled from {len(found)} validation questions, such as {found[0]!r}; "
            "remove them from data.train_files or from data.val_files"
        )
