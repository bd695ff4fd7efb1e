"""The `hiexp:` block: defaults, types, and errors that name the nearest right key."""

from dataclasses import replace
from pathlib import Path

import pytest

from hiexp_verl.config import ARMS, Budgets, HiExpConfig, PromptConfig, SearchConfig, ToolConfig, parse_config
from hiexp_verl.errors import HiExpError


def test_an_empty_block_is_the_defaults():
    assert parse_config({}) == HiExpConfig()


def test_one_entry_is_shown_at_each_place_by_default():
    config = parse_config({})
    assert (config.prompt.top_k, config.tool.top_k) == (1, 1)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"hekk": "x"}, "unknown setting hiexp.hekk; did you mean 'hek'?"),
        ({"tool": {"min_scor": 0.5}}, "unknown setting hiexp.tool.min_scor; did you mean 'min_score'?"),
        ({"search": {"engin": "bm25"}}, "unknown setting hiexp.search.engin; did you mean 'engine'?"),
        ({"search": {"engine": "bm52"}}, "hiexp.search.engine must be one of bm25, dense, http, found 'bm52'"),
        ({"reward": {"kind": "bleu"}}, "hiexp.reward.kind must be one of concise, pvpo, em, f1, cem, found 'bleu'"),
        ({"enabled": "yes"}, "hiexp.enabled must be true or false, found 'yes'"),
        ({"prompt": {"top_k": True}}, "hiexp.prompt.top_k must be a whole number, found True"),
        ({"prompt": {"top_k": 0}}, "hiexp.prompt.top_k must be at least 1, found 0"),
        ({"prompt": {"max_tokens": -1}}, "hiexp.prompt.max_tokens must be at least 0, found -1"),
        ({"search": {"retries": -1}}, "hiexp.search.retries must be at least 0, found -1"),
        ({"search": {"timeout": float("nan")}}, "hiexp.search.timeout must be finite, found nan"),
        ({"prompt": {"min_score": float("nan")}}, "hiexp.prompt.min_score must be finite, found nan"),
        ({"tool": {"min_score": float("inf")}}, "hiexp.tool.min_score must be finite, found inf"),
        ({"expect": {"lookup_failures": 2}}, "hiexp.expect.lookup_failures must be at most 1, found 2"),
        ({"alarms": {"reward": True}}, "hiexp.alarms.reward must be one of off, warn, stop, found True"),
        ({"reward": {"kind": False}}, "hiexp.reward.kind must be one of concise, pvpo, em, f1, cem, found False"),
        ({"max_tokens_per_turn": 0}, "hiexp.max_tokens_per_turn must be at least 1, found 0"),
        ({"tool": {"min_score": "high"}}, "hiexp.tool.min_score must be a number, found 'high'"),
        ({"start": {"top_k": 3}}, "unknown setting hiexp.start; it is called prompt now"),
        ({"expect": {"step": False}}, "unknown setting hiexp.expect.step; it is called tool now"),
        (
            {"group": {"stratified": True}},
            "unknown setting hiexp.group.stratified; it is called arms, e.g. hiexp.group.arms=[none,prompt,tool,full] now",
        ),
        ({"group": {"arms": ["full", "half"]}}, f"hiexp.group.arms must be one of {', '.join(ARMS)}, found 'half'"),
        ({"arm": [["full"]]}, f"hiexp.arm must be one of {', '.join(ARMS)}, found [['full']]"),
        ({"tool": 3}, "hiexp.tool must be a block of settings, found 3"),
    ],
)
def test_a_wrong_setting_is_one_line_that_says_what_to_do(block, message):
    with pytest.raises(HiExpError) as error:
        parse_config(block)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ToolConfig(top_k=0), "ToolConfig.top_k must be at least 1, found 0"),
        (lambda: ToolConfig(0), "ToolConfig.top_k must be at least 1, found 0"),
        (lambda: replace(PromptConfig(), match="title"), "PromptConfig.match must be one of kind, question, found 'title'"),
        (lambda: SearchConfig(engin="bm25"), "unknown setting SearchConfig.engin; did you mean 'engine'?"),
        (lambda: Budgets(PromptConfig(), ToolConfig(), 3), "Budgets must be given by name, found 3"),
        (lambda: HiExpConfig(tool={"top_k": 0}), "HiExpConfig.tool.top_k must be at least 1, found 0"),
    ],
)
def test_a_settings_object_made_by_hand_is_refused_in_the_same_words(make, message):
    with pytest.raises(HiExpError) as error:
        make()
    assert str(error.value) == message


def test_a_path_of_a_setting_may_be_a_path_object():
    assert SearchConfig(corpus=Path("corpus.jsonl")).corpus == "corpus.jsonl"


def test_a_key_unlike_any_other_lists_the_known_ones():
    with pytest.raises(HiExpError, match="known here: kind"):
        parse_config({"reward": {"zzzzzz": 1}})


def test_an_integer_is_accepted_where_a_float_is_meant():
    assert parse_config({"tool": {"min_score": 1}}).tool.min_score == 1.0


def test_a_bare_off_of_a_yaml_file_is_off():
    config = parse_config({"alarms": {"reward": False, "length": "stop", "entropy": "off"}}).alarms  # YAML 1.1 reads off as false
    assert (config.reward, config.length, config.entropy) == ("off", "stop", "off")


def test_a_tilde_in_a_path_is_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    config = parse_config({"hek": "~/hek", "search": {"corpus": "~/corpus.jsonl"}})
    assert (config.hek, config.search.corpus) == ("/home/me/hek", "/home/me/corpus.jsonl")
