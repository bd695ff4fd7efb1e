"""The benchmark of real questions plays today's defaults, greedily and at temperature 1, and tells both apart in what it writes."""

import gzip
import json
import sys

import pytest

from benchmarks import _results, effect
from hiexp_verl.cli import build_parser
from hiexp_verl.evaluate.plan import ROWS, TABLE_JSON
from hiexp_verl.evaluate.tables import pairs_of, table_of
from hiexp_verl.io.datasets import read_questions

FIGURES = ("em", "f1", "cem", "format", "searches", "failed_searches", "lookup_failures", "tokens", "experience_tokens")
SETTINGS = {"questions": 2, "settings": {"model": "m", "temperature": 0.0}, "seconds": 1.0, "batch_size": "64"}


def played(command):
    """Stand in for a command of ours: write what a later step reads. Full is right where the HEK is of hotpotqa."""
    verb, options = command[0], build_parser().parse_args(command)
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    if verb == "rollout":
        (out / "summary.json").write_text(json.dumps({"episodes": 600, "k": options.k, "correct": 0.25}))
    elif verb == "build":
        (out / "CURRENT").write_text("v1")
    else:
        own = "hotpotqa" in options.hek.parent.name
        asked = {"dataset": "val", "shown": [], "question": "Whose?"} | dict.fromkeys(FIGURES, 0.0)
        rows = [
            {**asked, "arm": arm, "seed": seed, "id": id, "concise": float(arm == "full" and own)}
            for arm in options.arms.split(",")
            for seed in options.seed
            for id in ("a", "b")
        ]
        lines = [{**line, "seconds": 1.0} for line in table_of(rows)]
        (out / TABLE_JSON).write_text(json.dumps({**SETTINGS, "seeds": options.seed, "arms": lines, "pairs": pairs_of(rows)}))
        (out / ROWS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return verb, options


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs the benchmark without a model and returns its commands."""
    questions = [
        {"id": f"{name}-{n}", "dataset": name, "question": "?", "answer": "x"} for name in ("hotpotqa", "2wiki") for n in range(300)
    ]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    monkeypatch.setattr(_results, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()

    def of(*options):
        commands = []
        monkeypatch.setattr(effect, "hiexp", lambda *command: commands.append(played(command)))
        monkeypatch.setattr(sys, "argv", ["effect", "--data", str(tmp_path), "--out", str(tmp_path / "out"), *options])
        effect.main()
        return commands

    return of


def test_every_arm_is_played_greedily_and_twice_at_temperature_1_with_todays_defaults(run):
    commands = run("--other-set", "2wiki")
    assert [verb for verb, _ in commands] == ["rollout", "build"] * 2 + ["eval"] * 4, "the other set's HEK is made, too"
    evaluations = [options for verb, options in commands if verb == "eval"]
    played_as = [(o.arms, o.temperature, o.seed, o.hek.parent.name) for o in evaluations]
    own, other, arms = "hotpotqa_qwen-1.5b", "2wiki_qwen-1.5b", "none,full,random,shuffled"
    assert played_as[:2] == [(arms, 0.0, [0], own), ("full", 0.0, [0], other)]
    assert played_as[2:] == [(arms, 1.0, [0, 1], own), ("full", 1.0, [0, 1], other)]
    assert all((options.set, options.batch_size) == (["tool.match=query"], 64) for options in evaluations)
    *_, as_paper = (options for verb, options in run("--samples", "0", "--paper"))
    assert (as_paper.arms, as_paper.set, as_paper.hek.parent.name) == ("full", ["tool.match=query", *effect.PAPER], own)
    asked = [question.id for question in read_questions(evaluations[0].questions[0])]
    assert (len(asked), asked[0], asked[-1]) == (150, "hotpotqa-150", "hotpotqa-299"), "questions that no rollout had"


def test_both_temperatures_and_the_other_set_stand_apart_under_a_name_of_their_own(run, tmp_path):
    run("--other-set", "2wiki")
    name = "effect_hotpotqa_qwen-1.5b_plans"
    assert {path.name for path in (tmp_path / "results").iterdir()} == {f"{name}.{end}" for end in ("json", "md", "rows.jsonl.gz")}
    tables = json.loads((tmp_path / "results" / f"{name}.json").read_text())["tables"]
    right = {part: {line["arm"]: (line["episodes"], line["concise"]) for line in table["arms"]} for part, table in tables.items()}
    arms = {"none": 0.0, "full": 1.0, "random": 0.0, "shuffled": 0.0, "full, of another set": 0.0}
    assert right == {"Greedy": {a: (2, v) for a, v in arms.items()}, "Temperature 1": {a: (4, v) for a, v in arms.items()}}
    with gzip.open(tmp_path / "results" / f"{name}.rows.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    assert [sum(row["part"] == part for row in rows) for part in tables] == [10, 20] and not any("question" in row for row in rows)


def test_without_samples_it_is_greedy_alone_and_made_once(run):
    assert [verb for verb, _ in run("--samples", "0")] == ["rollout", "build", "eval"]
    assert [verb for verb, _ in run("--samples", "1", "--name", "again")] == ["eval", "eval"]


def test_a_set_without_enough_questions_is_named(run):
    with pytest.raises(SystemExit, match="has 0 questions of '2wikimultihopqa'; 300 are needed"):
        run("--set", "2wikimultihopqa")
