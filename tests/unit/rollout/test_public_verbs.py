"""`hiexp_verl.rollout(spec)` and `hiexp_verl.evaluate(spec)`, against a server that is made up."""

import json

import pytest

import hiexp_verl
from hiexp_verl.config import SearchConfig
from hiexp_verl.errors import HiExpError
from tests.support.chat_server import completion, server

pytest.importorskip("openai")


def answering(request, number):
    searched = any(message["role"] == "tool" for message in request["messages"])
    return 200, completion("<answer>me</answer>" if searched else "<search>blue whale</search>")


@pytest.fixture
def files(tmp_path):
    (tmp_path / "q.jsonl").write_text("".join(json.dumps({"id": str(i), "question": f"Who, {i}?", "answer": "me"}) + "\n" for i in (1, 2)))
    (tmp_path / "c.jsonl").write_text(json.dumps({"id": "1", "title": "Whales", "text": "The blue whale is large."}) + "\n")
    return tmp_path


def test_a_rollout_and_an_evaluation_are_played_from_specs(files):
    search = SearchConfig(corpus=str(files / "c.jsonl"))
    with server(answering) as (url, _):
        spec = hiexp_verl.RolloutSpec(model=url, questions=files / "q.jsonl", search=search, out=files / "rollout", k=2)
        summary = hiexp_verl.rollout(spec)
        assert (summary["episodes"], summary["em"], summary["mean_searches"]) == (4, 1.0, 1.0)
        with pytest.raises(HiExpError, match="exists already"):
            hiexp_verl.rollout(spec)
        found = hiexp_verl.evaluate(
            hiexp_verl.EvalSpec(model=url, questions=(files / "q.jsonl",), search=search, out=files / "eval", arms=("none",), alone=0)
        )
    assert [(line["arm"], line["em"]) for line in found["arms"]] == [("none", 1.0)]
