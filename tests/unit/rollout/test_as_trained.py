"""A checkpoint is played as in its training, unless one asks for something else."""

import argparse
import json
import logging

import pytest

from hiexp_verl.cli import build_parser
from hiexp_verl.errors import HiExpError
from hiexp_verl.io.files import fingerprint
from hiexp_verl.rollout.as_trained import DEFAULTS, as_trained
from hiexp_verl.rollout.policy import STATE
from tests.support.heks import tree

TURNS = "actor_rollout_ref.rollout.multi_turn"
TRAINED = {
    f"{TURNS}.format": "hermes",
    f"{TURNS}.max_assistant_turns": 4,
    "search": {"engine": "bm25", "top_k": 2, "max_words_per_passage": 32, "max_chars": 1200},
    "max_tokens_per_turn": 96,
}


def checkpoint(folder, identity, **more):
    state = folder / "global_step_3" / STATE
    (state.parent.parent / "actor" / "huggingface").mkdir(parents=True, exist_ok=True)
    state.parent.mkdir(exist_ok=True)
    state.write_text(json.dumps({"identity": identity, "played": {}, **more}))
    return str(folder / "global_step_3")


def parsed(model, *options):
    arguments = build_parser().parse_args(["rollout", "--questions", "q", "--corpus", "c", "--out", "o", "--model", model, *options])
    return argparse.Namespace(**as_trained(arguments.model, vars(arguments)))


def test_what_is_not_asked_for_is_as_in_training(tmp_path, caplog):
    model = checkpoint(tmp_path, TRAINED)
    with caplog.at_level(logging.INFO):
        found = parsed(model, "--max-searches", "5")
    assert (found.format, found.top_k, found.max_words, found.max_chars, found.max_tokens) == ("hermes", 2, 32, 1200, 96)
    assert found.max_searches == 5
    assert f"not those of the training of {model}: --max-searches 5, in training --max-searches 3" in caplog.text
    assert "--format hermes, --max-tokens 96" in caplog.text


@pytest.mark.parametrize("identity", [{"enabled": False, "seed": 0}, {f"{TURNS}.format": "gpt-oss", f"{TURNS}.max_assistant_turns": None}])
def test_what_training_does_not_say_is_as_usual(tmp_path, identity):
    for model in (checkpoint(tmp_path, identity), str(tmp_path / "a-model"), "http://localhost:8000/v1"):
        found = parsed(model)
        assert {option: getattr(found, option) for option in DEFAULTS} == DEFAULTS


def test_a_training_without_hiexp_is_played_in_its_own_format_and_turns(tmp_path, caplog):
    played = {**TRAINED, "max_tokens_per_turn": None}
    found = parsed(checkpoint(tmp_path, {"enabled": False, "seed": 0}, played=played))
    assert (found.format, found.max_searches, found.top_k, found.max_tokens) == ("hermes", 3, 2, DEFAULTS["max_tokens"])
    assert "was trained without a limit per turn, and is played with --max-tokens 128" in caplog.text
    caplog.clear()
    assert parsed(checkpoint(tmp_path, {"enabled": False}, played=played), "--max-tokens", "512").max_tokens == 512
    assert "without a limit" not in caplog.text


def test_another_corpus_or_hek_is_told(tmp_path, caplog):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("{}\n")
    tree().save(tmp_path / "hek")
    same = {**TRAINED, "search.corpus": fingerprint(corpus), "hek": None}
    told = ["--corpus", str(corpus), "--hek", str(tmp_path / "hek")]
    parsed(checkpoint(tmp_path, same), *told)
    assert "trained with another" not in caplog.text
    parsed(checkpoint(tmp_path, {**same, "hek": "0" * 64, "arm": "none"}), *told)
    assert "trained with another" not in caplog.text, "it was shown nothing"
    parsed(checkpoint(tmp_path, {**same, "search.corpus": "1234", "hek": "0" * 64, "arm": "full"}), *told)
    parsed(checkpoint(tmp_path, {"search": {"engine": "dense"}}))
    assert "was trained with --search dense, and is played with bm25" in caplog.text
    assert f"another corpus than {corpus}" in caplog.text and "another HEK (000000000000)" in caplog.text


def test_a_damaged_state_is_told(tmp_path):
    model = checkpoint(tmp_path, 3)
    with pytest.raises(HiExpError, match="is damaged"):
        parsed(model)


@pytest.mark.parametrize(
    "identity",
    [
        {"search": [1]},
        {"search": {"top_k": "x"}},
        {f"{TURNS}.max_assistant_turns": "x"},
        {"max_tokens_per_turn": 10**400},
        {"max_tokens_per_turn": 1.5},
    ],
)
def test_a_state_with_values_of_wrong_types_is_damaged(tmp_path, identity):
    with pytest.raises(HiExpError, match=r"state.json is damaged"):
        parsed(checkpoint(tmp_path, identity))


def test_a_marker_that_is_no_text_names_no_checkpoint(tmp_path):
    (tmp_path / "latest_checkpointed_iteration.txt").write_bytes(b"\xff\xfe" * 300)
    assert {option: getattr(parsed(str(tmp_path)), option) for option in DEFAULTS} == DEFAULTS
