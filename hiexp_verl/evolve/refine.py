"""Refinement by execution (`--refine`): a candidate that lost narrowly is revised by what its own entries did in the test.

Narrowly: the gate found no difference. An entry that came with the candidate has lost where the candidate's rollouts that were shown it
earned less than the incumbent's in the same groups, by more than one standard error (`ledger.gate.compare`). What lost is not proposed
again; the others are. A distiller that is a model also rewrites an E1 that lost: it reads what its own rollouts did, beside right ones
of the same questions, without names and answers. SkillX describes such a loop (its code has none).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from hiexp_verl.distil.contrast import contrasts
from hiexp_verl.distil.distillers import Distiller
from hiexp_verl.distil.entries import case, united
from hiexp_verl.domains.diagnosis import Diagnosis
from hiexp_verl.domains.domain import Domain
from hiexp_verl.evolve.propose import Change, Proposal
from hiexp_verl.guide.record import EpisodeRecord
from hiexp_verl.ledger.gate import Comparison, Verdict, compare, mixed_groups
from hiexp_verl.ledger.rows import LedgerRow
from hiexp_verl.types import Entry, Trajectory

READ = 3  # questions on which an entry failed, that a model reads


@dataclass(frozen=True)
class Refined:
    """What becomes of the entries of a candidate that lost."""

    lost: tuple[Change, ...] = ()  # not proposed again, with the difference that each made
    rewritten: tuple[Entry, ...] = ()  # to be proposed


def refined(
    proposal: Proposal, verdict: Verdict | None, rows: Sequence[LedgerRow], rollouts: Sequence[Trajectory], incumbent: str, ask: Distiller
) -> Refined:
    """Return which entries of a candidate lost, and what is proposed in their place; nothing where it did not lose narrowly.

    Args:
        rows: of the test.
        rollouts: of the test, in which a model reads why an entry lost.
        incumbent: content hash of the version in use.
        ask: rewrites what lost.

    Raises:
        HiExpError: what the distiller raises.
    """
    if proposal.hek is None or verdict is None or verdict.decision != "no difference":
        return Refined()
    candidate = proposal.hek.content_hash()
    differences = losing(rows, incumbent, candidate, [change.content for change in proposal.came])
    lost = tuple(replace(each, why=_why(differences[each.content])) for each in proposal.came if each.content in differences)
    entries = [entry for entry in proposal.hek.entries if entry.content_id in differences and entry.level == "e1"]
    asked = [(entry, found) for entry in entries if (found := failures_of(entry.content_id, candidate, rollouts, ask.domain))]
    return Refined(lost, tuple(rewritten(asked, ask)))


def losing(rows: Sequence[LedgerRow], incumbent: str, candidate: str, came: Collection[str]) -> dict[str, Comparison]:
    """Return the entries that lost, by content id, each with the difference over the groups whose candidate's rollouts saw it."""
    groups = mixed_groups(rows, incumbent, candidate)
    found: dict[str, Comparison] = {}
    for content in came:
        parts = [
            [row for row in group if row.hek == incumbent or any(each["content"] == content for each in row.shown)] for group in groups
        ]
        seen = compare([part for part in parts if len({row.hek for row in part}) == 2], incumbent, candidate)
        if seen.difference + seen.error < 0:
            found[content] = seen
    return found


def failures_of(content: str, candidate: str, rollouts: Sequence[Trajectory], domain: Domain) -> list[Diagnosis]:
    """Return what rollouts that were shown an entry did otherwise than right ones of the same question, of at most `READ` questions."""
    failed: set[str] = set()  # ids of rollouts
    for t in rollouts:
        record = EpisodeRecord.of(t)
        if not t.correct and record.hek == candidate and any(each["content"] == content for each in record.shown):
            failed.add(t.id)
    contrasted, _ = contrasts((t for t in rollouts if t.correct or t.id in failed), normalise=domain.normalise)
    return [domain.diagnose(each, 1)[0] for each in contrasted[:READ]]


def rewritten(asked: Sequence[tuple[Entry, Sequence[Diagnosis]]], distiller: Distiller) -> list[Entry]:
    """Return the entries in other words, under the same titles; what the distiller does not change is left out."""
    found = []
    for (entry, diagnoses), draft in zip(asked, distiller.revise(asked) if asked else [], strict=True):
        if draft is not None:
            made = case(replace(draft, title=entry.title, kind=entry.kind, when=entry.when), diagnoses[0], distiller.domain)
            if made.content_id != entry.content_id:
                found.append(united(made, entry))
    return found


def _why(seen: Comparison) -> str:
    return f"lost {-seen.difference:.3f} in {seen.groups} groups, standard error {seen.error:.3f}"
