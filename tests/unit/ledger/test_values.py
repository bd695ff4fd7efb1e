"""Values of selection from the rows of a ledger."""

import random

import pytest

from hiexp_verl.config import Budgets, ToolConfig
from hiexp_verl.guide.select import choose
from hiexp_verl.ledger.rows import LedgerRow
from hiexp_verl.ledger.values import LEAST, fit
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.types import Hit
from tests.support.factories import entry, hek_of

ENTRIES = [entry(f"e1-{i}", title=f"case {i}", description=f"Do {i}.") for i in range(8)]
HEK = hek_of(ENTRIES, HashEncoder(32))
BUDGETS = Budgets(tool=ToolConfig(min_score=0.5))


def ledger(groups, effects, seed=0):
    """Two rollouts of a group without and two with one entry, whose effect is that of its number, more so the nearer it is."""
    drawn = random.Random(seed)
    rows = []
    for group in range(groups):
        p, number, score = drawn.random() * 0.4 + 0.3, drawn.randrange(len(effects)), 0.5 + drawn.random() * 0.4
        seen = {"content": ENTRIES[number].content_id, "level": "e1", "place": "tool", "search": 1, "score": score, "p": 1.0}
        for session in range(4):
            more = effects[number] * (score - 0.5) / 0.2 if session > 1 else 0.0
            shown, arm = ((seen,), "full") if session > 1 else ((), "none")
            rows.append(LedgerRow(1, f"q{group}", session, "v", arm, float(drawn.random() < p + more), shown))
    return rows


def test_a_place_with_few_exposures_has_no_values():
    rows = ledger(LEAST // 2 - 1, [0.1] * 8)
    assert fit(rows, HEK, BUDGETS).places == {}
    assert set(fit([*rows, *ledger(1, [0.1] * 8, seed=1)], HEK, BUDGETS).known) == {each.content_id for each in ENTRIES}
    assert fit(ledger(LEAST // 2, [0.1] * 8), HEK, BUDGETS).places["tool"].exposures == LEAST


def test_what_helps_has_a_value_above_0_and_what_harms_below():
    values = fit(ledger(4_000, [0.2, -0.2] * 4), HEK, BUDGETS)
    assert list(values.places) == ["tool"]
    hits = [Hit(each, 0.8) for each in ENTRIES]
    found = choose(hits, "linucb", values.places["tool"], values.known, 1, 0.5, "")
    assert {hit.entry.id for hit in found} == {each.id for each in ENTRIES[::2]}, "those that help, and no other"
    near, far = (choose([Hit(ENTRIES[0], score)], "linucb", values.places["tool"], values.known, 1, 0.5, "")[0] for score in (0.9, 0.6))
    assert near.value > far.value


def test_entries_that_are_gone_and_failed_look_ups_do_not_count():
    rows = ledger(400, [0.1] * 8)
    gone = hek_of(ENTRIES[:4], HashEncoder(32))
    assert set(fit(rows, gone, BUDGETS).known) == {each.content_id for each in ENTRIES[:4]}
    broken = [LedgerRow(row.step, row.group, row.session, row.hek, row.arm, row.reward, row.shown, (), True) for row in rows]
    assert fit(broken, HEK, BUDGETS).places == {}


def test_the_fit_is_that_of_the_normal_equations():
    values = fit(ledger(300, [0.1] * 8), HEK, BUDGETS)
    model = values.places["tool"]
    assert len(model.mean) == 8 and model.covariance[0][1] == pytest.approx(model.covariance[1][0])
    assert model.mean[2] == 0.0, "one level: its column is 0"
