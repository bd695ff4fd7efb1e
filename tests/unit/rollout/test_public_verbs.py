"""`hiexp_verl.rollout(spec)` and `hiexp_verl.evaluate(spec)`, against a server that is made up."""

import inspect
import json
from pathlib import Path

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


SPEC = {"model": "m", "out": "out", "search": SearchConfig(corpus="c.jsonl"), "questions": "q.jsonl"}


def test_a_spec_takes_texts_and_paths_and_one_file_of_questions_or_several():
    spec = hiexp_verl.RolloutSpec(**SPEC | {"model": Path("m"), "hek": "hek"})
    assert (spec.model, spec.out, spec.questions, spec.hek) == ("m", Path("out"), Path("q.jsonl"), Path("hek"))
    one, several = Path("a.jsonl"), ["a.jsonl", Path("b.jsonl")]
    questions = [hiexp_verl.EvalSpec(**SPEC | {"questions": given}).questions for given in (one, several)]
    assert questions == [(Path("a.jsonl"),), (Path("a.jsonl"), Path("b.jsonl"))]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": 3}, "EvalSpec.out must be a path, found 3"),
        ({"questions": 3}, "EvalSpec.questions must be a list, found 3"),
        ({"alone": "4"}, "EvalSpec.alone must be a whole number, found '4'"),
        ({"limit": 0}, "EvalSpec.limit must be at least 1, found 0"),
        ({"search": "c.jsonl"}, "EvalSpec.search must be a block of settings, found 'c.jsonl'"),
        ({"seed": 1}, "unknown setting EvalSpec.seed; did you mean 'seeds'?"),
    ],
)
def test_a_wrong_field_of_a_spec_is_one_line(options, message):
    with pytest.raises(HiExpError) as error:
        hiexp_verl.EvalSpec(**SPEC | options)
    assert str(error.value) == message


def test_a_missing_field_of_a_spec_is_one_line():
    with pytest.raises(HiExpError, match=r"^RolloutSpec\.model is missing$"):
        hiexp_verl.RolloutSpec(out="out")


def test_the_help_of_a_callable_package_is_that_of_its_function():
    assert inspect.getdoc(hiexp_verl.rollout) == inspect.getdoc(hiexp_verl.rollout.rollout.rollout)
    assert inspect.getdoc(hiexp_verl.evaluate) == inspect.getdoc(hiexp_verl.evaluate.evaluate.evaluate)
