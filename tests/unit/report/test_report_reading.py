"""Runs are known by their manifests; damage is named, and the rest is read."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.io.manifest import MANIFEST, Manifest, read_manifest
from hiexp_verl.report import write_report
from hiexp_verl.report.episodes import outcome, pairs, read_again, samples
from hiexp_verl.report.runs import gather
from hiexp_verl.report.tree import uses_of
from tests.support.factories import trajectory
from tests.support.heks import tree
from tests.support.runs import (
    arm,
    dumped,
    row,
    shown,
    write_evaluation,
    write_metrics,
    write_part,
    write_rollout,
    write_state,
    write_training,
)

# ---- trainings ---------------------------------------------------------------------------------------------------------


def test_a_training_is_what_its_manifest_names(tmp_path):
    write_training(tmp_path / "x", {1: 0.1, 2: 0.2}, {"hiexp__seed": 3})
    write_metrics(tmp_path / "x" / "other.jsonl", {9: 0.9})
    (run,) = gather([tmp_path]).trainings
    assert run.curve("critic/score/mean") == [(1.0, 0.1), (2.0, 0.2)]
    assert (run.config["hiexp.seed"], run.resumed, run.error) == (3, (), "")


def test_of_two_sessions_the_later_one_counts_step_by_step(tmp_path):
    write_metrics(tmp_path / "b.jsonl", {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4})
    write_metrics(tmp_path / "a.jsonl", {4: 0.9, 5: 0.95})
    write_training(tmp_path, metrics=("b.jsonl", "a.jsonl"))  # the later one by the manifest, not by name
    (run,) = gather([tmp_path]).trainings
    assert [value for _, value in run.curve("critic/score/mean")] == [0.1, 0.2, 0.3, 0.9, 0.95]
    assert run.resumed == (4,)


def test_the_validation_before_a_resume_takes_nothing_from_its_step(tmp_path):
    write_metrics(tmp_path / "a.jsonl", {1: 0.1, 2: 0.2})
    lines = [{"step": 2, "data": {"val-core/x/acc/mean@1": 0.7}}, {"step": 3, "data": {"critic/score/mean": 0.3}}]
    write_jsonl(tmp_path / "b.jsonl", lines)
    write_training(tmp_path, metrics=("a.jsonl", "b.jsonl"))
    (run,) = gather([tmp_path]).trainings
    assert run.steps[2] == {"critic/score/mean": 0.2, "training/global_step": 2.0, "val-core/x/acc/mean@1": 0.7}
    assert run.resumed == (3,)


def test_what_is_no_number_is_no_point(tmp_path):
    write_training(tmp_path, {1: 0.1, 2: 0.2}, actor__grad_norm=None)  # NaN, as verl's logger writes it
    (run,) = gather([tmp_path]).trainings
    assert run.curve("actor/grad_norm") == []
    assert len(run.curve("critic/score/mean")) == 2


def test_trainings_below_one_directory_have_their_own_episodes(tmp_path):
    for name, seed in (("one", 1), ("two", 2)):
        write_training(tmp_path / name, {1: seed / 10}, {"hiexp__seed": seed}, [dumped("q1", 1, True)])
    found = gather([tmp_path])
    assert [(run.name, run.config["hiexp.seed"]) for run in found.trainings] == [("one", 1), ("two", 2)]
    assert [(one.run, one.step) for one in found.played] == [("one", 1), ("two", 1)]


def test_a_training_is_named_after_the_folder_that_holds_all_of_it(tmp_path):
    for name in ("one", "two"):
        write_metrics(tmp_path / name / "log" / "m.jsonl", {1: 0.1})
        write_training(tmp_path / name / "checkpoints", metrics=("../log/m.jsonl",))
    write_metrics(tmp_path / "far" / "m.jsonl", {1: 0.1})
    write_training(tmp_path / "a" / "three", metrics=("../../far/m.jsonl",))
    assert [run.name for run in gather([tmp_path / "one", tmp_path / "two"]).trainings] == ["one", "two"]
    assert [run.name for run in gather([tmp_path / "a" / "three"]).trainings] == ["three"]


def test_a_directory_given_twice_or_inside_another_counts_once(tmp_path):
    write_training(tmp_path / "run", {1: 0.1}, episodes=[dumped("q1", 1, True)])
    write_rollout(tmp_path / "run" / "rollout", [trajectory()])
    assert len(gather([tmp_path / "run", tmp_path / "." / "run"]).trainings) == 1
    assert len(gather([tmp_path, tmp_path / "run" / "rollout"]).played) == 2


def test_names_are_the_shortest_that_differ(tmp_path):
    for name in ("a/train", "b/train"):
        write_training(tmp_path / name, {1: 0.1})
    assert [run.name for run in gather([tmp_path / "a" / "train", tmp_path / "b" / "train"]).trainings] == ["a/train", "b/train"]


def test_the_last_state_has_the_use_of_each_entry(tmp_path):
    version = tree().save(tmp_path / "hek")
    content_hash = json.loads((version / "header.json").read_text())["content_hash"]
    write_training(tmp_path / "run", {1: 0.1})
    write_state(tmp_path / "run", 9, content_hash, {"e1-0001": {"episodes": 5, "reward": 2.0}}, str(version))
    write_state(tmp_path / "run", 10, content_hash, {"e1-0001": {"episodes": 7, "reward": 3.0}}, str(version))
    found = gather([tmp_path / "run"])
    assert found.trainings[0].counters == {"e1-0001": {"episodes": 7, "reward": 3.0}}
    assert list(found.heks) == [content_hash]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("hek_loop.jsonl", '{"step": 1, "verdict": [1]}'),
        ("hek_loop.jsonl", '{"step": 1e999}'),
        ("hek_loop.jsonl", '{"step": 1, "verdict": {"error": 1, "difference": 1%s, "look": 2}}' % ("0" * 400)),
        ("metrics.jsonl", '{"step": 1e999, "data": {}}'),
        ("global_step_9/hiexp/state.json", '{"watched": []}'),
        ("global_step_9/hiexp/state.json", '{"watched": {"counters": {"e1-0001": [1]}}}'),
        ("global_step_9/hiexp/state.json", '{"watched": {"counters": {"e1-0001": {"episodes": 1e999, "reward": 1}}}}'),
    ],
)
def test_what_is_damaged_beside_a_training_is_a_fault(tmp_path, name, content):
    write_training(tmp_path, {1: 0.1})
    (tmp_path / "global_step_old" / "hiexp").mkdir(parents=True)
    (tmp_path / "global_step_old" / "hiexp" / "state.json").write_text("{}")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(content + "\n")
    found = gather([tmp_path])
    assert len(found.trainings) == 1 and len(found.faults) == 1 and name in found.faults[0]


@pytest.mark.parametrize(
    "outcome", [{"usage": [1]}, {"facts": "x"}, {"in_short": "x"}, {"seconds": {"a": "x"}}, {"seconds": 3}, {"hek_path": [1]}]
)
def test_a_manifest_with_an_odd_outcome_is_named(tmp_path, outcome):
    (tmp_path / MANIFEST).write_text(json.dumps({"kind": "recipe", "spec": {}, "outcome": outcome}))
    with pytest.raises(HiExpError, match=r"run.json is damaged \(outcome"):
        read_manifest(tmp_path)


def test_a_recipe_says_first_what_it_found(tmp_path):
    outcome = {"in_short": ["no experience: 0.02", "its own <experience>: 0.67"]}
    (tmp_path / MANIFEST).write_text(json.dumps({"kind": "recipe", "spec": {}, "begun": "2026-11-29T00:00:00Z", "outcome": outcome}))
    write_report([tmp_path], tmp_path / "report.html")
    said = "<h2>In short</h2><ul><li>no experience: 0.02</li><li>its own &lt;experience&gt;: 0.67</li></ul>"
    assert said in (tmp_path / "report.html").read_text()


def test_an_episode_that_is_there_twice_counts_once(tmp_path):
    write_rollout(tmp_path / "r", [trajectory("q1"), trajectory("q2"), trajectory("q1")])
    assert len(gather([tmp_path]).played) == 2


def test_an_older_version_of_a_hek_is_shown_where_a_run_used_it(tmp_path):
    old = tree().save(tmp_path / "hek")
    content_hash = json.loads((old / "header.json").read_text())["content_hash"]
    tree(models=("other",)).save(tmp_path / "hek")
    assert len(gather([tmp_path]).heks) == 1 and content_hash not in gather([tmp_path]).heks
    write_training(tmp_path / "run", {1: 0.1})
    write_state(tmp_path / "run", 1, content_hash, {})
    found = gather([tmp_path])
    assert len(found.heks) == 2 and content_hash in found.heks


# ---- evaluations and rollouts -------------------------------------------------------------------------------------------


def test_an_evaluation_has_its_table_and_the_mean_of_each_question_over_seeds(tmp_path):
    rows = [row("none", "q1", False, "a"), row("none", "q1", True, "a", seed=1), row("none", "q1", True, "b"), row("full", "q1", True, "a")]
    write_evaluation(tmp_path, [arm("none", 0.5, dataset="a"), arm("full", 0.75, 0.25, dataset="a")], rows)
    (found,) = gather([tmp_path]).evaluations
    assert found.values["a", "none"] == {"a/q1: What is q1?": 0.5} and found.values["a", "full"] == {"a/q1: What is q1?": 1.0}
    assert found.values["all", "none"] == {"a/q1: What is q1?": 0.5, "b/q1: What is q1?": 1.0}
    assert [line["concise"] for line in found.arms] == [0.5, 0.75]


def test_arms_that_were_played_without_a_table_have_their_episodes(tmp_path):
    write_part(tmp_path, "hotpot", 0, "none", [True, False, False])
    write_part(tmp_path, "hotpot", 0, "full", [False, True], shown("e1-a"))
    write_part(tmp_path, "hotpot", 0, "random", [])  # begun: no episode yet
    found = gather([tmp_path])
    (one,) = found.evaluations
    assert not one.arms and not found.rollouts and not found.faults
    assert sorted((each.run, each.record.arm) for each in found.played) == [(tmp_path.name, "full")] * 2 + [(tmp_path.name, "none")] * 3


def test_a_line_that_a_kill_tore_is_named_once(tmp_path):
    write_part(tmp_path, "hotpot", 0, "none", [True, False])
    path = tmp_path / "hotpot" / "seed-0" / "none" / "trajectories.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    found = gather([tmp_path])
    assert len(found.played) == 1
    assert len(found.faults) == 1 and "1 of 2 lines cannot be read (line 2: not JSON" in found.faults[0]


def test_a_rollout_below_an_evaluation_is_one_of_its_arms(tmp_path):
    write_rollout(tmp_path / "hotpot" / "seed-0" / "none", [trajectory()])
    assert len(gather([tmp_path]).rollouts) == 1
    write_part(tmp_path, "hotpot", 0, "full", [True])
    found = gather([tmp_path])
    assert not found.rollouts and sorted(one.record.arm for one in found.played) == ["full", "none"]


def test_rows_and_table_of_an_earlier_plan_are_not_taken(tmp_path):
    write_evaluation(tmp_path, [arm("none", 0.9)], [row("none", "q1", True)])
    assert gather([tmp_path]).evaluations[0].arms[0]["concise"] == 0.9
    manifest = read_manifest(tmp_path)
    manifest.finished = None
    manifest.write(tmp_path)
    assert not gather([tmp_path]).evaluations[0].arms


@pytest.mark.parametrize("content", ["", '{"questions": 2, "arms": [', "3", "\x00"])
def test_a_damaged_table_is_named(tmp_path, content):
    write_evaluation(tmp_path, [arm("none", 0.5)])
    (tmp_path / "table.json").write_text(content)
    found = gather([tmp_path])
    assert not found.evaluations[0].arms and len(found.faults) == 1 and "table.json cannot be read (" in found.faults[0]


GAP = {"mean": 0.1, "low": 0.0, "high": 0.2, "p": 0.04}
PAIR = {"dataset": "set", "arm": "full", "against": "none", "measure": "em", **GAP}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"pairs": None}, "pairs: "),
        ({"pairs": [{**PAIR, "measure": "bleu"}]}, "the measure 'bleu' is unknown"),
        ({"pairs": [{**PAIR, "low": "0"}]}, "pairs.0.low: "),
        ({"seeds": 3}, "seeds: "),
        ({"settings": []}, "settings: "),
        ({"arms": [arm("none", 0.5) | {"dataset": ["set"]}]}, "arms.0.dataset: "),
        ({"arms": [arm("none", 0.5) | {"em_interval": [0.1, "x"]}]}, "an interval is not two numbers"),
        ({"arms": [arm("none", 0.5) | {"em": None}]}, "a mean is no number"),
        ({"arms": [arm("none", 0.5), arm("full", 0.5, 0.1) | {"concise_minus_none": {"mean": 0.1}}]}, "arms.1.concise_minus_none.low: "),
        ({"arms": [arm("none", 0.5), {"dataset": "set", "arm": "full", "episodes": 2}]}, "the arms have not the same measures"),
    ],
)
def test_a_table_with_other_values_than_the_page_reads_is_named(tmp_path, changes, fault):
    write_evaluation(tmp_path, [arm("none", 0.5)])
    path = tmp_path / "table.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    found = gather([tmp_path])
    assert not found.evaluations[0].arms and len(found.faults) == 1 and fault in found.faults[0], found.faults


def test_all_seeds_and_budgets_of_an_evaluation_are_known(tmp_path):
    write_evaluation(tmp_path, [arm("none", 0.5)], seeds=[0, 7], settings={"prompt.top_k": 3}, judge="qwen")
    (found,) = gather([tmp_path]).evaluations
    assert found.facts == {"questions": 50, "batch_size": "4", "judge": "qwen", "seed": "0, 7", "prompt.top_k": 3}


def test_episodes_of_two_data_sets_with_the_same_ids_are_of_different_questions(tmp_path):
    for dataset, question in (("a", "Which river?"), ("b", "Which capital?")):
        write_part(tmp_path, dataset, 0, "none", [False, False], question=question)
        write_part(tmp_path, dataset, 0, "full", [True, True], shown("e1-a"), question=question)
    found = gather([tmp_path])
    chosen = pairs(found.played, 10)
    assert len(chosen) == 4 and all(a.question == b.question for a, b in chosen)
    assert outcome(found.played)["questions"] == "4"
    assert uses_of(found.played)["e1-a"].credit.groups == 4


def test_rollouts_compare_where_they_differ_in_experience_alone(tmp_path):
    guided = trajectory(extra={"shown": shown("e1-a")})
    write_rollout(tmp_path / "without", [trajectory()])
    write_rollout(tmp_path / "with", [guided], hek="abc", arm="full", **{"prompt.top_k": 3, "tool": {"max_tokens": 80}})
    write_rollout(tmp_path / "hot", [guided], hek="abc", arm="full", temperature=1.0)
    scopes = {one.run: one.scope for one in gather([tmp_path]).played}
    assert scopes["without"] == scopes["with"] != scopes["hot"]


# ---- damage ------------------------------------------------------------------------------------------------------------


def test_a_torn_last_line_is_named_and_the_rest_is_read(tmp_path):
    write_training(tmp_path, {1: 0.1, 2: 0.2}, episodes=[dumped("q1", 1, True), dumped("q2", 1, True)])
    for path in (tmp_path / "metrics.jsonl", tmp_path / "dump" / "000001.jsonl"):
        path.write_bytes(path.read_bytes()[:-20])
    found = gather([tmp_path])
    assert list(found.trainings[0].steps) == [1] and len(found.played) == 1
    assert len(found.faults) == 2 and all("line 2: not JSON" in fault for fault in found.faults)


@given(content=st.binary(max_size=200))
def test_no_damage_of_one_run_stops_the_reading_of_another(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("run")
    write_training(folder / "good", {1: 0.1})
    write_training(folder / "bad", {1: 0.1}, episodes=[dumped("q1", 1, True)])
    write_state(folder / "bad", 1, "abc", {})
    write_evaluation(folder / "eval", [arm("none", 0.5)], [row("none", "q", True)])
    write_rollout(folder / "rollout", [trajectory()])
    for path in ("bad/metrics.jsonl", "bad/dump/000001.jsonl", "bad/global_step_1/hiexp/state.json", "eval/table.json", "eval/rows.jsonl"):
        (folder / path).write_bytes(content)
    (folder / "rollout" / MANIFEST).write_bytes(content)
    found = gather([folder])
    assert [run.name for run in found.trainings] == ["bad", "good"] and len(found.evaluations) == 1
    assert any("run.json is damaged" in fault for fault in found.faults)


@pytest.mark.parametrize("row", [{"step": 1, "data": 3}, {"step": "one", "data": {}}, {"step": None}], ids=str)
def test_a_line_of_metrics_of_wrong_types_is_a_fault(tmp_path, row):
    write_training(tmp_path, {1: 0.1})
    write_jsonl(tmp_path / "metrics.jsonl", [row])
    assert "1 of 1 lines cannot be read (line 1: " in gather([tmp_path]).faults[0]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [], "question_id": "q", "score": "x"},
        {"messages": [], "question_id": "q", "score": 1, "question": "?", "answers": ["a"], "correct": True, "extra": {"shown": [3]}},
    ],
    ids=["score", "shown"],
)
def test_an_episode_of_wrong_types_is_a_fault(tmp_path, row):
    write_rollout(tmp_path, [trajectory()])
    write_jsonl(tmp_path / "trajectories.jsonl", [row])
    assert "1 of 1 lines cannot be read" in gather([tmp_path]).faults[0]


def test_a_damaged_hek_is_a_fault(tmp_path):
    version = tree().save(tmp_path / "hek")
    write_training(tmp_path / "run", {1: 0.1})
    (version / "vectors.npy").write_bytes(b"")
    found = gather([tmp_path])
    assert found.heks == {} and len(found.faults) == 1
    (version / "header.json").write_text("{")
    (fault,) = gather([tmp_path]).faults
    assert "header.json is damaged" in fault


def test_a_file_that_a_finished_run_lacks_is_named(tmp_path):
    write_training(tmp_path, {1: 0.1})
    (tmp_path / "metrics.jsonl").unlink()
    found = gather([tmp_path])
    assert found.trainings[0].steps == {} and "metrics.jsonl does not exist, and" in found.faults[0]


def test_what_no_manifest_names_is_not_read(tmp_path):
    write_rollout(tmp_path / "rollout", [trajectory()])
    write_metrics(tmp_path / "metrics.jsonl", {1: 0.1})
    found = gather([tmp_path])
    assert not found.faults and not found.trainings


def test_a_packed_file_is_read(tmp_path):
    write_training(tmp_path, {1: 0.1})
    (tmp_path / "metrics.jsonl").write_bytes(gzip.compress((tmp_path / "metrics.jsonl").read_bytes()))
    assert list(gather([tmp_path]).trainings[0].steps) == [1]


def test_a_directory_without_runs_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(HiExpError, match=r"nothing to report in .*: no run\.json and no HEK; give"):
        gather([tmp_path])
    with pytest.raises(HiExpError, match="gone is not a directory"):
        gather([tmp_path / "gone"])
    (tmp_path / MANIFEST).write_text('{"kind": "tra')
    with pytest.raises(HiExpError, match=r"run\.json is damaged"):
        gather([tmp_path])


def test_a_file_that_two_runs_name_or_one_names_twice_is_read(tmp_path):
    episodes = [trajectory("q1", messages=({"role": "user", "content": "Who?"},))]
    write_rollout(tmp_path / "a", episodes)
    (tmp_path / "b").mkdir()
    Manifest(kind="rollout", spec={}, results={"episodes": ["../a/trajectories.jsonl"] * 2}).finish(tmp_path / "b")
    found = gather([tmp_path])
    assert len(found.played) == 2 and set(read_again(found.played)) == set(found.played)


def test_samples_are_of_many_questions_before_several_of_one(tmp_path):
    episodes = [dumped("q1", 1, True, sample=k) for k in range(3)] + [dumped("q2", 1, True), dumped("q3", 1, False), dumped("q1", 0, False)]
    write_training(tmp_path, {0: 0.1, 1: 0.1}, episodes=episodes)
    chosen = samples(gather([tmp_path]).played, 3)
    assert [(one.question[0], one.step, one.correct) for one in chosen] == [
        ("q1", 1, True),
        ("q2", 1, True),
        ("q1", 1, True),
        ("q3", 1, False),
    ]
