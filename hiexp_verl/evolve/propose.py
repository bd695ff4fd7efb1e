"""A proposal: the next version of a HEK, from new rollouts and from what the ledger knows of its entries.

candidate = parent + new entries - what is shown to harm. Of two plans for one kind of question the one with the better tally stays.
A pure function of its arguments: a build in the background can be repeated.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hiexp_verl.distil.distillers import Distiller
from hiexp_verl.distil.entries import number
from hiexp_verl.distil.kinds import tally_score
from hiexp_verl.distil.merge import merge_heks
from hiexp_verl.distil.pipeline import DistilSettings, NoExperience, distil, source_of
from hiexp_verl.errors import HiExpError
from hiexp_verl.evolve.edits import Edits
from hiexp_verl.hek.edit import remove
from hiexp_verl.hek.schema import Header
from hiexp_verl.hek.store import HEK
from hiexp_verl.ledger.credit import Credit
from hiexp_verl.ledger.keep import KeepConfig, leaving
from hiexp_verl.models.encoder import Encoder
from hiexp_verl.types import Entry, Level, Trajectory


@dataclass(frozen=True)
class Change:
    """An entry that a candidate has and its parent has not, or the other way round."""

    content: str  # content id
    level: Level
    title: str
    description: str
    why: str = ""


@dataclass(frozen=True)
class Proposal:
    """A candidate for the next version, and what it changes. `hek` is None where there is nothing to propose; `why` says why."""

    hek: HEK | None = None
    came: tuple[Change, ...] = ()
    went: tuple[Change, ...] = ()
    why: str = ""

    @property
    def only_removes(self) -> bool:
        """Whether the candidate is the parent without some entries."""
        return not self.came


@dataclass(frozen=True)
class Proposer:
    """How proposals are made."""

    encoder: Encoder
    distiller: Distiller
    settings: DistilSettings = field(default_factory=DistilSettings)
    keep: KeepConfig = field(default_factory=KeepConfig)
    max_new: int = 64  # E1 of one proposal, those of the most rollouts first
    edits: bool = False  # ask the distiller what each new E1 does to those near it

    def propose(
        self,
        parent: HEK,
        trajectories: Sequence[Trajectory],
        credits: Mapping[str, Credit],
        rejected: frozenset[str] = frozenset(),
        rewritten: Sequence[Entry] = (),
    ) -> Proposal:
        """Return the candidate that these rollouts suggest.

        Args:
            credits: what is known of entries, by content id (`ledger.credit`).
            rejected: content ids that came or went with candidates that the gate turned down. They do not come again; those that the
                parent has are neither retired nor reworded: the gate has not confirmed their credit.
            rewritten: E1 of an earlier candidate in other words (`evolve.refine`), which rest on these rollouts.

        Raises:
            HiExpError: the distiller cannot be used, such as a server that does not answer.
        """
        went: dict[str, str] = {}
        candidate, edits = parent, Edits()
        try:
            new = distil(trajectories, self.distiller, self.encoder, self.settings).hek
            if self.edits:
                edits = Edits.asked(self.distiller, new, parent)
            again = {entry for entry, target in edits.reworded.items() if target in rejected}
            new = self._chosen(new, parent, rejected | edits.unneeded | again)
        except NoExperience as error:
            new, why = None, f"the rollouts gave no experience: {error}"
        else:
            why = "" if new is not None else "the rollouts gave nothing that the version does not have, and that was not rejected"
        if rewritten:
            revised = self._hek_of(rewritten, trajectories)
            new = revised if new is None else merge_heks(new, revised, self.encoder)
        if new is not None:
            merged, reworded = edits.applied(merge_heks(parent, new, self.encoder))
            candidate, went = _without_conflicts(merged)
            went |= reworded
        young = contents(candidate.entries) - contents(parent.entries)
        confirmed = {content: known for content, known in credits.items() if content not in rejected}
        if left := leaving(candidate, confirmed, self.keep, young, edits.suspected):
            went |= {candidate.entry(each.id).content_id: each.why for each in left}
            candidate = remove(candidate, [each.id for each in left], "retired", with_orphans=True)
        before, after = contents(parent.entries), contents(candidate.entries)
        if before == after:
            return Proposal(why=why or "every new entry is a near-duplicate of one that is there")
        came = tuple(change_of(each) for each in candidate.entries if each.content_id not in before)
        gone = [each for each in parent.entries if each.content_id not in after]
        out = tuple(change_of(each, went.get(each.content_id, "it lost all entries below it")) for each in gone)
        reason = f"{len(came)} entries came, {len(out)} went"
        header = replace(candidate.header, parents=(parent.content_hash(),), reason=reason, thresholds=parent.header.thresholds)
        return Proposal(replace(candidate, header=header), came, out, reason)

    def _chosen(self, new: HEK, parent: HEK, rejected: frozenset[str]) -> HEK | None:
        """Return the new entries without rejected ones and without E1 beyond the limit; None where none is left."""
        e1 = sorted((entry for entry in new.entries if entry.level == "e1"), key=lambda entry: (-len(entry.sources), entry.id))
        out = {entry.id for entry in new.entries if entry.content_id in rejected} | {entry.id for entry in e1[self.max_new :]}
        known = contents(parent.entries)
        if all(entry.id in out or entry.content_id in known for entry in new.entries):
            return None
        try:
            return remove(new, sorted(out), "not proposed", with_orphans=True) if out else new
        except HiExpError:  # what is left rests on those alone
            return None

    def _hek_of(self, entries: Sequence[Entry], trajectories: Sequence[Trajectory]) -> HEK:
        """Return a HEK of these E1 alone, with the rollouts that they rest on."""
        used = {source for entry in entries for source in (*entry.sources, *(evidence.trajectory for evidence in entry.evidence))}
        vectors_E_D = self.encoder.encode_passages([entry.title for entry in entries])
        sources = tuple(source_of(t, self.distiller.domain) for t in trajectories if t.id in used)
        header = Header(self.encoder.identity, distiller=self.distiller.name, domain=self.distiller.domain.name)
        return HEK(header, tuple(number(entries, "e1")), vectors_E_D, sources)


def _without_conflicts(hek: HEK) -> tuple[HEK, dict[str, str]]:
    """Return the HEK with one plan for each kind of question, and why the others went."""
    plans: dict[str, list[Entry]] = defaultdict(list)
    for entry in hek.entries:
        if entry.level == "e2" and entry.counters.get("right"):
            plans[entry.title].append(entry)
    best: dict[str, Entry] = {}  # id -> the entry, with what is below the others
    went: dict[str, str] = {}
    for title, entries in plans.items():
        winner = max(entries, key=_tally)  # of equals the first, which is the parent's
        children = dict.fromkeys(child for entry in entries for child in entry.children)
        best[winner.id] = replace(winner, children=tuple(children))
        why = (
            f"another plan for {title!r} has the better tally, {winner.counters['right']} right and {winner.counters.get('wrong', 0)} wrong"
        )
        went |= {entry.id: why for entry in entries if entry is not winner}
    if not went:
        return hek, {}
    joined = replace(hek, entries=tuple(best.get(entry.id, entry) for entry in hek.entries))
    return remove(joined, sorted(went), "another plan for the same kind of question", with_orphans=True), {
        hek.entry(entry_id).content_id: why for entry_id, why in went.items()
    }


def change_of(entry: Entry, why: str = "") -> Change:
    """Return an entry as a change."""
    return Change(entry.content_id, entry.level, entry.title, entry.description, why)


def _tally(entry: Entry) -> float:
    return tally_score(entry.counters.get("right", 0), entry.counters.get("wrong", 0))


def contents(entries: Iterable[Entry]) -> frozenset[str]:
    """Return the content ids of entries."""
    return frozenset(entry.content_id for entry in entries)
