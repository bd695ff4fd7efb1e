"""Evaluations show as much experience as the training did, or as they are told to."""

import json
import logging

import pytest

from hiexp_verl.config import Budgets, PromptConfig, ToolConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.rollout.as_trained import read_budgets


def test_budgets_are_set_by_their_names_in_training():
    found = read_budgets(["prompt.top_k=3", "hiexp.prompt.max_tokens=160", "tool.min_score=0.5"])
    assert found == Budgets(PromptConfig(top_k=3, max_tokens=160), ToolConfig(min_score=0.5))
    assert read_budgets([]) == Budgets()
    assert found.flat()["prompt.max_tokens"] == 160 and found.flat()["tool.top_k"] == 1


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("prompt.topk=3", r"unknown setting hiexp.prompt.topk; did you mean 'top_k'\?"),
        ("strat.top_k=3", r"unknown setting hiexp.strat; known here: prompt, tool"),
        ("prompt.top_k=0", "hiexp.prompt.top_k must be at least 1, found 0"),
        ("prompt.top_k=three", "hiexp.prompt.top_k must be a whole number, found 'three'"),
        ("tool.min_score=[", r"--set tool.min_score=\[: the value cannot be read"),
        ("search.top_k=3", "for hiexp.prompt and hiexp.tool, found search.top_k"),
        ("prompt.top_k", "takes KEY=VALUE"),
        ("start=3", "takes KEY=VALUE"),
    ],
)
def test_what_is_no_budget_is_refused(assignment, said):
    with pytest.raises(HiExpError, match=said):
        read_budgets([assignment])


def test_a_checkpoint_s_budgets_are_the_defaults(tmp_path, caplog):
    state = tmp_path / "global_step_3" / "hiexp" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text(
        json.dumps(
            {
                "identity": {"prompt": {"top_k": 3, "match": "question", "min_score": None, "max_tokens": 160}, "tool": {"min_score": 0.4}},
                "played": {},
            }
        )
    )
    with caplog.at_level(logging.INFO):
        assert read_budgets(["prompt.top_k=2"], state) == Budgets(PromptConfig(2, "question", max_tokens=160), ToolConfig(min_score=0.4))
    assert "global_step_3: prompt.top_k=3, prompt.match=question, prompt.max_tokens=160, tool.min_score=0.4" in caplog.text
    state.write_text(json.dumps({"identity": {"enabled": False}, "played": {}}))
    assert read_budgets([], state) == Budgets()
    for damaged in ("{", "[]", '{"identity": 3, "played": {}}', '{"identity": {}}'):
        state.write_text(damaged)
        with pytest.raises(HiExpError, match=r"state\.json is damaged"):
            read_budgets([], state)
