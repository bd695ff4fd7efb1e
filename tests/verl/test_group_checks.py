"""What a run with mixed groups, or one that resumes, is refused for before a device is touched."""

import logging

import pytest

pytestmark = pytest.mark.verl
pytest.importorskip("verl")

from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.store import HEK
from hiexp_verl.plugin.agent_loop import settings_of
from hiexp_verl.plugin.checkpoint import MARKER, identity_of, save_state
from hiexp_verl.plugin.preflight import check_resume
from hiexp_verl.plugin.preflight_arms import check_group
from tests.support.training import EMPTY_WATCH
from tests.support.verl_fixtures import compose, write_hek

N = "actor_rollout_ref.rollout.n"


def config_of(*overrides):
    return compose("+hiexp=grpo", "actor_rollout_ref.rollout.name=vllm", *overrides)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["hiexp.group.arms=[full,none]", f"{N}=1"], f"{N}=1; raise it to 2"),
        (["hiexp.group.arms=[none,prompt,tool,full]", f"{N}=1"], "raise it to 4"),
        (["hiexp.group.arms=[none,prompt,tool,full]", "hiexp.arm=random"], "leave one of them out"),
        (["hiexp.group.baseline=within-arm", "algorithm.adv_estimator=grpo"], "needs algorithm.adv_estimator=hiexp_grpo, found grpo"),
        (
            ["hiexp.group.strip=true", "actor_rollout_ref.rollout.calculate_log_probs=false"],
            "set actor_rollout_ref.rollout.calculate_log_probs=true",
        ),
        (["hiexp.group.strip=true", "algorithm.rollout_correction.bypass_mode=true"], "bypass_mode=false"),
    ],
)
def test_groups_that_cannot_be_mixed_are_refused(overrides, said):
    config = config_of(*overrides)
    with pytest.raises(HiExpError, match=said):
        check_group(settings_of(config), config)


@pytest.mark.parametrize(
    "overrides", [[], ["hiexp.group.arms=[none,prompt,tool,full]"], ["hiexp.group.strip=true", "hiexp.group.arms=[full,none]"], [f"{N}=1"]]
)
def test_groups_that_can_be_are_not(overrides):
    config = config_of(*overrides)
    check_group(settings_of(config), config)


def test_a_run_does_not_resume_what_another_hek_has_trained(tmp_path):
    roots = [write_hek(tmp_path / "one"), write_hek(tmp_path / "other", "Name the country.")]
    config = config_of(f"hiexp.hek={roots[0]}", f"trainer.default_local_dir={tmp_path / 'checkpoints'}")
    settings, heks = settings_of(config), [HEK.load(root) for root in roots]
    check_resume(settings, heks[0], config)  # nothing to resume
    folder = tmp_path / "checkpoints" / "global_step_3"
    (folder / "actor").mkdir(parents=True)
    (folder.parent / MARKER).write_text("3")
    save_state(folder, identity_of(settings, heks[0], config), {}, settings.hek, EMPTY_WATCH)
    check_resume(settings, heks[0], config)
    with pytest.raises(HiExpError, match=r"hiexp\.hek="):
        check_resume(settings, heks[1], config)
    config.hiexp.allow_mismatch = True
    check_resume(settings_of(config), heks[1], config)


@pytest.mark.parametrize(
    ("override", "warned"),
    [
        ("trainer.max_actor_ckpt_to_keep=1", True),
        ("+trainer.remove_previous_ckpt_in_save=true", True),
        ("trainer.max_actor_ckpt_to_keep=2", False),
    ],
)
def test_one_kept_checkpoint_is_warned_of(caplog, override, warned):
    config = config_of(override, "hiexp.enabled=false")
    with caplog.at_level(logging.WARNING):
        check_resume(settings_of(config), None, config)
    assert ("=2 to survive a kill" in caplog.text) == warned


@pytest.mark.parametrize(("baseline", "n", "warned"), [("within-arm", 7, True), ("within-arm", 8, False), ("shared", 7, False)])
def test_arms_of_one_rollout_are_warned_of(caplog, baseline, n, warned):
    config = config_of("hiexp.group.arms=[none,prompt,tool,full]", f"hiexp.group.baseline={baseline}", f"{N}={n}")
    with caplog.at_level(logging.WARNING):
        check_group(settings_of(config), config)
    assert ("n=8 or more, found 7" in caplog.text) == warned
