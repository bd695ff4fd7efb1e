"""The benchmark of mathematics by RL: its arms compose and pass the checks, its derivations are right and follow what they show."""

import random
import re

import pytest

from benchmarks import maths_rl
from hiexp_verl.domains.maths.domain import MATHS
from recipes.demo_data.maths.procedural import FAMILIES, problems_of


@pytest.mark.verl
@pytest.mark.parametrize("arm", ["none", "full", "mixed"])
def test_every_arm_composes_and_is_of_mathematics(tmp_path, arm):
    pytest.importorskip("verl")
    import hydra

    from hiexp_verl.plugin.agent_loop import settings_of
    from hiexp_verl.plugin.preflight_arms import check_group

    what = {"trained": arm, "seed": 1, "steps": 6, "lr": 3e-5}
    overrides = maths_rl.overrides_of(tmp_path / f"grpo-{arm}-1", what, tmp_path / "policy", tmp_path / "hek")
    with hydra.initialize_config_dir(str(maths_rl.RECIPE), version_base=None):
        config = hydra.compose("grpo", overrides=["hydra.searchpath=[pkg://verl.trainer.config]", *overrides])
    settings = settings_of(config)
    check_group(settings, config)
    assert (settings.domain, settings.arm, settings.seed) == ("maths", "none" if arm == "none" else "full", 1)
    assert config.data.hiexp_domain == config.reward.custom_reward_function.reward_kwargs.domain == "maths"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_derivation_is_right_and_checks_its_steps_where_the_advice_says_so(family):
    seen = set()
    for problem in problems_of(family)[:200]:
        messages = maths_rl.derivation(problem, random.Random(problem.id))
        assert MATHS.score(MATHS.final_answer(messages), problem.answers, "em", problem.question).reward == 1.0
        calculations = re.findall(r"([^\n.:=]+) = (-?\d+)", messages[-1]["content"])
        assert calculations and all(eval(left) == int(right) for left, right in calculations)
        asks = any(words in messages[0]["content"] for words in ("inverse operation", "in another order"))
        assert ("Check:" in messages[-1]["content"]) == asks
        seen.add((asks, "<experience>" in messages[0]["content"]))
    assert seen == {(True, True), (False, True), (False, False)}


def test_problems_of_warm_start_rollouts_training_and_test_are_different(tmp_path):
    warm = maths_rl.write_data(tmp_path, {"warm_start": 20, "questions": 10, "validation": 8})
    ids = [q.id for q in warm]
    for name, count in (("learn", 10), ("drill", 10), ("check", 8)):
        of = [q.id for q in maths_rl.read_questions(tmp_path / f"{name}.jsonl")]
        assert len(of) == count and {each.partition("-")[0] for each in of} == set(FAMILIES)
        ids += of
    assert len(set(ids)) == 48
