"""`hiexp rollout` checks what it can before a model is loaded; `--by verl` says what it cannot do."""

import json
from pathlib import Path

import numpy as np
import pytest

from hiexp_verl.cli import build_parser, main
from hiexp_verl.cli.rollout import rollout_spec
from hiexp_verl.io.datasets import read_trajectories
from hiexp_verl.io.files import only_one
from hiexp_verl.models.vllm_process import check_model_dir
from hiexp_verl.plugin import verl_rollout
from hiexp_verl.search.http import write_reply
from hiexp_verl.types import Passage
from tests.support.chat_server import completion, server
from tests.support.commands import refusal


@pytest.fixture
def arguments(tmp_path):
    (tmp_path / "q.jsonl").write_text(json.dumps({"id": "1", "question": "Who? " * 50, "answer": "me"}) + "\n")
    (tmp_path / "c.jsonl").write_text(json.dumps({"id": "1", "title": "T", "text": "text"}) + "\n")
    paths = {
        "--questions": tmp_path / "q.jsonl",
        "--corpus": tmp_path / "c.jsonl",
        "--model": tmp_path / "model",
        "--out": tmp_path / "out",
    }
    return ["rollout", *(str(part) for pair in paths.items() for part in pair)]


@pytest.mark.parametrize("option", ["--limit", "--k", "--max-tokens", "--top-k", "--max-model-len"])
def test_a_number_that_means_nothing_is_refused(arguments, capsys, option):
    assert f"{option} must be at least 1, found 0" in refusal([*arguments, option, "0"], capsys)


def test_a_prompt_that_does_not_fit_is_refused_before_the_model_is_served(arguments, capsys, tmp_path):
    pytest.importorskip("transformers")
    from tests.support.verl_fixtures import tiny_tokenizer

    tiny_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 200}')
    text = refusal([*arguments, "--max-tokens", "64"], capsys)
    assert "the prompt of question 1 has" in text and "room for 136" in text and "raise --max-model-len" in text


