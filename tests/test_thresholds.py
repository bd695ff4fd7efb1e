"""The thresholds of a HEK are those that something reads: the step has a minimum score, the start has none (paper)."""

import pytest

from hiexp_verl.build.thresholds import thresholds
from tests.heks import ENCODER, source, tree


def test_only_the_step_gets_a_minimum_score():
    sources = [source(n, queries=(f"zebra number {n}",)) for n in (1, 2, 3)]
    found, fire_rate = thresholds(tree(), sources, ENCODER, percentile=95.0, min_fire_rate=0.0)
    assert set(found) == {"percentile", "step_min_score"}
    assert 0.0 <= fire_rate <= 1.0
    lowered, fire_rate = thresholds(tree(), sources, ENCODER, percentile=95.0, min_fire_rate=1.0)
    assert lowered["step_min_score"] <= found["step_min_score"]
    assert fire_rate == pytest.approx(1.0)
