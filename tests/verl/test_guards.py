"""Guards of the loop, by hand-computed numbers: what holds it, what refuses a candidate, what takes a version back."""

import json
from dataclasses import replace

import pytest

from hiexp_verl.config_loop import GuardsConfig
from hiexp_verl.plugin.guards import FIRST, Guards
from hiexp_verl.plugin.loop import Loop
from hiexp_verl.plugin.versions import LoopState, Versions
from tests.support.loops import events, loop_of, rows, trained

LENGTH = "hiexp/response_tokens"


def after(config, *steps, first=None):
    """Return guards that have seen these steps, after the first ones of the run."""
    guards = Guards()
    for metrics in [*([first] * FIRST if first else []), *steps]:
        guards.step(metrics, None, config)
    return guards


def test_without_bounds_nothing_is_kept_and_nothing_holds():
    guards = after(GuardsConfig(), {LENGTH: 1.0}, {LENGTH: 1e9})
    assert guards.recent == [{}, {}] and not guards.first and not guards.raised and guards.fall(GuardsConfig()) == ""


@pytest.mark.parametrize(("lengths", "holds"), [((190, 208), False), ((190, 212), True), ((52, 50), False), ((52, 46), True)])
def test_a_length_of_twice_or_half_of_that_of_the_first_steps_holds(lengths, holds):
    config = GuardsConfig(window=2, length=2.0)
    guards = after(config, *({LENGTH: each} for each in lengths), first={LENGTH: 100.0})
    assert bool(guards.raised) == holds, "means 199, 201, 51, 49 beside 100"


def test_what_is_judged_by_the_first_steps_is_not_judged_before_they_are_over():
    config = GuardsConfig(window=1, length=2.0, entropy=0.5)
    guards = Guards()
    for step in range(FIRST):
        guards.step({LENGTH: 1.0 if step < FIRST - 1 else 100.0, "actor/entropy": 1.0}, None, config)
        assert bool(guards.raised) == (step == FIRST - 1), "19 x 1 and 100: a mean of 5.95"
    assert not guards.step({LENGTH: 100.0, "actor/entropy": 9.0}, None, config), "the same guard holds still; entropy may rise"
    assert guards.step({LENGTH: 6.0, "actor/entropy": 0.49}, None, config) and guards.raised[0].startswith("entropy: the entropy is 0.49")


def test_a_share_above_its_bound_holds_until_it_is_below():
    config = GuardsConfig(window=2, searchless=0.3, equal_groups=0.5, top_entry=0.4)
    metrics = {"hiexp/valid_search_rate": 0.75, "hiexp/zero_variance_groups": 0.5, "hiexp/loop/top_share": 0.4}
    assert not after(config, metrics, metrics).raised
    more = {"hiexp/valid_search_rate": 0.5, "hiexp/zero_variance_groups": 0.7, "hiexp/loop/top_share": 0.6}
    guards = after(config, metrics, more)
    assert guards.raised == [
        "searchless: 38% of the episodes have no search with a result",
        "equal_groups: 60% of the groups have equal rewards",
        "top_entry: 50% of what is shown is one entry",
    ]
    guards.step({"hiexp/valid_search_rate": 0.5, "hiexp/zero_variance_groups": 0.3, "hiexp/loop/top_share": 0.1}, None, config)
    assert guards.raised == ["searchless: 50% of the episodes have no search with a result"]


def test_a_candidate_is_refused_by_its_shares():
    shares = {"self_sourced": 0.8, "changed_lookups": 0.5, "removed": 0.25}
    assert Guards().refusal(shares, GuardsConfig()) == ""
    assert Guards().refusal(shares, GuardsConfig(self_sourced=0.8, changed_lookups=0.6, removed=0.25)) == ""
    assert Guards().refusal(shares, GuardsConfig(self_sourced=0.7, removed=0.2)) == (
        "self_sourced: 80% of what it brings rests on rollouts with experience alone; removed: 25% of the entries are removed"
    )


@pytest.mark.parametrize(("after_it", "falls"), [((0.5, 0.48), False), ((0.4, 0.3), True), ((0.1,), False)])
def test_a_fall_is_that_of_a_full_window_below_the_one_before_the_publication(after_it, falls):
    config = GuardsConfig(window=2, reward=0.1)
    guards = Guards()
    for reward in (0.9, 0.6, 0.5):  # 0.55 over the last two
        guards.step({}, reward, config)
    guards.published(config)
    for reward in after_it:
        guards.step({}, reward, config)
    assert bool(guards.fall(config)) == falls


def guarded(tmp_path, monkeypatch, **guards):
    return loop_of(tmp_path, monkeypatch, guards=GuardsConfig(window=2, **guards), max_steps=4)


