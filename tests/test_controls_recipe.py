"""The recipe plays each control once, on the same questions and seeds, and its table says what was shown and what came of it."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from hiexp_verl.encoder import HashEncoder
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.locate import remember_encoder
from hiexp_verl.report.find import find
from tests.factories import entry, hek_of, trajectory
from tests.test_rollout import Scripted
from tests.verl_fixtures import tiny_tokenizer, write_corpus

RECIPES = Path(__file__).parents[1] / "recipes"
MODULES = ("run", "sources", "table", "stages", "training")  # which other recipes have, too


@pytest.fixture
def recipe(monkeypatch):
    """The recipe's modules, imported as its script imports them."""
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(RECIPES / "controls"))
    import run

    yield run
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def table(recipe):
    return sys.modules["table"]


def episodes(*corrects, shown=()):
    """Two episodes of each question: 1 is right, 0 is wrong."""
    return [
        trajectory(f"q{i // 2}", bool(correct), id=f"q{i // 2}#{i % 2}", extra={"shown": list(shown), "searches": 1})
        for i, correct in enumerate(corrects)
    ]


def shown_of(entry_id, level="e1", place="step"):
    return {"entry": entry_id, "level": level, "score": 0.5, "place": place, "tokens": 10, "search": 1}


HEK = hek_of([entry("e1-own", questions=("q0",)), entry("e1-other", title="other", questions=("q0", "q1"))], HashEncoder(32))


def test_a_row_says_what_was_shown_and_what_came_of_it(table):
    played = episodes(1, 1, 1, 0, shown=[shown_of("e1-own"), shown_of("e1-other", "e2", "start")])
    row = table.row_of("full", played, episodes(1, 0, 0, 0), HEK)
    assert (row["episodes"], row["em"], row["acc"], row["format"], row["searches"]) == (4, 0.75, 0.75, 1.0, 1.0)
    assert (row["with_experience"], row["entries"], row["experience_tokens"], row["e1_fire_rate"]) == (1.0, 2.0, 20.0, 1.0)
    assert row["own"] == 0.5, "q0 is shown what comes from it alone, q1 is not"
    assert row["em_minus_base"]["mean"] == pytest.approx(0.5)  # q0: 1 - 0.5, q1: 0.5 - 0
    lines = table.as_markdown([row]).splitlines()
    assert len(lines) == 3 and len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| full | 4 | 0.75 |") and "| +0.500 [" in lines[2]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """What a run needs: questions, corpus, HEK, a model directory with a tokenizer."""
    for name in ("a", "b"):
        row = {"id": name, "question": f"What is the capital of {name}?", "answer": "Kabul"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    write_corpus(tmp_path / "corpus.jsonl")
    hek_of([entry("e1-0001", questions=("x",)), entry("e2-0001", "e2", title="a pattern")], HashEncoder(32)).save(tmp_path / "hek")
    remember_encoder(tmp_path / "hek", "hash:32")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


GIVEN = "--model model --hek hek --questions a.jsonl b.jsonl --corpus corpus.jsonl --out out --controls"


def controls(recipe, words):
    return recipe.Controls(recipe.parser().parse_args(words.split()))


@pytest.fixture
def served(recipe, monkeypatch):
    """How often a model was served, and every prompt that it saw."""
    clients = []

    @contextmanager
    def open_model(spec):
        clients.append(Scripted("<search> capital </search>", "<answer> Kabul </answer>"))
        yield clients[-1]

    monkeypatch.setattr(recipe, "open_model", open_model)
    return clients


def test_every_control_is_played_once_and_none_is_among_them(recipe, served, files):
    first = controls(recipe, f"{GIVEN} full,random")
    first.play_all()
    assert first.controls == ["full", "random", "none"]
    assert len(served) == 1 and len(served[0].seeds) == 3 * 2 * 2 * 2, "3 controls, 2 questions, 2 samples, 2 turns"
    third = len(served[0].seeds) // 3
    assert set(served[0].seeds[:third]) == set(served[0].seeds[-third:]), "the same seeds"
    again = controls(recipe, f"{GIVEN} full,random,e1")
    again.play_all()
    assert len(served) == 2 and len(served[1].seeds) == 8, "e1 alone is new"
    rows = {line.split("|")[1].strip() for line in again.write_table().splitlines()[2:]}
    assert rows == {"full", "random", "e1", "none"}
    controls(recipe, f"{GIVEN} full").play_all()
    assert len(served) == 2, "all is there: no model is served"


def test_none_shows_nothing_and_the_others_do(recipe, served, files):
    run = controls(recipe, f"{GIVEN} full,train-only")
    run.play_all()
    run.write_table()
    shares = {row["arm"]: row["with_experience"] for row in json.loads((files / "out" / "table.json").read_text())["arms"]}
    assert shares == {"full": 1.0, "train-only": 0.0, "none": 0.0}
    assert list(find(files / "out").tables) == [files / "out" / "table.json"], "`hiexp report` shows it"


def test_an_interrupted_control_goes_on(recipe, served, files):
    controls(recipe, f"{GIVEN} full").play_all()
    played = (files / "out" / "full" / "trajectories.jsonl").read_text()
    (files / "out" / "full" / "summary.json").unlink()
    (files / "out" / "full" / "trajectories.jsonl").write_text("".join(played.splitlines(keepends=True)[:3]))
    controls(recipe, f"{GIVEN} full").play_all()
    assert len(served[1].seeds) == 2, "one episode of two turns was missing"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--controls placebo", "unknown control 'placebo'; choose from full, none"),
        ("--controls full", "outputs/demo is no finished demo; run `make demo`"),
        (f"{GIVEN} full --limit 0", "--limit must be at least 1"),
        (f"{GIVEN} full --train 1 --questions a.jsonl", "--train needs two files"),
        (f"{GIVEN} full --hek nowhere", "nowhere does not exist"),
        (f"{GIVEN} full --k 3", "was made with k = 2, now it is 3; give another --out"),
        (f"{GIVEN} full --seed 1", "was made with seed = 0, now it is 1"),
        (f"{GIVEN} full --questions a.jsonl corpus.jsonl", "corpus.jsonl:1: no field 'question'"),
    ],
)
def test_what_cannot_be_compared_or_played_is_refused(recipe, served, files, words, message):
    controls(recipe, f"{GIVEN} none")
    with pytest.raises(HiExpError) as error:
        controls(recipe, words)
    assert message in str(error.value)
