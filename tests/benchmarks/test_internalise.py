"""The benchmark of internalised experience: its arms compose and pass the checks of their rounds, its figures by hand."""

import argparse

import pytest

from benchmarks import _results, effect_rl, internalise
from tests.support.paths import RECIPES

CHANGED = "hek,clip=0.02,lr=1e-5"
FIGURES = ("em", "f1", "cem", "format", "tokens", "seconds")


@pytest.mark.verl
@pytest.mark.parametrize("arm", [*internalise.ARMS, CHANGED])
def test_every_arm_composes_and_passes_the_checks_of_its_rounds(tmp_path, arm):
    pytest.importorskip("verl")
    import hydra

    from hiexp_verl.plugin.agent_loop import settings_of
    from hiexp_verl.plugin.preflight_arms import check_distil, check_group

    folder = internalise.folder_of(tmp_path, arm, 1)
    what = {"seed": 1, "steps": 6, "lr": 3e-5}
    overrides = effect_rl.overrides_of(folder, what, tmp_path / "policy", tmp_path / "hek", internalise.settings_of(arm))
    with hydra.initialize_config_dir(str(RECIPES / "cpu_demo"), version_base=None):
        config = hydra.compose("grpo", overrides=["hydra.searchpath=[pkg://verl.trainer.config]", *overrides])
    settings = settings_of(config)
    check_group(settings, config)
    check_distil(settings, config)
    name = arm.partition(",")[0]
    assert config.data.train_batch_size == 8 and settings.seed == 1
    assert list(settings.group.arms) == (["full", "none"] if name in ("mixed", "hek") else [])
    assert (settings.distil.every, settings.distil.privilege) == ((1, name) if name in ("sibling", "hek") else (0, "sibling"))
    assert settings.val_arm == ("prompt" if name == "mixed" else "none"), "as it is served"
    assert (settings.distil.clip, config.actor_rollout_ref.actor.optim.lr) == ((0.02, 1e-5) if arm == CHANGED else (0.05, 3e-5))


@pytest.mark.parametrize("arm", ["huk", "mixed,clip=1", "hek,every=3", "hek,clap=1", "hek,clip", "hek,epochs=2.5", "hek,lr=low"])
def test_an_arm_that_cannot_be_run_is_named(arm):
    with pytest.raises(argparse.ArgumentTypeError):
        internalise.arm_of(arm)


def test_what_it_can_see_is_said_before():
    assert "104 questions and 3 seeds a difference of 0.112" in effect_rl.power(104, 3), "2.8 sqrt(0.5 / 312)"


def run(arm, seed, right, rounds=()):
    rows = [
        {"id": f"q{n}", "arm": played, "concise": float(n < right), "searches": 2, "shown": [], **dict.fromkeys(FIGURES, 1.0)}
        for n in range(4)
        for played in ("none", "prompt", "full")
    ]
    curves = {name: [(1, 10.0), (2, 20.0)] for name in effect_rl.CURVES} | {"validation": [(0, 0.1), (2, 0.2)]}
    curves |= {name: [(2, value) for value in rounds] for name in internalise.CURVES if name not in curves}
    made = {"rollout_tokens": 7, "commit": "c", "date": "d", "cpu": "p", "policy": "0" * 12, "hek": "1" * 12}
    return internalise.with_rounds({"algorithm": "grpo", "trained": arm, "seed": seed, **made, "curves": curves, "rows": rows})


def test_tokens_of_a_step_include_its_round():
    assert run("hek", 0, 1, rounds=(5.0,))["curves"]["tokens"] == [(1, 10.0), (2, 25.0)]


def test_results_are_written_and_read_again(tmp_path, monkeypatch):
    for module in (effect_rl, _results):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    settings = {"steps": 2, "questions": 1, "validation": 4}
    runs = [{**run(arm, 0, right, rounds), **settings} for arm, right, rounds in (("none", 1, ()), ("mixed", 2, ()), (CHANGED, 3, (5.0,)))]
    machine = {"command": "c", "commit": "c", "date": "d", "cpu": "p", "cores": 2, "memory_gib": 1.0, "system": "s"}
    machine |= {"load_before": 0.0, "packages": {}}
    internalise.write("trial", machine, settings, runs, {f"q{n}": "in everyday words" for n in range(4)})
    page = (tmp_path / "trial.md").read_text()
    assert f"| grpo, all | {CHANGED} | none | 4 | 0.750" in page and "| grpo, all | mixed | prompt | 4 | 0.500" in page
    assert "| grpo none | 1 | 30 | 30 |" in page and "| grpo mixed | 1 | 30 | 37 |" in page, "the HEK's rollouts in the second column"
    assert f"| {CHANGED} | 5 | 0.14 | 5.0 |" in page, "of 35 tokens 5 in the round"
    assert f"| every question | {CHANGED}, none | mixed, prompt | 1 | +0.250" in page, "distilled against kept: 3 of 4 right, and 2"
    again = effect_rl.published(settings, "trial")
    assert set(again) == {("grpo", r["trained"], 0) for r in runs} and again["grpo", "mixed", 0]["rows"] == [
        {**row, "seed": 0} for row in runs[1]["rows"]
    ]
    assert effect_rl.published(settings, "none") == {}