@pytest.mark.parametrize("by", ["server", "verl"])
def test_a_directory_that_holds_no_model_is_refused(arguments, capsys, tmp_path, by):
    (tmp_path / "model").mkdir()
    assert f"model {tmp_path / 'model'} is not a model directory: found no config.json" in refusal([*arguments, "--by", by], capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("by", ["server", "verl"])
def test_a_second_run_merges_no_shards_into_the_folder_of_the_first(arguments, capsys, tmp_path, monkeypatch, by):
    monkeypatch.setattr("hiexp_verl.rollout.policy._merge", lambda *_: pytest.fail("merged into the folder of a running rollout"))
    (tmp_path / "model" / "actor" / "huggingface").mkdir(parents=True)
    (tmp_path / "model" / "actor" / "model_world_size_1_rank_0.pt").write_text("shard")
    with only_one(tmp_path / "out"):
        assert "another run" in refusal([*arguments, "--by", by], capsys)


def test_what_a_killed_rollout_by_verl_left_is_cleared(arguments, capsys, tmp_path, monkeypatch):
    (tmp_path / "out" / ".verl-killed" / "dump").mkdir(parents=True)
    monkeypatch.setattr("hiexp_verl.plugin.verl_rollout.check_model_dir", lambda _: None)
    monkeypatch.setattr("hiexp_verl.plugin.verl_rollout.trainer_command", lambda *_, **__: (["false"], {}))
    (tmp_path / "model").mkdir()
    assert "verl ended with code 1" in refusal([*arguments, "--by", "verl"], capsys)
    assert not list((tmp_path / "out").glob(".verl-*"))


def test_a_policy_whose_adapters_were_not_merged_is_refused(arguments, capsys, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    weight = {"model.norm.weight": np.zeros(2, dtype=np.float32)}
    safetensors.save_file(weight, model / "model.safetensors")
    check_model_dir(model)
    adapters = {"base_model.model.model.layers.0.mlp.up_proj.lora_A.default.weight": np.zeros(2, dtype=np.float32)}
    safetensors.save_file({f"base_model.model.{name}": array for name, array in weight.items()} | adapters, model / "model.safetensors")
    assert "keeps LoRA adapters beside the weights; merge them" in refusal(arguments, capsys)
    (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:50])
    assert "model.safetensors is damaged" in refusal(arguments, capsys)


def test_by_verl_cannot_resume(arguments, capsys, tmp_path):
    (tmp_path / "model").mkdir()
    assert "cannot resume" in refusal([*arguments, "--by", "verl", "--resume"], capsys)


def test_the_refusal_of_the_check_before_the_run_is_found_in_verl_s_log(tmp_path):
    log = tmp_path / "verl.log"
    log.write_text("noise\nhiexp: the corpus is empty; add passages\nmore noise\n")
    assert verl_rollout._refusal(log) == "the corpus is empty; add passages"
    log.write_text("noise\n")
    assert verl_rollout._refusal(log) == ""


def answering(request, number):
    """A model server and a retrieval server in one: searches once, then answers."""
    if "queries" in request:
        return 200, write_reply([[(Passage("7", "Served", "from elsewhere"), 1.0)] for _ in request["queries"]])
    searched = any(message["role"] == "tool" for message in request["messages"])
    return 200, completion("<answer>me</answer>" if searched else "<search>blue whale</search>")


@pytest.mark.parametrize(
    ("options", "title"),
    [
        (["--corpus", "CORPUS"], "Whales"),
        (["--corpus", "CORPUS", "--search", "dense", "--search-encoder", "hash:64"], "Whales"),
        (["--corpus", "CORPUS", "--search", "dense", "--encoder", "hash:64"], "Whales"),
        (["--search", "http", "--search-url", "URL"], "Served"),
    ],
)
def test_episodes_search_where_training_would(tmp_path, monkeypatch, options, title):
    pytest.importorskip("openai")
    monkeypatch.setenv("HIEXP_CACHE", str(tmp_path / "cache"))
    questions, corpus, out = tmp_path / "q.jsonl", tmp_path / "c.jsonl", tmp_path / "out"
    questions.write_text(json.dumps({"id": "1", "question": "Who?", "answer": "me"}) + "\n")
    passages = [("Bread", "Bread is a food."), ("Whales", "The blue whale is the largest animal.")]
    corpus.write_text("".join(json.dumps({"id": str(i), "title": t, "text": x}) + "\n" for i, (t, x) in enumerate(passages)))
    with server(answering) as (url, _):
        places = {"CORPUS": str(corpus), "URL": url.replace("/v1", "/retrieve")}
        where = [places.get(option, option) for option in options]
        play = ["rollout", "--questions", str(questions), "--model", url, "--k", "1", "--top-k", "1", "--out", str(out)]
        assert main([*play, *where]) == 0
        (episode,) = read_trajectories(out / "trajectories.jsonl")
        assert f'Doc 1(Title: "{title}")' in episode.messages[3]["content"]
        assert main([*play, *where, "--resume"]) == 0
        elsewhere = ["--search", "dense", "--search-encoder", "hash:32", "--corpus", str(corpus)]
        assert main([*play, *elsewhere, "--resume"]) == 2, "what was found by another search is not mixed in"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--search bm25 needs --corpus"),
        (["--search", "dense"], "--search dense needs --corpus"),
        (["--search", "dense", "--corpus", "c"], "give --search-encoder"),
        (["--search", "http"], "give its address as --search-url"),
        (["--search", "http", "--search-url", "http://127.0.0.1:9/retrieve", "--corpus", "c"], "and no --corpus"),
        (["--corpus", "c", "--search-url", "http://127.0.0.1:9"], "--search-url is for --search http"),
        (["--corpus", "c", "--search-encoder", "hash:64"], "--search-encoder is for --search dense"),
        (["--corpus", "http://h:8/retrieve"], "give it as --search http --search-url http://h:8/retrieve"),
        (["--search", "http", "--search-url", "http://127.0.0.1:9/retrieve"], "start it or correct --search-url"),
        (["--corpus", "/nowhere.jsonl"], "corpus /nowhere.jsonl does not exist"),
    ],
)
def test_a_search_that_cannot_work_is_refused_before_the_model_is_asked(tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    (tmp_path / "q.jsonl").write_text(json.dumps({"id": "1", "question": "Who?", "answer": "me"}) + "\n")
    model = "http://127.0.0.1:9/v1"
    arguments = ["rollout", "--questions", str(tmp_path / "q.jsonl"), "--model", model, "--out", str(tmp_path / "out"), *options]
    assert message in refusal(arguments, capsys)


def test_verl_is_told_to_search_in_the_same_way():
    options = ["--questions", "q", "--model", "m", "--out", "o", "--search", "dense", "--corpus", "c", "--search-encoder", "hash:64"]
    arguments = build_parser().parse_args(["rollout", *options])
    overrides = verl_rollout._overrides(rollout_spec(arguments), Path("q"), Path("d"))
    found = [o for o in overrides if o.startswith("hiexp.search.") and "top_k" not in o and "max_" not in o]
    assert found == ["hiexp.search.engine=dense", "hiexp.search.corpus=c", "hiexp.search.encoder=hash:64"]
    assert not any(o.startswith("hiexp.max_tokens_per_turn") for o in overrides), "without a HEK turns are verl's own"


def test_verl_shows_a_hek_of_another_domain_where_it_is_asked_for():
    options = ["--questions", "q", "--model", "m", "--out", "o", "--corpus", "c", "--hek", "h", "--other-domain"]
    overrides = verl_rollout._overrides(rollout_spec(build_parser().parse_args(["rollout", *options])), Path("q"), Path("d"))
    assert [o for o in overrides if "domain" in o] == ["hiexp.other_domain=true"]


def test_verl_is_told_the_budgets(tmp_path):
    options = ["--questions", "q", "--model", "m", "--out", "o", "--corpus", "c", "--hek", "h", "--set", "prompt.top_k=3"]
    arguments = build_parser().parse_args(["rollout", *options])
    overrides = verl_rollout._overrides(rollout_spec(arguments), Path("q"), Path("d"))
    assert {"hiexp.prompt.top_k=3", "hiexp.prompt.max_tokens=448", "hiexp.tool.min_score=null", "hiexp.search.max_chars=3600"} <= set(
        overrides
    )