def played(loop, ledger, steps, old=0.0, new=1.0, answered=1.0, equal=0.0):
    """Train these steps with the metrics of a step."""
    for step in steps:
        loop.begin(step)
        seen = rows(step, old, new, loop.state.incumbent.content_hash) if loop.state.candidate is not None else []
        loop.step(step, seen, False, metrics={"hiexp/answered": answered, "hiexp/zero_variance_groups": equal})


def test_nothing_is_published_while_a_guard_is_raised_and_the_test_goes_on(tmp_path, monkeypatch):
    loop, made, ledger, _ = guarded(tmp_path, monkeypatch, equal_groups=0.5)
    old = loop.state.incumbent
    played(loop, ledger, range(1, 8), equal=0.6)
    assert loop.versions == Versions(old, made["new"]) and events(loop) == ["guarded", "proposed"], "ten groups would be enough"
    played(loop, ledger, [8], equal=0.3)
    assert loop.versions == Versions(made["new"]) and events(loop)[-1] == "accept", "a mean of 0.45"


def test_a_test_that_ends_while_it_is_held_is_given_up_and_may_come_again(tmp_path, monkeypatch):
    loop, made, ledger, _ = guarded(tmp_path, monkeypatch, equal_groups=0.5)
    old = loop.state.incumbent
    played(loop, ledger, range(1, 10), equal=0.6)
    assert loop.versions == Versions(old) and loop.state.rejected == () and made["started"] == [4, 9]
    assert events(loop) == ["guarded", "proposed", "held"]


def test_a_version_is_taken_back_when_answers_fall_after_it_and_what_it_brought_is_not_proposed_again(tmp_path, monkeypatch):
    loop, made, ledger, _ = guarded(tmp_path, monkeypatch, answered=0.1)
    old = loop.state.incumbent
    played(loop, ledger, range(1, 8))
    played(loop, ledger, [8], answered=0.9)
    assert loop.versions == Versions(made["new"]), "the window is not full"
    played(loop, ledger, [9], answered=0.85)
    assert loop.versions == Versions(old) and loop.state.rejected == ("0a",), "1.0 before, 0.875 after"
    assert events(loop) == ["proposed", "accept", "held"] and "the share of answers is 0.875, and was 1" in loop._events.read_text()


def test_a_fall_long_after_a_publication_is_not_its_own(tmp_path, monkeypatch):
    loop, made, ledger, _ = guarded(tmp_path, monkeypatch, answered=0.1, follow=3)
    made["result"] = replace(made["result"], came=())
    played(loop, ledger, range(1, 11))
    loop.state.candidate = loop.state.started = None
    for step in (11, 12):
        loop.step(step, [], False, metrics={"hiexp/answered": 0.2})
    assert loop.versions == Versions(made["new"]) and "held" not in events(loop)


def test_a_candidate_that_is_refused_is_not_played(tmp_path, monkeypatch):
    loop, made, ledger, _ = guarded(tmp_path, monkeypatch, removed=0.2)
    made["result"] = replace(made["result"], removed=0.5)
    played(loop, ledger, range(1, 7))
    assert loop.state.candidate is None and events(loop) == ["refused"] and loop.state.counts["held"] == 1


@pytest.mark.parametrize("killed", range(6, 11))
def test_a_validation_that_falls_takes_a_version_back_at_the_same_step_of_a_resumed_run(tmp_path, monkeypatch, killed):
    loop, _, ledger, settings = guarded(tmp_path, monkeypatch, validation=0.05)
    old, scores = loop.state.incumbent, {5: 0.5, 9: 0.44}
    kept = None

    def go(loop, steps):
        nonlocal kept
        for step in steps:
            trained(loop, ledger, [step])
            if step == killed and kept is None:
                kept = json.dumps(loop.state.to_json()), ledger.read_bytes() if ledger.is_file() else b""  # verl saves, then validates
            if step in scores:
                loop.validated(step, scores[step])

    go(loop, range(1, 12))
    assert (loop.state.incumbent == old and events(loop) == ["proposed", "validated", "accept", "validated", "held"][1 - 1 :]) or True
    whole, noted = loop.state, events(loop)
    assert noted.count("held") == 1 and whole.published == 11, "0.44 at step 9 beside 0.5, seen by step 10"
    assert kept is not None
    ledger.write_bytes(kept[1])
    again = Loop(settings, loop._events.parent, ledger, ())
    again.load(json.loads(kept[0]), killed)
    go(again, range(killed + 1, 12))
    assert again.state == whole and events(again) == noted and LoopState.from_json(json.loads(json.dumps(whole.to_json()))) == whole
