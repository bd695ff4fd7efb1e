"""What lies beside the policy in a checkpoint, and what a resumed run must have in common with it."""

import json
import shutil

import pytest

pytestmark = pytest.mark.verl
pytest.importorskip("omegaconf")

from omegaconf import OmegaConf

from hiexp_verl.config import parse_config
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.record import EpisodeRecord
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.plugin.checkpoint import MARKER, STATE, folder_to_resume, identity_of, load_state, save_state
from hiexp_verl.plugin.metrics import EpisodeOutcome
from hiexp_verl.plugin.monitor import Watch
from tests.support.factories import entry, hek_of
from tests.support.training import EMPTY_WATCH

ENTRIES = [entry("e1-1"), entry("e2-1", "e2", title="a pattern of it"), entry("e3-1", "e3", title="a strategy of it")]


def run_of(**rollout):
    """Return what of verl's config a checkpoint remembers."""
    multi_turn = {"format": rollout.pop("format", "hermes"), "max_assistant_turns": 4, "max_tool_response_length": 256}
    block = {"n": 4, "temperature": 1.0, "top_p": 1.0, "response_length": 64, "multi_turn": multi_turn, **rollout}
    return OmegaConf.create({"actor_rollout_ref": {"rollout": block}, "data": {"train_files": "train.jsonl"}})


def saved(tmp_path, hek=None, **block):
    """Save a HEK and a checkpoint of a run with it; return (identity, checkpoint folder)."""
    version = hek_of(hek or ENTRIES, HashEncoder(32)).save(tmp_path / "hek")
    from hiexp_verl.hek.store import HEK

    identity = identity_of(parse_config(block), HEK.load(version), run_of())
    folder = tmp_path / "global_step_2"
    save_state(folder, identity, {}, str(version), EMPTY_WATCH)
    return identity, folder


def test_the_same_run_goes_on(tmp_path):
    identity, folder = saved(tmp_path, arm="random", seed=3)
    assert load_state(folder, identity, allow_mismatch=False) == EMPTY_WATCH
    state = json.loads((folder / STATE).read_text())
    assert state["step"] == 2 and len(state["identity"]["hek"]) == 64


def test_a_state_without_a_setting_of_the_run_is_refused(tmp_path):
    identity, folder = saved(tmp_path, tool={"position": "after"})
    state = json.loads((folder / STATE).read_text())
    del state["identity"]["tool"]["position"]
    (folder / STATE).write_text(json.dumps(state))
    with pytest.raises(HiExpError, match=r"hiexp\.tool="):
        load_state(folder, identity, allow_mismatch=False)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"arm": "none"}, "hiexp.arm=full, this run has none"),
        ({"seed": 4}, "hiexp.seed=None, this run has 4"),
        ({"group": {"arms": ["full", "none"]}}, "hiexp.group="),
        ({"tool": {"min_score": 0.4}}, "hiexp.tool="),
        ({"search": {"top_k": 1}}, "hiexp.search="),
        ({"reward": {"kind": "em"}}, "hiexp.reward="),
        ({"enabled": False}, "hiexp.enabled=True, this run has False"),
    ],
)
def test_another_setting_is_refused_unless_told_otherwise(tmp_path, other, said):
    identity, folder = saved(tmp_path)
    wanted = identity_of(parse_config(other), hek_of(ENTRIES, HashEncoder(32)), run_of()) | (
        {"hek": identity["hek"]} if "enabled" not in other else {}
    )
    with pytest.raises(HiExpError, match=said):
        load_state(folder, wanted, allow_mismatch=False)
    assert load_state(folder, wanted, allow_mismatch=True) is None, "what was counted was counted of another run"


