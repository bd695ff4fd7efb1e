"""The benchmark of real questions plays today's defaults, greedily and at temperature 1, and tells both apart in what it writes."""

import gzip
import json
import sys

import pytest

from benchmarks import _results, effect, evolve_real
from hiexp_verl.cli import build_parser
from hiexp_verl.evaluate.plan import ROWS, TABLE_JSON
from hiexp_verl.evaluate.tables import pairs_of, table_of
from hiexp_verl.evolve.table import TABLE_MD
from hiexp_verl.io.datasets import read_jsonl, read_questions
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.io.manifest import MANIFEST, Manifest, now
from hiexp_verl.rollout.rollout import TRAJECTORIES

FIGURES = ("em", "f1", "cem", "format", "searches", "failed_searches", "lookup_failures", "tokens", "experience_tokens")
SETTINGS = {"questions": 2, "settings": {"model": "m", "temperature": 0.0}, "seconds": 1.0, "batch_size": "64"}


def played(command):
    """Stand in for a command of ours: write what a later step reads. Full is right where the HEK is of hotpotqa, or has evolved."""
    verb, options = command[0], build_parser().parse_args(command)
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    if verb == "rollout":
        (out / "summary.json").write_text(json.dumps({"episodes": 600, "k": options.k, "correct": 0.25}))
    elif verb == "build":
        (out / "CURRENT").write_text("v1")
    elif verb == "evolve":
        (out / "table.json").write_text(json.dumps({"rounds": [{"rollouts": 90}, {"rollouts": 60}]}))
        (out / TABLE_MD).write_text("Two rounds.\n")
        (out / MANIFEST).write_text(Manifest(kind="evolution", spec={}, finished=now()).model_dump_json())
    else:
        own = "hotpotqa" in options.hek.parent.name or options.hek.parent.name == "evolution"
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
    assert {path.name for path in (tmp_path / "results").iterdir()} == {f"{name}.{end}" for end in ("json", "md", "rows.jsonl.gz", "svg")}
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


def test_an_evolution_gets_the_rollouts_of_the_static_hek_and_is_played_beside_it(run, tmp_path, monkeypatch):
    run("--set", "2wiki", "--samples", "0", "--distiller", "rules")
    begun = tmp_path / "out" / "2wiki_qwen-1.5b"
    write_jsonl(begun / "rollouts" / TRAJECTORIES, [{"question_id": f"2wiki-{n}"} for n in range(150) for _ in range(4)])
    commands = []
    monkeypatch.setattr(effect, "hiexp", lambda *command: commands.append(played(command)))
    options = ["--data", str(tmp_path), "--effect", str(tmp_path / "out"), "--out", str(tmp_path / "evolved")]
    monkeypatch.setattr(sys, "argv", ["evolve_real", *options])
    evolve_real.main()
    assert [verb for verb, _ in commands] == ["build", "build", "evolve", "eval", "eval", "eval"]
    static, start, evolution, *evaluations = (options for _, options in commands)
    assert [len(list(read_jsonl(each.trajectories[0], "rows"))) for each in (static, start)] == [600, 200]
    asked = [question.id for question in read_questions(evolution.questions)]
    assert (len(asked), asked[0], evolution.budget_rollouts) == (100, "2wiki-50", 400), "questions and rollouts that the start has not had"
    assert all(each.set == ["tool.match=kind"] and each.temperature == 0.0 for each in evaluations)
    found = json.loads((tmp_path / "results" / "evolve_2wiki_qwen-1.5b.json").read_text())
    assert {line["arm"]: line["concise"] for line in found["table"]["arms"]} == {"none": 0.0, "start": 0.0, "static": 0.0, "evolved": 1.0}
    text = (tmp_path / "results" / "evolve_2wiki_qwen-1.5b.md").read_text()
    assert "Static: 600 rollouts. Evolved: 200 for the first HEK, 150 of the evolution." in text and "Two rounds." in text
    evolve_real.main()
    assert [verb for verb, _ in commands[6:]] == ["eval", "eval", "eval"], "what is made is made once"
