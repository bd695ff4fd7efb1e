"""The loop in training: what it decides by steps and rows, and that a resumed run decides the same. The builder runs under Ray."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from hiexp_verl.config import HiExpConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.evolve.background import Candidate, make_candidate
from hiexp_verl.guide.arms import plays_candidate
from hiexp_verl.hek import HEK
from hiexp_verl.ledger.drift import Span
from hiexp_verl.ledger.rows import LedgerRow
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.plugin import loop as module
from hiexp_verl.plugin.loop import Loop, LoopState, Version, Versions
from tests.support.factories import entry, hek_of
from tests.support.loops import NEW_HASH, OLD_HEK, events, loop_of, trained
from tests.support.peaks import builder_task


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A loop whose builder returns what `made` holds, or raises it."""
    return loop_of(tmp_path, monkeypatch)


def test_a_candidate_is_made_played_from_the_step_after_the_lag_and_published_by_the_gate(run):
    loop, made, ledger, _ = run
    old = loop.state.incumbent
    trained(loop, ledger, range(1, 5))
    assert made["started"] == [4] and loop.versions == Versions(old)
    trained(loop, ledger, [5])
    assert loop.versions == Versions(old), "the builder has a step"
    trained(loop, ledger, [6])
    assert loop.versions == Versions(old, made["new"]), "five groups are not enough for the first look"
    metrics = trained(loop, ledger, [7])
    assert loop.versions == Versions(made["new"]) and loop.state.published == 8
    assert events(loop) == ["proposed", "accept"]
    assert (metrics["hiexp/loop/accepted"], metrics["hiexp/loop/gain"], metrics["hiexp/loop/version"]) == (1.0, 1.0, 2.0)


def test_what_is_rejected_is_not_proposed_again_and_the_incumbent_stays(run):
    loop, made, ledger, _ = run
    old = loop.state.incumbent
    trained(loop, ledger, range(1, 8), old=1.0, new=0.0)
    assert loop.versions == Versions(old) and loop.state.rejected == ("0a",)
    assert events(loop) == ["proposed", "reject"]
    trained(loop, ledger, [8])
    assert made["started"] == [4, 8]


def test_an_entry_that_was_not_to_leave_may_be_proposed_to_leave_another_version(run):
    loop, made, ledger, _ = run
    entry_of_both = OLD_HEK.entries[0].content_id
    made["result"] = replace(made["result"], came=(), went=(entry_of_both,))
    trained(loop, ledger, range(1, 8), old=1.0, new=0.0)
    assert loop.state.rejected == (entry_of_both,) and events(loop) == ["proposed", "reject"]
    made["result"] = replace(made["result"], came=("0b",), went=("0c",))
    trained(loop, ledger, range(8, 12))
    assert loop.state.counts["accepted"] == 1 and loop.state.rejected == ()
    trained(loop, ledger, [12], alarmed=True)
    assert loop.state.rejected == ("0b", "0c"), "the version is taken back with all that it changed"


def test_a_test_ends_without_a_verdict_after_its_steps(run):
    loop, _, ledger, _ = run
    trained(loop, ledger, range(1, 12), old=0.5, new=0.5)
    assert events(loop) == ["proposed", "no difference"] and loop.state.counts["rejected"] == 1


@pytest.mark.parametrize("result", [RuntimeError("out of memory"), None])
def test_a_builder_that_dies_or_hangs_does_not_stop_training(run, result, caplog):
    loop, made, ledger, _ = run
    made["result"] = result
    metrics = trained(loop, ledger, range(1, 15))
    assert metrics["hiexp/loop/failures"] == 3.0 and set(events(loop)) == {"failed"}
    assert "training goes on" in caplog.text and "three proposals in a row came to nothing" in caplog.text


def test_proposals_that_come_to_nothing_are_warned_of_once_in_a_row(run, caplog):
    loop, made, ledger, _ = run
    good, made["result"] = made["result"], Candidate(why="all duplicates")
    trained(loop, ledger, range(1, 30))
    assert events(loop).count("nothing") > 5 and caplog.text.count("came to nothing") == 1
    made["result"] = good
    trained(loop, ledger, range(30, 40), old=0.5, new=0.5)
    assert loop.state.silent == 0
    made["result"] = Candidate(why="all duplicates")
    trained(loop, ledger, range(40, 70), old=0.5, new=0.5)
    assert caplog.text.count("came to nothing") == 2


def test_a_candidate_of_another_encoder_or_another_content_is_not_played(run, tmp_path):
    loop, made, ledger, _ = run
    old = loop.versions
    encoder = HashEncoder(32)
    other = hek_of([entry("e2-0001", "e2")], encoder).save(tmp_path / "other")
    made["result"] = Candidate(str(other), HEK.load(other).header.content_hash, came=("0a",))
    trained(loop, ledger, range(1, 7))
    made["result"] = Candidate(made["new"].path, "another hash", came=("0a",))
    trained(loop, ledger, range(7, 11))
    assert loop.versions == old and events(loop) == ["failed", "failed"]


