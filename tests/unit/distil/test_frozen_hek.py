"""What `rules` distils from a fixture stays the same, whatever is moved (with `plans="case"`): entries, order and evidence; ids and format aside.

The fixture has twelve questions about invented countries, each with a success and failures of several kinds.
"""

import json
from dataclasses import asdict

from hiexp_verl.distil.spec import build
from tests.support.paths import GOLDEN

FROZEN = GOLDEN / "frozen"


def test_rules_distil_the_frozen_entries():
    expected = json.loads((FROZEN / "entries.json").read_text())
    found = [asdict(entry) for entry in build(FROZEN / "trajectories.jsonl", encoder="hash:256", plans="case").hek.entries]
    assert len(found) == len(expected) == 26
    for entry, frozen in zip(found, expected, strict=True):
        assert json.loads(json.dumps({key: entry[key] for key in frozen})) == frozen
