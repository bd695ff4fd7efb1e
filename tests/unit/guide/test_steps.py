"""Where a derivation stops, request by request."""

import pytest

from hiexp_verl.config import Budgets, ToolConfig
from hiexp_verl.domains.maths.domain import MATHS
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.episode import Guidance
from hiexp_verl.guide.steps import Stops


def read(stops, *requests):
    """Return for each request what it asked for, and how it goes on."""
    return [(stops.limit, stops.stop, stops.read(text, is_cut)) for text, is_cut in requests]


def test_a_derivation_stops_after_each_paragraph_until_its_stops_are_used():
    asked = read(Stops(ToolConfig(steps=2), 2), ("Half is 24.\n\n", False), ("48 - 24 = 24.\n\n \n", False), ("\\boxed{24}\n\n", False))
    assert asked == [(None, ["\n\n"], "Half is 24."), (None, ["\n\n"], "48 - 24 = 24."), (None, [], None)]


def test_it_has_ended_where_no_blank_line_ends_the_request():
    assert read(Stops(ToolConfig(steps=2), 2), ("One.\n\nTwo.", False)) == [(None, ["\n\n"], None)]


def test_a_stop_by_tokens_waits_for_the_end_of_the_line():
    stops = Stops(ToolConfig(steps=1, step_tokens=8), 1)
    asked = read(stops, ("One.\nTwo and", True), (" three.\n", False), ("The end.", False))
    assert asked == [(8, [], ""), (None, ["\n"], "One.\nTwo and three."), (None, [], None)]


def test_a_stop_by_tokens_at_the_end_of_a_line_waits_for_nothing_and_counts_anew():
    stops = Stops(ToolConfig(steps=2, step_tokens=8), 2)
    assert read(stops, ("One.\n", True), ("Two.\n", False)) == [(8, [], "One."), (8, [], None)], "the second ended by itself"


def test_nothing_stops_after_an_answer():
    stops = Stops(ToolConfig(steps=2), 2)
    stops.end()
    assert read(stops, ("One.\n\n", False)) == [(None, [], None)]


@pytest.mark.parametrize(("arm", "left"), [("full", 3), ("tool", 3), ("e1", 3), ("random", 3), ("none", 0), ("prompt", 0), ("e2", 0)])
def test_only_arms_that_show_e1_stop(arm, left):
    budgets = Budgets(tool=ToolConfig(steps=3))
    assert Guidance(budgets, arm, domain=MATHS).stops().left == left
    assert Guidance(Budgets(), arm, domain=MATHS).stops().left == Guidance(Budgets(), arm).stops().left == 0, "off by default"


def test_stops_are_for_a_domain_without_a_tool():
    with pytest.raises(HiExpError, match=r"hiexp\.tool\.steps=3 stops between steps, and the domain search shows E1 beside"):
        Guidance(Budgets(tool=ToolConfig(steps=3)), domain=SEARCH)
    with pytest.raises(HiExpError, match=r"hiexp\.tool\.step_tokens=64 says where to stop, and hiexp\.tool\.steps=0 stops nowhere"):
        Guidance(Budgets(tool=ToolConfig(step_tokens=64)), domain=MATHS)
    with pytest.raises(HiExpError, match="steps must be at most 100"):
        ToolConfig(steps=101)
