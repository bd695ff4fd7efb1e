"""`hiexp rollout` checks what it can before a model is loaded; `--by verl` says what it cannot do."""

import json

import pytest

from hiexp_verl.cli import main
from hiexp_verl.run import verl_rollout


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


def refusal(arguments, capsys):
    assert main(arguments) == 2
    text = capsys.readouterr().err.strip().splitlines()[-1]
    assert text.startswith("hiexp: ")
    return text


@pytest.mark.parametrize("option", ["--limit", "--k", "--max-tokens", "--top-k", "--max-model-len"])
def test_a_number_that_means_nothing_is_refused(arguments, capsys, option):
    assert f"{option} must be at least 1, found 0" in refusal([*arguments, option, "0"], capsys)


def test_a_prompt_that_does_not_fit_is_refused_before_the_model_is_served(arguments, capsys, tmp_path):
    pytest.importorskip("transformers")
    from tests.verl_fixtures import tiny_tokenizer

    tiny_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 200}')
    text = refusal([*arguments, "--max-tokens", "64"], capsys)
    assert "the prompt of question 1 has" in text and "room for 136" in text and "raise --max-model-len" in text


def test_by_verl_cannot_resume(arguments, capsys, tmp_path):
    (tmp_path / "model").mkdir()
    assert "cannot resume" in refusal([*arguments, "--by", "verl", "--resume"], capsys)


def test_the_refusal_of_the_check_before_the_run_is_found_in_verl_s_log(tmp_path):
    log = tmp_path / "verl.log"
    log.write_text("noise\nhiexp: the corpus is empty; add passages\nmore noise\n")
    assert verl_rollout._refusal(log) == "the corpus is empty; add passages"
    log.write_text("noise\n")
    assert verl_rollout._refusal(log) == ""