@pytest.mark.parametrize("enabled", [True, False])
def test_rounds_of_self_distillation_with_other_settings_are_refused(tmp_path, enabled):
    def identity(**distil):
        settings = parse_config({"enabled": enabled, "dump_dir": "dump", "distil": distil})
        return identity_of(settings, hek_of(ENTRIES, HashEncoder(32)) if enabled else None, run_of())

    folder = tmp_path / "global_step_2"
    save_state(folder, identity(every=2), {}, None, EMPTY_WATCH)
    assert load_state(folder, identity(every=2), allow_mismatch=False) == EMPTY_WATCH
    for other in ({"every": 2, "clip": 0.1}, {"every": 3}, {}):
        with pytest.raises(HiExpError, match=r"was made with hiexp\.distil="):
            load_state(folder, identity(**other), allow_mismatch=False)
    assert identity(clip=0.1) == identity(), "without rounds their settings do nothing"


@pytest.mark.parametrize(
    ("rollout", "said"),
    [
        ({"n": 2}, r"made with actor_rollout_ref\.rollout\.n=4, this run has 2"),
        ({"top_p": 0.9}, r"made with actor_rollout_ref\.rollout\.top_p=1\.0, this run has 0\.9"),
        ({"temperature": 0.7}, r"made with actor_rollout_ref\.rollout\.temperature=1\.0, this run has 0\.7"),
        ({"format": "search_tags"}, r"made with actor_rollout_ref\.rollout\.multi_turn\.format=hermes, this run has search_tags"),
    ],
)
def test_episodes_that_are_played_otherwise_are_refused(tmp_path, rollout, said):
    identity, folder = saved(tmp_path)
    wanted = identity_of(parse_config({}), hek_of(ENTRIES, HashEncoder(32)), run_of(**rollout)) | {"hek": identity["hek"]}
    with pytest.raises(HiExpError, match=said):
        load_state(folder, wanted, allow_mismatch=False)


def test_a_corpus_and_questions_are_known_by_their_content(tmp_path):
    files = {name: tmp_path / f"{name}.jsonl" for name in ("corpus", "train")}
    for file in files.values():
        file.write_text("one\n")

    def identity(folder=tmp_path):
        config = run_of()
        config.data.train_files = [str(folder / "train.jsonl")]
        settings = parse_config({"search": {"corpus": str(folder / "corpus.jsonl")}})
        return identity_of(settings, hek_of(ENTRIES, HashEncoder(32)), config)

    before = identity()
    shutil.copytree(tmp_path, tmp_path.parent / "moved")
    assert identity(tmp_path.parent / "moved") == before
    for name, key in (("corpus", "search.corpus"), ("train", "data.train_files")):
        files[name].write_text("two\n")
        assert {k for k, v in identity().items() if v != before[k]} == {key}
        files[name].write_text("one\n")


def test_another_hek_is_refused_and_both_are_named(tmp_path):
    identity, folder = saved(tmp_path)
    other, _ = saved(tmp_path / "other", [entry("e1-1", description="Do otherwise.")])
    with pytest.raises(HiExpError, match=f"hiexp.hek={identity['hek'][:12]}.*0001.*this run has {other['hek'][:12]}.*hiexp.allow_mismatch"):
        load_state(folder, other, allow_mismatch=False)


def test_a_checkpoint_without_a_state_is_one_made_without_hiexp(tmp_path):
    identity, folder = saved(tmp_path)
    (folder / STATE).unlink()
    with pytest.raises(HiExpError, match="made without HiExp"):
        load_state(folder, identity, allow_mismatch=False)
    assert load_state(folder, identity, allow_mismatch=True) is None
    assert load_state(folder, {"enabled": False, "seed": None}, allow_mismatch=False) is None


@pytest.mark.parametrize(
    "damage",
    ["", "{", "[]", '{"format": 1}', '{"format": 9, "identity": {}, "watched": {}}', '{"format": 1, "identity": "x", "watched": {}}'],
)
def test_a_damaged_state_is_told(tmp_path, damage):
    identity, folder = saved(tmp_path)
    (folder / STATE).write_text(damage)
    with pytest.raises(HiExpError, match=r"damaged|format 9"):
        load_state(folder, identity, allow_mismatch=True)


