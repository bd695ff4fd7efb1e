"""The benchmark of the loop in training: its arms compose and pass the loop's checks, its figures by hand."""

import pytest

from benchmarks import _results, effect_rl, loop_rl
from hiexp_verl.ledger.rows import LedgerRow
from hiexp_verl.rollout.policy import EVENTS
from tests.support.paths import RECIPES

ACCEPTED = {"step": 1, "event": "accept", "version": "0002", "verdict": {"difference": 0.5, "error": 0.1, "look": 8}}


@pytest.mark.verl
@pytest.mark.parametrize("arm", loop_rl.ARMS)
def test_every_arm_composes_and_passes_the_checks_of_the_loop(tmp_path, arm):
    pytest.importorskip("verl")
    import hydra

    from hiexp_verl.plugin.agent_loop import settings_of
    from hiexp_verl.plugin.preflight_arms import check_group, check_loop

    what = {"trained": arm, "seed": 1, "steps": 10, "lr": 3e-5}
    with hydra.initialize_config_dir(str(RECIPES / "cpu_demo"), version_base=None):
        overrides = loop_rl.settings_of(tmp_path / f"{arm}-1", what, tmp_path / "policy")
        config = hydra.compose("grpo", overrides=["hydra.searchpath=[pkg://verl.trainer.config]", *overrides])
    settings = settings_of(config)
    check_group(settings, config)
    check_loop(settings, config)
    assert (settings.loop.enabled, settings.ledger.enabled) == (arm == "on", True)
    assert config.data.train_files == str(tmp_path / "learn.jsonl") and config.data.train_batch_size == 8


def row(step, session, arm, version, reward):
    return LedgerRow(step, "q", session, version, arm, reward)


def run(arm, seed, rewards):
    """A run of two steps: (step, arm, version, reward) of each rollout."""
    ledger = [row(step, n, played, version, reward) for n, (step, played, version, reward) in enumerate(rewards)]
    evaluated = [
        {"id": f"q{n}", "arm": played, "concise": float(n < seed + 1), "searches": 2, "shown": [], "em": 1.0, "f1": 1.0, "cem": 1.0}
        | {"format": 1.0, "tokens": 1.0, "seconds": 1.0}
        for n in range(4)
        for played in ("none", "full")
    ]
    curves = {name: [(1, 10.0), (2, 20.0)] for name in loop_rl.CURVES}
    made = {"commit": "c", "date": "d", "cpu": "p", "policy": "0" * 12, "hek": "1" * 12}
    events = [ACCEPTED] if arm == "on" else []
    return {
        "algorithm": "grpo",
        "trained": arm,
        "seed": seed,
        **made,
        "curves": curves,
        "rows": evaluated,
        "ledger": ledger,
        "events": events,
    }


OFF = [(1, "none", "", 1.0), (1, "full", "0001", 0.0), (2, "none", "", 1.0), (2, "full", "0001", 0.0)]
ON = [(1, "none", "", 1.0), (1, "full", "0001", 0.0), (1, "full", "0002", 1.0), (2, "none", "", 0.0), (2, "full", "0002", 1.0)]


def test_a_candidate_counts_from_the_step_after_its_publication():
    runs = [run("on", 0, ON), run("on", 1, ON)]
    first, second = (loop_rl.span_of(runs, step, step) for step in (1, 2))
    assert (first.gap, first.groups) == (-1.0, 2), "version 2 is played in step 1, and is not in use"
    assert (second.gap, second.groups) == (1.0, 2)
    assert loop_rl.span_of([run("off", 0, OFF)], 1, 2).gap == -1.0


def test_the_version_in_use_at_the_end_is_the_last_published_or_taken_back(tmp_path):
    assert loop_rl.in_use(tmp_path) == tmp_path / "hek" / "0001"
    (tmp_path / "checkpoints").mkdir()
    events = '{"step": 2, "event": "accept", "version": "/x/hek/0003"}\n{"step": 4, "event": "proposed", "version": "/x/hek/0004"}\n'
    (tmp_path / "checkpoints" / EVENTS).write_text(events)
    assert loop_rl.in_use(tmp_path) == tmp_path / "hek" / "0003"


def test_results_say_what_the_loop_did_and_what_it_changed(tmp_path, monkeypatch):
    for module in (effect_rl, _results):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    machine = {"command": "c", "commit": "c", "date": "d", "cpu": "p", "cores": 2, "memory_gib": 1.0, "system": "s"}
    machine |= {"load_before": 0.0, "packages": {}}
    runs = [run("off", 0, OFF), run("on", 0, ON), run("off", 1, OFF), run("on", 1, ON)]
    loop_rl.write(machine, {"steps": 2, "validation": 4}, runs)
    page = (tmp_path / "loop_rl.md").read_text()
    assert "| last third: steps 2 to 2 | -1.000 [-1.000, -1.000] | +1.000 [+1.000, +1.000] | +2.000 [+2.000, +2.000] | 2, 2 |" in page
    assert "| 0 | 1 | accept | 0002 | +0.500, error 0.100, 8 groups |" in page
    assert "The loop itself takes 15.00 s of a step of 20.0 s" in page and "| none | 0.375 | 0.375 |" in page
