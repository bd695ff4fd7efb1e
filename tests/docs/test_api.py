"""The public names: loaded when they are asked for; the snippets of README and docs run."""

import subprocess
import sys

import pytest

import hiexp_verl
from hiexp_verl.io.files import write_jsonl
from recipes.openai_agent import agent
from tests.support.chat_server import completion, server
from tests.support.episodes import episode, two_hops
from tests.support.pages import blocks
from tests.support.paths import ROOT
from tests.support.verl_fixtures import write_corpus, write_hek


def contrast_file(path):
    """Write a success and a failure of each of four questions."""
    asked = {
        peak: f"What is the capital of the country whose highest point is {peak}?" for peak in ("Noshak", "Everest", "Elbrus", "Triglav")
    }
    rows = [two_hops(question_id=peak, question=text, number=0) for peak, text in asked.items()]
    write_jsonl(path, rows + [episode(answer="Rome", question_id=peak, question=text, number=1) for peak, text in asked.items()])


def test_importing_the_package_and_its_guide_loads_neither_torch_nor_verl():
    code = "import sys, hiexp_verl; hiexp_verl.Guide; print(sorted({'torch', 'verl', 'ray', 'vllm', 'transformers'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.strip() == "[]", result.stderr


def test_every_public_name_is_there():
    for name in hiexp_verl.__all__:
        assert callable(getattr(hiexp_verl, name)), name
    with pytest.raises(AttributeError, match="has no attribute 'hekk'"):
        getattr(hiexp_verl, "hekk")  # noqa: B009
    assert set(hiexp_verl.__all__) <= set(dir(hiexp_verl))


def test_rollout_and_evaluate_are_functions_also_after_their_packages_are_imported():
    code = "import hiexp_verl.rollout.rollout, hiexp_verl.evaluate.evaluate; from hiexp_verl import evaluate, rollout; print(callable(evaluate), callable(rollout))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.strip() == "True True", result.stderr


def test_the_snippet_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    contrast_file(tmp_path / "trajectories.jsonl")
    (snippet,) = blocks(ROOT / "README.md", "python")
    names = {"messages": [{"role": "user", "content": "Which country?"}], "query": "highest point", "documents": "Noshak."}
    exec(snippet.replace("sentence-transformers/all-MiniLM-L6-v2", "hash:256"), names)
    assert names["hek"].entries
    assert names["messages"][0]["role"] == "system", "the best of E2 and E3 is in the system prompt"
    assert "Noshak." in names["documents"]


def test_the_blocks_of_the_api_page_run_one_after_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    contrast_file(tmp_path / "trajectories.jsonl")
    write_corpus(tmp_path / "corpus.jsonl")
    (tmp_path / "val.jsonl").write_text('{"id": "v1", "question": "Whose capital is Kabul?", "answer": "Afghanistan"}\n')
    names = {}
    with server(lambda request, number: (200, completion("<answer>Afghanistan</answer>"))) as (url, _):
        for block in blocks(ROOT / "docs" / "python_api.md", "python"):
            exec(block.replace("http://127.0.0.1:8001/v1", url), names)
    printed = capsys.readouterr().out
    assert "e1" in printed and "<experience>" in printed and "Noshak is a mountain." in printed and "4 of 8 correct" in printed
    assert "| full | 1 |" in printed


def test_an_agent_with_a_plain_client_reads_experience(tmp_path):
    hek, corpus = write_hek(tmp_path / "hek"), write_corpus(tmp_path / "corpus.jsonl")
    turns = ["<search>highest point of a country</search>", "<answer>Afghanistan</answer>"]
    with server(lambda request, number: (200, completion(turns[number - 1]))) as (url, requests):
        text = agent.run(url, "m", str(hek), str(corpus), "Which country has Noshak?")
    assert text == "<answer>Afghanistan</answer>"
    first, second = (request["messages"] for request in requests)
    assert "Find the country before its capital." in first[0]["content"], "the entry that fits best"
    assert "Search for the mountain first" in second[-1]["content"] and "Noshak is the highest point" in second[-1]["content"]
    assert len((ROOT / "recipes" / "openai_agent" / "agent.py").read_text().splitlines()) < 30
