"""The recipe of the construction: its options are those of the commands, and it runs."""

import json

import pytest
import yaml

from hiexp_verl.cli import build_parser
from hiexp_verl.hek.store import HEK
from recipes.experience_builder.run import commands, main
from tests.support.chat_server import completion, server
from tests.support.paths import RECIPES
from tests.support.verl_fixtures import write_corpus

FILES = sorted((RECIPES / "experience_builder").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_its_options_are_those_of_the_commands(path):
    for command in commands(yaml.safe_load(path.read_text()), []).values():
        build_parser().parse_args(command)


def test_overrides_name_stage_and_option():
    stages = {"build": {"distiller": "rules", "confirm": True, "resume": None}}
    assert commands(stages, ["build.out=hek", "build.resume=true"]) == {
        "build": ["build", "--distiller", "rules", "--confirm", "--resume", "--out", "hek"]
    }
    with pytest.raises(SystemExit, match="no stage 'bild'"):
        commands(stages, ["bild.out=hek"])


def answering(request, number):
    """Search; then answer, right in every second episode."""
    if not any("Noshak is" in str(message["content"]) for message in request["messages"][2:]):
        return 200, completion(f"<search>{'Noshak highest point' if number % 4 < 2 else 'Noshak'}</search>")
    return 200, completion(f"<answer>{'Afghanistan' if number % 4 < 2 else 'France'}</answer>")


def test_it_builds_a_hek_from_questions(tmp_path):
    questions = tmp_path / "q.jsonl"
    rows = [
        {"id": str(i), "question": f"Which country has Noshak as its {word} point?", "answer": "Afghanistan"}
        for i, word in enumerate(["highest", "top"])
    ]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus, out = write_corpus(tmp_path / "c.jsonl"), tmp_path / "hek"
    with server(answering) as (url, _):
        where = [f"rollout.questions={questions}", f"rollout.corpus={corpus}", f"rollout.model={url}", f"rollout.out={tmp_path / 'r'}"]
        made = [f"build.trajectories={tmp_path / 'r' / 'trajectories.jsonl'}", "build.encoder=hash:64", f"build.out={out}"]
        assert main([str(FILES[0]), *where, *made]) == 0
    assert HEK.load(out).levels["e1"] >= 1
