"""What `rules` distils stays the same, whatever is moved: entries, order and evidence; ids and format aside.

The fixture of `plans="case"` has twelve questions about invented countries, each with a success and failures of several kinds.
"""

import json
from dataclasses import asdict

from hiexp_verl.distil.spec import build
from tests.support.episodes import trajectories
from tests.support.paths import GOLDEN

FROZEN = GOLDEN / "frozen"


def test_rules_distil_the_frozen_entries():
    expected = json.loads((FROZEN / "entries.json").read_text())
    found = [asdict(entry) for entry in build(FROZEN / "trajectories.jsonl", encoder="hash:256", plans="case").hek.entries]
    assert len(found) == len(expected) == 26
    for entry, frozen in zip(found, expected, strict=True):
        assert json.loads(json.dumps({key: entry[key] for key in frozen})) == frozen


def test_by_default_the_levels_are_cases_plans_of_kinds_and_strategies():
    entries = build(trajectories(), encoder="hash:256").hek.entries
    plan = 'For "{kind}" these searches worked: "... highest point country", then "{asked} of the name found".'
    kinds = {asked: f"What is the {asked} of the country whose highest point is ...?" for asked in ("capital", "currency")}
    assert [(e.title, e.description, e.counters, e.children) for e in entries if e.level == "e2"] == [
        (kinds["capital"], plan.format(kind=kinds["capital"], asked="capital"), {"right": 4, "wrong": 0}, ("e1-0001", "e1-0002")),
        (kinds["currency"], plan.format(kind=kinds["currency"], asked="currency"), {"right": 4, "wrong": 0}, ("e1-0003", "e1-0004")),
    ]
    (strategy,) = (e for e in entries if e.level == "e3")
    assert strategy.title == "Questions that describe something without naming it and ask for a fact about it"
    assert strategy.children == ("e2-0001", "e2-0002")
