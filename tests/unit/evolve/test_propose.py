"""What the gate turned down is not proposed again: what came, in the same words; what was to leave or to be reworded, in any words."""

from dataclasses import replace

import pytest

from hiexp_verl.distil.edits import Edit
from hiexp_verl.distil.rules import RulesDistiller
from hiexp_verl.evolve.propose import Proposer, contents
from hiexp_verl.io.datasets import read_trajectories
from hiexp_verl.ledger.credit import Credit
from tests.support.peaks import ENCODER, evolved, start


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory):
    """The rollouts of a round without and with a plan that harms."""
    out = tmp_path_factory.mktemp("round") / "out"
    evolved(out, rounds=1)
    paths = sorted((out / "rounds").rglob("trajectories.jsonl"))
    return [replace(t, id=f"{t.id}@{i}") for i, t in enumerate(read_trajectories(*paths))]


class Rewording(RulesDistiller):
    """Rewords the nearest entry with each new E1, which ends with these words."""

    def __init__(self, words):
        self.words = words

    def reflect(self, diagnoses):
        return [draft and replace(draft, description=f"{draft.description} {self.words}") for draft in super().reflect(diagnoses)]

    def edit(self, pairs):
        return [Edit("UPDATE", near[0]) for _, near in pairs]


def test_an_entry_that_was_not_to_leave_is_not_retired():
    parent = start()
    harmful = parent.entries[0]
    credits = {harmful.content_id: Credit(harmful.content_id, "e1", 200.0, 50, 0.2, 0.5, -0.3, 0.05, -0.3, 0.05)}
    proposer = Proposer(ENCODER, RulesDistiller())
    first = proposer.propose(parent, [], credits)
    assert [change.content for change in first.went] == [harmful.content_id] and first.only_removes
    again = proposer.propose(parent, [], credits, rejected=frozenset({harmful.content_id}))
    assert again.hek is None and "no experience" in again.why


def test_an_entry_that_was_not_to_be_reworded_is_not_reworded_otherwise(rollouts):
    new = Proposer(ENCODER, RulesDistiller()).propose(start(), rollouts, {}).hek
    assert new is not None
    parent = replace(new, entries=tuple(replace(e, description="Old words.") if e.level == "e1" else e for e in new.entries))
    first = Proposer(ENCODER, Rewording("At once."), edits=True).propose(parent, rollouts, {})
    reworded = {change.content for change in first.went if change.why == "reworded"}
    assert reworded
    rejected = frozenset(change.content for change in (*first.came, *first.went))
    again = Proposer(ENCODER, Rewording("By name."), edits=True).propose(parent, rollouts, {}, rejected)
    assert reworded <= (contents(again.hek.entries) if again.hek is not None else contents(parent.entries))
    assert not any("By name." in change.description for change in again.came)
