"""The thresholds of a HEK are those that something reads: the step has a minimum score, the start has none (paper)."""

import numpy as np
import pytest

from hiexp_verl.distil import thresholds as module
from hiexp_verl.distil.thresholds import thresholds
from hiexp_verl.domains.maths.domain import MATHS
from tests.support.heks import ENCODER, source, tree


def test_only_the_step_gets_a_minimum_score():
    sources = [source(n, queries=(f"zebra number {n}",)) for n in (1, 2, 3)]
    found, fire_rate = thresholds(tree(), sources, ENCODER, percentile=95.0, fire_rates=(0.0, 1.0))
    assert set(found) == {"percentile", "tool_min_score"}
    assert 0.0 <= fire_rate <= 1.0
    lowered, fire_rate = thresholds(tree(), sources, ENCODER, percentile=95.0, fire_rates=(1.0, 1.0))
    assert lowered["tool_min_score"] <= found["tool_min_score"]
    assert fire_rate == pytest.approx(1.0)


def test_without_a_tool_e1_are_found_by_the_question(monkeypatch):
    asked = []
    monkeypatch.setattr(module, "_best_scores", lambda hek, encoder, queries: asked.extend(queries) or np.zeros(0))
    sources = [source(n, queries=("12 * 3 = 36.", "So 36.")) for n in (1, 1, 2)]
    thresholds(tree(), sources, ENCODER, domain=MATHS)
    assert asked == list(dict.fromkeys((each.question_id, MATHS.kind_of(each.question)) for each in sources)) and len(asked) == 2


def test_the_share_of_searches_that_get_an_entry_is_kept_between_two_bounds(monkeypatch):
    best = np.arange(1, 11) / 10  # 0.1 to 1.0
    monkeypatch.setattr(module, "_best_scores", lambda *_: best)
    sources = [source(n, queries=(f"zebra number {n}",)) for n in (1, 2, 3)]

    def step(pairs, lowest, highest):
        monkeypatch.setattr(module, "calibrate_score", lambda *_: pairs)
        found, rate = thresholds(tree(), sources, ENCODER, 95.0, (lowest, highest))
        return found["tool_min_score"], rate

    assert step(0.05, 0.3, 0.5) == (0.6, 0.5)  # of pairs it would let all pass: 0.6 to 1.0 do
    assert step(0.65, 0.3, 0.5) == (0.65, 0.4)
    assert step(0.95, 0.3, 0.5) == (pytest.approx(0.7), 0.4)  # numpy's lower quantile of ten at 0.7 is the seventh
    assert step(0.05, 0.3, 1.0) == (0.1, 1.0)