def test_an_alarm_holds_the_loop_and_takes_a_new_version_back(run):
    loop, made, ledger, _ = run
    old = loop.state.incumbent
    trained(loop, ledger, range(1, 8))
    assert loop.versions == Versions(made["new"])
    trained(loop, ledger, [8], alarmed=True)
    assert loop.versions == Versions(old) and events(loop)[-1] == "held"
    assert loop.state.started is None, "nothing is built while an alarm is triggered"


def test_a_version_is_taken_back_whose_gap_and_reward_fell_at_three_publications(run, tmp_path):
    loop, made, _, _ = run
    spans = []
    for number, reward in enumerate((0.8, 0.7, 0.6)):
        spans.append(Span(f"v{number}"))
        for _ in range(10):
            spans[-1] = spans[-1].added([reward], [0.3], step=1)
    before = loop.state.incumbent
    loop.state = replace(loop.state, spans=(*spans, Span(NEW_HASH)), incumbent=made["new"], previous=before, published=1)
    mixed = [LedgerRow(50, f"q{i}", j, NEW_HASH if j else "", arm, 0.4) for i in range(10) for j, arm in enumerate(("none", "full"))]
    metrics = loop.step(50, mixed, alarmed=False)
    assert loop.state.incumbent == before and loop.state.previous is None and metrics["hiexp/loop/held"] == 1.0
    assert events(loop) == ["held"] and "fell at 3 publications" in loop._events.read_text()
    assert loop.state.spans == (Span(before.content_hash),), "judged anew"


@pytest.mark.parametrize("killed", range(1, 12))
def test_a_resumed_run_decides_as_one_that_was_not_killed(run, killed):
    loop, _, ledger, settings = run
    folder = loop._events.parent
    trained(loop, ledger, range(1, killed + 1))
    state = json.loads(json.dumps(loop.state.to_json()))
    kept = ledger.read_bytes() if ledger.is_file() else b""
    trained(loop, ledger, range(killed + 1, 13))
    whole, noted = loop.state, events(loop)
    ledger.parent.mkdir(exist_ok=True)
    ledger.write_bytes(kept)  # as `forget_after` leaves it
    again = Loop(settings, folder, ledger, ())
    again.state = LoopState.from_json(state)
    again.load(None, killed)
    trained(again, ledger, range(killed + 1, 13))
    assert again.state == whole and events(again) == noted


def test_a_version_that_is_gone_stops_a_resume(run, tmp_path):
    loop, _, _, _ = run
    state = replace(loop.state, incumbent=Version(str(tmp_path / "gone"), "x")).to_json()
    with pytest.raises(HiExpError, match="which is gone; put that version back"):
        loop.load(json.loads(json.dumps(state)), 3)


def test_a_stamp_comes_back_as_it_was():
    old, new = Version("a", "1"), Version("b", "2")
    assert Versions.of(Versions(old, new).stamp()) == Versions(old, new)
    assert Versions.of(Versions(old).stamp()) == Versions(old) and Versions.of(None) is None


def test_half_of_the_guided_rollouts_of_a_group_play_the_candidate():
    mixed = HiExpConfig(group={"arms": ("none", "full")})
    for number in range(20):
        guided = [plays_candidate(session, f"q{number}", mixed) for session in range(8) if session % 2]
        assert sum(guided) == 2 and not any(plays_candidate(session, f"q{number}", mixed) for session in range(0, 8, 2))
    firsts = {plays_candidate(0, f"q{number}", HiExpConfig()) for number in range(20)}
    assert firsts == {True, False}, "an odd group has now one more of the one, now of the other"


def test_the_builder_makes_the_candidate_that_its_files_suggest_and_refuses_validation_questions(tmp_path):
    task, lines = builder_task(tmp_path)
    parent = Path(task.parent)
    ray.init(num_cpus=1, include_dashboard=False, ignore_reinit_error=True)
    try:
        made = ray.get(ray.remote(num_cpus=0, max_calls=1)(module._make_candidate).remote(task))
        assert made.path == str(parent.with_name("0002")) and made.came and not made.only_removes
        assert HEK.load(Path(made.path)).header.content_hash == made.content_hash
        assert HEK.load(tmp_path / "out" / "hek").header.content_hash == HEK.load(parent).header.content_hash, "CURRENT stays"
        assert made.changed_lookups == 1.0, "each question finds another plan than before"
        assert made.self_sourced == 0.0, "each entry rests on a rollout without experience, too"
        assert make_candidate(task) == made, "the same task gives the same candidate, and no second version"
        with pytest.raises(ray.exceptions.RayTaskError, match="was distilled from"):
            ray.get(ray.remote(make_candidate).options(num_cpus=0).remote(replace(task, validation=(lines[0]["question"],))))
    finally:
        ray.shutdown()