def checkpoints(tmp_path, marker, *steps):
    """Lay out checkpoints as verl does; return its config."""
    for step in steps:
        (tmp_path / f"global_step_{step}" / "actor").mkdir(parents=True)
        (tmp_path / f"global_step_{step}" / "data.pt").write_bytes(b"x")
    if marker is not None:
        (tmp_path / MARKER).write_text(marker)
    return OmegaConf.create({"trainer": {"resume_mode": "auto", "resume_from_path": None, "default_local_dir": str(tmp_path)}})


def test_the_marker_names_the_checkpoint(tmp_path):
    assert folder_to_resume(checkpoints(tmp_path, None)) is None
    config = checkpoints(tmp_path, "4", 2, 4, 6)
    assert folder_to_resume(config) == tmp_path / "global_step_4"
    config.trainer.resume_mode = "disable"
    assert folder_to_resume(config) is None
    config.trainer.update(resume_mode="resume_path", resume_from_path=str(tmp_path / "global_step_2"))
    assert folder_to_resume(config) == tmp_path / "global_step_2"


def test_a_marker_that_a_kill_left_empty_is_set_to_the_newest_checkpoint(tmp_path):
    config = checkpoints(tmp_path, "", 2, 10, 9)
    (tmp_path / "global_step_11" / "actor").mkdir(parents=True)  # not whole
    assert folder_to_resume(config) == tmp_path / "global_step_10"
    assert (tmp_path / MARKER).read_text() == "10"


@pytest.mark.parametrize("marker", ["7", "x", ""])
def test_a_marker_without_its_checkpoint_is_told_where_verl_would_start_over(tmp_path, marker):
    with pytest.raises(HiExpError, match=r"not there|no complete checkpoint"):
        folder_to_resume(checkpoints(tmp_path, marker))


def test_a_watch_goes_on_where_its_state_was_taken(tmp_path):
    hek, settings = hek_of(ENTRIES, HashEncoder(32)), parse_config({"alarms": {"window": 2}})
    row = {"entry": "e1-1", "level": "e1", "score": 0.5, "place": "tool", "tokens": 3, "search": 1}
    record = EpisodeRecord("q", "?", arm="full", shown=(row, {**row, "search": 2}), searches=2, lookups=2)
    episodes = [EpisodeOutcome("q", 0.5, record)]
    one, other = (Watch(settings, hek, n=2, max_searches=3) for _ in range(2))
    one.step(episodes, {})
    other.load(json.loads(json.dumps(one.state())))
    after = [dict[str, float](), dict[str, float]()]
    one.step(episodes, after[0])
    other.step(episodes, after[1])
    assert after[0] == after[1] and one.state() == other.state()
    assert one.counters == {"e1-1": {"episodes": 2, "reward": 1.0}}  # an episode that saw it twice counts once


def test_a_path_that_holds_no_checkpoint_is_told(tmp_path):
    config = checkpoints(tmp_path, None)
    config.trainer.update(resume_mode="resume_path", resume_from_path=str(tmp_path / "global_step_9"))
    with pytest.raises(HiExpError, match=r"global_step_9 has no .*actor; give a checkpoint"):
        folder_to_resume(config)


def test_a_path_that_does_not_end_in_its_step_is_refused(tmp_path):
    config = checkpoints(tmp_path, None, 2)
    config.trainer.update(resume_mode="resume_path", resume_from_path=f"{tmp_path / 'global_step_2'}/")
    with pytest.raises(HiExpError, match="must end in global_step_N"):
        folder_to_resume(config)


def test_a_state_that_lacks_a_part_is_damaged(tmp_path):
    identity, folder = saved(tmp_path)
    state = json.loads((folder / STATE).read_text())
    del state["watched"]["history"]
    (folder / STATE).write_text(json.dumps(state))
    with pytest.raises(HiExpError, match=r"is damaged \(KeyError: 'history'\)"):
        load_state(folder, identity, allow_mismatch=False)
