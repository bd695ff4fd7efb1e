"""`hiexp eval` from end to end, against a server that is made up."""

import json
import shutil

import pytest

from hiexp_verl.cli import main
from hiexp_verl.errors import HiExpError
from hiexp_verl.evaluate.plan import TABLE_JSON, TABLE_MD
from hiexp_verl.io.files import only_one
from hiexp_verl.io.manifest import MANIFEST, read_manifest
from hiexp_verl.rollout.policy import STATE
from tests.support.chat_server import completion, server
from tests.support.commands import refusal
from tests.support.verl_fixtures import write_corpus, write_hek

pytest.importorskip("openai")


def answering(request, number):
    """Search once, then answer."""
    searched = any(message["role"] == "tool" for message in request["messages"])
    return 200, completion("<answer>Kabul</answer>" if searched else "<search>highest point of a country</search>")


@pytest.fixture
def command(tmp_path):
    rows = [{"id": str(i), "question": f"Which capital, {i}?", "answer": "Kabul" if i else "Rome"} for i in range(3)]
    (tmp_path / "val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_corpus(tmp_path / "corpus.jsonl")
    write_hek(tmp_path / "hek")
    paths = {
        "--questions": tmp_path / "val.jsonl",
        "--corpus": tmp_path / "corpus.jsonl",
        "--hek": tmp_path / "hek",
        "--out": tmp_path / "out",
    }
    return ["eval", *(str(part) for pair in paths.items() for part in pair), "--arms", "none,full", "--alone", "0"]


def table(tmp_path, out="out"):
    return json.loads((tmp_path / out / TABLE_JSON).read_text())


def shown(tmp_path):
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    return [row["shown"] for row in rows if row["arm"] == "full"]


def test_budgets_bound_what_is_shown_and_are_kept(command, tmp_path, capsys):
    with server(answering) as (url, _):
        command += ["--model", url]
        assert main([*command, "--set", "prompt.top_k=2", "tool.max_tokens=0"]) == 0
        assert {len(each) for each in shown(tmp_path)} == {2}, "E2 and E3, no E1"
        settings = table(tmp_path)["settings"]
        assert (settings["prompt.top_k"], settings["prompt.max_tokens"], settings["tool.max_tokens"]) == (2, 448, 0)
        assert len(settings["hek"]) == 64 and "arm" not in settings
        assert "prompt: top 2, 448 tokens" in (tmp_path / "out" / TABLE_MD).read_text()
        assert "made with prompt.top_k = 2, now it is 1" in refusal([*command, "--resume"], capsys)
        assert main([*command, "--resume", "--set", "prompt.top_k=2", "--set", "hiexp.tool.max_tokens=0"]) == 0
        shutil.rmtree(tmp_path / "out")
        assert "did you mean 'top_k'?" in refusal([*command, "--set", "prompt.topk=1"], capsys)
        without = [part for part in command if part not in ("--hek", str(tmp_path / "hek"))]
        assert "--set limits what is shown of a HEK" in refusal([*without, "--arms", "none", "--set", "prompt.top_k=1"], capsys)
        assert not (tmp_path / "out").exists()


def test_a_rollout_has_budgets_and_a_policy_too(command, tmp_path):
    with server(answering) as (url, _):
        play = ["rollout", *command[1 : command.index("--arms")], "--k", "1", "--model", url]
        assert main([*play, "--set", "prompt.top_k=1", "tool.max_tokens=0"]) == 0
    settings = read_manifest(tmp_path / "out").spec
    assert (settings["policy"], settings["prompt.top_k"]) == (url, 1)
    episodes = [json.loads(line) for line in (tmp_path / "out" / "trajectories.jsonl").read_text().splitlines()]
    assert {len(episode["extra"]["shown"]) for episode in episodes} == {1}


def test_a_checkpoint_is_evaluated_with_the_budgets_of_its_training(command, tmp_path, capsys):
    actor = tmp_path / "run" / "checkpoints" / "global_step_3" / "actor"
    (actor / "huggingface").mkdir(parents=True)
    (actor.parent / STATE).parent.mkdir()
    (actor.parent / STATE).write_text(json.dumps({"identity": {"prompt": {"top_k": 3, "max_tokens": 160}}, "played": {}}))
    assert "has no weights" in refusal([*command, "--model", str(actor.parent)], capsys)
    from hiexp_verl.cli import build_parser
    from hiexp_verl.cli.evaluate import eval_spec

    spec = eval_spec(build_parser().parse_args([*command, "--model", str(actor.parent), "--set", "prompt.max_tokens=99"]))
    assert (spec.budgets.prompt.top_k, spec.budgets.prompt.max_tokens, spec.budgets.tool.top_k) == (3, 99, 1)


def test_two_servers_of_one_model_name_are_not_mixed(command, tmp_path, capsys):
    with server(answering) as (one, _), server(answering) as (other, asked):
        assert main([*command, "--model", one]) == 0
        assert table(tmp_path)["settings"]["policy"] == one
        text = refusal([*command, "--model", other, "--resume"], capsys)
        assert f"made with policy = '{one}', now it is '{other}'" in text and "--same-model if that is the same model elsewhere" in text
        assert not asked
        assert main([*command, "--model", other, "--resume", "--same-model"]) == 0
        for path in (tmp_path / "out").rglob(MANIFEST):
            manifest = read_manifest(path.parent)
            manifest.spec.pop("policy", None)
            manifest.write(path.parent)
        assert "was made with policy = None" in refusal([*command, "--model", other, "--resume"], capsys), "nobody knows which"


def test_the_table_names_the_judge_and_another_one_is_asked_anew(command, tmp_path, capsys):
    verdicts = {"kind": "Yes", "strict": "no"}

    def judging(request, number):
        return (200, completion(verdicts[request["model"]])) if request["model"] in verdicts else answering(request, number)

    with server(judging) as (url, asked):
        for model, share in (("kind", 1.0), ("strict", 0.0), ("kind", 1.0)):
            assert main([*command, "--model", url, "--resume", "--judge", f"{url}#{model}"]) == 0
            found = table(tmp_path)
            assert [line["judge"] for line in found["arms"]] == [share, share]
            assert (found["judge"], found["verdicts"], found["unreadable_verdicts"]) == (f"{model} ({url})", 3, 0)
            assert f"Judge: {model} ({url})." in (tmp_path / "out" / TABLE_MD).read_text()
        assert [sum(request["model"] == model for request in asked) for model in verdicts] == [3, 3]
        shutil.rmtree(tmp_path / "out")
        assert "is not a model directory" in refusal([*command, "--model", url, "--judge", str(tmp_path)], capsys)
        assert not list((tmp_path / "out").rglob("trajectories.jsonl")), "refused before anything is played"


def test_a_server_that_dies_in_the_replay_leaves_a_table(command, tmp_path, capsys):
    alone = [part if part != "0" or command[i - 1] != "--alone" else "3" for i, part in enumerate(command)]

    def dying(request, number):
        return answering(request, number) if number <= limit else (401, {"error": "gone"})

    limit = 0
    with server(dying) as (url, asked):
        limit = 10**6
        assert main([*command, "--model", url]) == 0
        episodes, limit = len(asked), len(asked) * 2 + 1
        shutil.rmtree(tmp_path / "out")
        text = refusal([*alone, "--model", url], capsys)
        assert "the table is written, --resume goes on with the replay (--alone 3)" in text
        assert "replayed" not in table(tmp_path)
        limit = 10**6
        assert main([*alone, "--model", url, "--resume"]) == 0
        assert table(tmp_path)["replayed"] == 3 and episodes


@pytest.mark.parametrize("name", ["policy", "all", "rows.jsonl", "table.json"])
def test_names_that_mean_something_else_are_no_data_sets(command, tmp_path, capsys, name):
    questions = (tmp_path / "val.jsonl").rename(tmp_path / f"{name}.jsonl")
    arguments = [str(questions) if part.endswith("val.jsonl") else part for part in command]
    assert f"the name '{name}' is taken" in refusal([*arguments, "--model", "http://127.0.0.1:9/v1"], capsys)


@pytest.mark.parametrize("verb", ["eval", "rollout"])
def test_a_directory_that_cannot_be_made_is_one_line(command, tmp_path, capsys, verb):
    (tmp_path / "file").touch()
    arguments = [verb, *command[1:]] if verb == "eval" else ["rollout", *command[1 : command.index("--arms")]]
    for out in ("/proc/nowhere", str(tmp_path / "file" / "below")):
        with server(answering) as (url, asked):
            assert f"the directory {out} cannot be created" in refusal([*arguments, "--model", url, "--out", out], capsys)
            assert not asked


def test_a_judge_that_fails_leaves_the_table_without_it(command, tmp_path, capsys):
    def judging(request, number):
        return (200, completion("Well ...")) if request["model"] == "mute" else answering(request, number)

    with server(judging) as (url, _):
        assert "neither yes nor no" in refusal([*command, "--model", url, "--judge", f"{url}#mute"], capsys)
    assert [line["arm"] for line in table(tmp_path)["arms"]] == ["none", "full"]


@pytest.mark.parametrize(("option", "value"), [("--temperature", "-1"), ("--temperature", "nan"), ("--top-p", "7"), ("--alone", "-1")])
def test_numbers_out_of_range_are_refused(command, capsys, option, value):
    assert f"{option} must be" in refusal([*command, "--model", "http://127.0.0.1:9/v1", option, value], capsys)


def test_a_server_that_stops_says_what_is_kept(command, tmp_path, capsys):
    def stopping(request, number):
        return answering(request, number) if number < 5 else (401, {"error": {"message": "no more"}})

    with server(stopping) as (url, _):
        text = refusal([*command, "--model", url, "--batch-size", "1"], capsys)
    assert "episodes are kept in" in text and "--resume goes on" in text


def test_half_a_character_in_a_reply_of_the_judge_ends_nothing(command, tmp_path):
    def answers(request, number):
        if request["model"] == "judge":
            return 200, json.dumps(completion("no \ud83d"))
        return answering(request, number)

    with server(answers) as (url, _):
        assert main([*command, "--model", f"{url}#m", "--judge", f"{url}#judge"]) == 0
    assert "no ?" in (tmp_path / "out" / "verdicts.jsonl").read_text(encoding="utf-8")


def test_the_folder_is_held_while_the_judge_is_asked(command, tmp_path, monkeypatch):
    refused = []

    def judge(*_):
        with pytest.raises(HiExpError, match="another run") as error, only_one(tmp_path / "out"):
            pass
        refused.append(error)
        return {}

    monkeypatch.setattr("hiexp_verl.evaluate.evaluate.judge", judge)
    with server(answering) as (url, _):
        assert main([*command, "--model", url, "--judge", f"{url}#judge"]) == 0
    assert len(refused) == 1
