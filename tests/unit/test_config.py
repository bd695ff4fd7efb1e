"""The `hiexp:` block: defaults, types, and errors that name the nearest right key."""

import pytest

from hiexp_verl.config import HiExpConfig, parse_config
from hiexp_verl.errors import HiExpError


def test_an_empty_block_is_the_defaults():
    assert parse_config({}) == HiExpConfig()


def test_the_paper_s_retrieval_counts_are_the_defaults():
    config = parse_config({})
    assert (config.start.top_k, config.step.top_k) == (5, 1)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"hekk": "x"}, "unknown setting hiexp.hekk; did you mean 'hek'?"),
        ({"step": {"min_scor": 0.5}}, "unknown setting hiexp.step.min_scor; did you mean 'min_score'?"),
        ({"search": {"engin": "bm25"}}, "unknown setting hiexp.search.engin; did you mean 'engine'?"),
        ({"search": {"engine": "bm52"}}, "hiexp.search.engine must be one of bm25, dense, http, found 'bm52'"),
        ({"reward": {"kind": "bleu"}}, "hiexp.reward.kind must be one of default, em, f1, cem, found 'bleu'"),
        ({"enabled": "yes"}, "hiexp.enabled must be bool, found 'yes'"),
        ({"start": {"top_k": True}}, "hiexp.start.top_k must be int, found True"),
        ({"start": {"top_k": 0}}, "hiexp.start.top_k must be at least 1, found 0"),
        ({"start": {"max_tokens": -1}}, "hiexp.start.max_tokens must be at least 0, found -1"),
        ({"search": {"retries": -1}}, "hiexp.search.retries must be at least 0, found -1"),
        ({"search": {"timeout": float("nan")}}, "hiexp.search.timeout must be at least 0.001, found nan"),
        ({"start": {"min_score": float("nan")}}, "hiexp.start.min_score must be finite, found nan"),
        ({"step": {"min_score": float("inf")}}, "hiexp.step.min_score must be finite, found inf"),
        ({"expect": {"lookup_failures": 2}}, "hiexp.expect.lookup_failures must be at most 1, found 2.0"),
        ({"alarms": {"reward": True}}, "hiexp.alarms.reward must be str, found True"),
        ({"reward": {"kind": False}}, "hiexp.reward.kind must be str, found False"),
        ({"max_tokens_per_turn": 0}, "hiexp.max_tokens_per_turn must be at least 1, found 0"),
        ({"step": {"min_score": "high"}}, "hiexp.step.min_score must be float or null, found 'high'"),
        ({"step": 3}, "hiexp.step must be a block of settings, found 3"),
    ],
)
def test_a_wrong_setting_is_one_line_that_says_what_to_do(block, message):
    with pytest.raises(HiExpError) as error:
        parse_config(block)
    assert str(error.value) == message


def test_a_key_unlike_any_other_lists_the_known_ones():
    with pytest.raises(HiExpError, match="known here: kind"):
        parse_config({"reward": {"zzzzzz": 1}})


def test_an_integer_is_accepted_where_a_float_is_meant():
    assert parse_config({"step": {"min_score": 1}}).step.min_score == 1.0


def test_a_bare_off_of_a_yaml_file_is_off():
    config = parse_config({"alarms": {"reward": False, "length": "stop", "entropy": "off"}}).alarms  # YAML 1.1 reads off as false
    assert (config.reward, config.length, config.entropy) == ("off", "stop", "off")


def test_a_tilde_in_a_path_is_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    config = parse_config({"hek": "~/hek", "search": {"corpus": "~/corpus.jsonl"}})
    assert (config.hek, config.search.corpus) == ("/home/me/hek", "/home/me/corpus.jsonl")
