"""Evaluations show as much experience as the training did, or as they are told to."""

import json
import logging

import pytest

from hiexp_verl.config import Budgets, StartConfig, StepConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.rollout.as_trained import read_budgets


def test_budgets_are_set_by_their_names_in_training():
    found = read_budgets(["start.top_k=3", "hiexp.start.max_tokens=160", "step.min_score=0.5"])
    assert found == Budgets(StartConfig(top_k=3, max_tokens=160), StepConfig(min_score=0.5))
    assert read_budgets([]) == Budgets()
    assert found.told()["start.max_tokens"] == 160 and found.told()["step.top_k"] == 1


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("start.topk=3", r"unknown setting hiexp.start.topk; did you mean 'top_k'\?"),
        ("strat.top_k=3", r"unknown setting hiexp.strat; did you mean 'start'\?"),
        ("start.top_k=0", "hiexp.start.top_k must be at least 1, found 0"),
        ("start.top_k=three", "hiexp.start.top_k must be int, found 'three'"),
        ("step.min_score=[", r"--set step.min_score=\[: the value cannot be read"),
        ("search.top_k=3", "for hiexp.start and hiexp.step, found search.top_k"),
        ("start.top_k", "takes KEY=VALUE"),
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
        json.dumps({"identity": {"start": {"top_k": 3, "match": "way", "min_score": None, "max_tokens": 160}, "step": {"min_score": 0.4}}})
    )
    with caplog.at_level(logging.INFO):
        assert read_budgets(["start.top_k=2"], state) == Budgets(
            StartConfig(2, "way", max_tokens=160), StepConfig(min_score=0.4, position="after")
        ), "a version that did not name the position had E1 after the documents"
    assert "global_step_3: start.top_k=3, start.max_tokens=160, step.min_score=0.4" in caplog.text
    state.write_text(json.dumps({"identity": {"enabled": False}}))
    assert read_budgets([], state) == Budgets()
    state.write_text(json.dumps({"identity": {"start": {"top_k": 3}, "step": {"min_score": 0.4}}}))
    assert read_budgets([], state).start.match == "question", "before one could choose"
    for damaged in ("{", "[]", '{"identity": 3}'):
        state.write_text(damaged)
        with pytest.raises(HiExpError, match=r"state\.json is damaged"):
            read_budgets([], state)
