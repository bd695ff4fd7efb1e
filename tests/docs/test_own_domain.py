"""The domain of docs/own_domain.md, from rollouts without experience to rollouts with it, by a scripted model behind a server."""

import json
import re
import sqlite3
import sys
from contextlib import closing

import pytest

from hiexp_verl import HEK, Guide, HiExpError, RolloutSpec, build, read_trajectories, rollout
from hiexp_verl.cli import main
from hiexp_verl.config import Budgets, SearchConfig, ToolConfig
from hiexp_verl.domains import domain_named
from hiexp_verl.domains.domain import ToolFailed, Use
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.types import Question
from tests.support.chat_server import completion, server
from tests.support.pages import blocks
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "own_domain.md"
CITIES = {"Riga": 3, "Oslo": 2, "Bonn": 1}
KINDS = ("How many shops are there in {}?", "How many clerks work in the shops in {}?")
LOOK = "<sql>select name, sql from sqlite_master</sql>"


@pytest.fixture
def sql(tmp_path, monkeypatch):
    """The domain, importable as sql_domain, and its files."""
    (source,) = blocks(PAGE, "python")
    (tmp_path / "sql_domain.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    with closing(sqlite3.connect("shop.sqlite")) as database:
        database.execute("create table store (id integer, city text, clerks integer)")
        cities = [city for city, count in CITIES.items() for _ in range(count)]
        database.executemany("insert into store values (?, ?, 2)", enumerate(cities))
        database.commit()
    asked = [(kind, city) for kind in KINDS for city in CITIES]
    answers = [str(CITIES[city] * (2 if "clerks" in kind else 1)) for kind, city in asked]
    rows = [Question(f"q{i}", kind.format(city), (answers[i],)) for i, (kind, city) in enumerate(asked)]
    write_jsonl(tmp_path / "train.jsonl", rows[:2] + rows[3:5])
    write_jsonl(tmp_path / "val.jsonl", [rows[2], rows[5]])
    yield domain_named("sql_domain:SQL")
    domain_named.cache_clear()
    sys.modules.pop("sql_domain")


def policy():
    """Every second rollout of a question guesses the name of a table and answers wrongly; one that read an entry never does."""
    seen: dict[str, int] = {}
    careless: dict[str, bool] = {}

    def answer(request, number):
        system, user, *turns = request["messages"]
        question = user["content"]
        if not turns:
            seen[question] = seen.get(question, 0) + 1
            careless[question] = seen[question] % 2 == 0 and "<experience>" not in system["content"]
            return 200, completion("<sql>select count(*) from shop</sql>" if careless[question] else LOOK)
        city = next(city for city in CITIES if city in question)
        if len(turns) == 2 and not careless[question]:
            what = "sum(clerks)" if "clerks" in question else "count(*)"
            return 200, completion(f"<sql>select {what} from store where city = '{city}'</sql>")
        found = "0" if careless[question] else re.sub(r"<experience>.*</experience>", "", turns[-1]["content"], flags=re.DOTALL).strip()
        return 200, completion(f"<answer>{found}</answer>")

    return answer


def spec(url, out, questions, **more):
    return RolloutSpec(
        model=url, domain="sql_domain:SQL", search=SearchConfig(corpus="shop.sqlite"), questions=questions, out=out, batch_size=1, **more
    )


def test_it_is_under_150_lines():
    (source,) = blocks(PAGE, "python")
    assert len(source.splitlines()) < 150


def test_what_failed_without_experience_is_shown_as_advice_afterwards(sql, tmp_path):
    with server(policy()) as (url, requests):
        summary = rollout(spec(url, tmp_path / "rollouts", tmp_path / "train.jsonl", k=2))
        assert summary["correct"] == 0.5 and summary["stops"] == {"answer": 8}
        played = list(read_trajectories(tmp_path / "rollouts" / "trajectories.jsonl"))
        assert {t.extra["domain"] for t in played} == {"sql"}
        wrong = next(t for t in played if not t.correct)
        assert wrong.messages[-2]["content"] == "error: no such table: shop"

        hek = build(tmp_path / "rollouts" / "trajectories.jsonl", "hash:256", out=tmp_path / "hek", domain="sql_domain:SQL").hek
        assert hek.header.domain == HEK.load(tmp_path / "hek").header.domain == "sql"
        cases = [entry for entry in hek.entries if entry.level == "e1"]
        assert {entry.findings for entry in cases} == {("statement_failed",)}
        assert "How many clerks work in the shops in X?" in {entry.title for entry in cases}
        assert all("sqlite_master first" in entry.description for entry in cases)
        assert hek.levels["e2"] >= 1

        del requests[:]
        shown = Budgets(tool=ToolConfig(min_score=-1.0))  # a statement is unlike a question, and an encoder of hashes knows no more
        guided = rollout(spec(url, tmp_path / "guided", tmp_path / "val.jsonl", k=2, hek=tmp_path / "hek", budgets=shown))
        assert guided["correct"] == guided["prompt_hit_rate"] == 1.0
        assert guided["e1_fire_rate"] == 0.5, "of the two statements of an episode the first is shown it, and no text comes twice"
        first = requests[0]["messages"]
        assert "Read the schema first, then the values" in first[0]["content"]
        assert any("Read the tables and their columns" in r["messages"][-1]["content"] for r in requests), "E1 beside the rows"


def test_what_is_of_another_domain_is_refused_unless_it_is_asked_for(sql, tmp_path):
    with server(policy()) as (url, _):
        rollout(spec(url, tmp_path / "rollouts", tmp_path / "train.jsonl", k=2))
        trajectories = tmp_path / "rollouts" / "trajectories.jsonl"
        with pytest.raises(HiExpError, match="8 of 8 trajectories are of the domain sql, the build is of search"):
            build(trajectories, "hash:256")
        assert build(trajectories, "hash:256", other_domain=True, single_sided=True).hek.header.domain == "search"
        build(trajectories, "hash:256", out=tmp_path / "hek", domain="sql_domain:SQL")
        (tmp_path / "corpus.jsonl").write_text(json.dumps({"id": "1", "title": "Riga", "text": "Riga is a city."}) + "\n")
        searching = RolloutSpec(
            model=url,
            search=SearchConfig(corpus="corpus.jsonl"),
            questions=tmp_path / "val.jsonl",
            out=tmp_path / "x",
            hek=tmp_path / "hek",
        )
        with pytest.raises(HiExpError, match="is of the domain sql, the questions are of search"):
            rollout(searching)
        with pytest.raises(HiExpError, match="made with domain = 'sql', now it is None"):
            rollout(RolloutSpec(**{**vars(searching), "hek": None, "out": tmp_path / "rollouts", "resume": True}))
    with pytest.raises(HiExpError, match="the HEK is of the domain 'sql', which is not one of ours"):
        Guide.open(tmp_path / "hek")
    assert Guide.open(tmp_path / "hek", domain="sql_domain:SQL").guidance.domain is sql


def test_a_hek_is_changed_by_the_rules_of_its_domain_which_is_named(sql, tmp_path, capsys):
    with server(policy()) as (url, _):
        rollout(spec(url, tmp_path / "rollouts", tmp_path / "train.jsonl", k=2))
    build(tmp_path / "rollouts" / "trajectories.jsonl", "hash:256", out=tmp_path / "hek", domain="sql_domain:SQL")
    edit = ["edit", str(tmp_path / "hek"), "e1-0001", "--reason", "clearer"]
    for command in ([*edit, "--description", "List the tables first."], ["calibrate", str(tmp_path / "hek")]):
        assert main(command) == 2
        assert "the HEK is of the domain 'sql', which is not one of ours; name it" in capsys.readouterr().err
        assert main([*command, "--domain", "sql_domain:SQL"]) == 0
    assert main([*edit, "--kind", "guide"]) == main([*edit, "--description", "List them all.", "--force"]) == 0, "no words are checked"


def test_a_statement_only_reads(sql):
    engine, _ = sql.tool.open(SearchConfig(corpus="shop.sqlite"), None)

    def rows(call):
        return sql.tool.answer(Use(call, Question("q", "?", ("1",)), "search_tags", engine, SearchConfig()))

    assert rows("select city from store where id = 0") == "Riga"
    assert rows("select city from store where id = 99") == "no rows"
    assert "not authorized" in rows("attach database 'other.sqlite' as other")
    assert rows("delete from store").startswith("error:")
    with pytest.raises(ToolFailed, match="the database is gone"):
        sql.tool.answer(Use("select 1", Question("q", "?", ("1",)), "search_tags", "nowhere.sqlite", SearchConfig()))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sequel", "unknown domain 'sequel'; use one of search, maths, or package.module:NAME of your own"),
        ("no_such_module:SQL", "the domain no_such_module:SQL cannot be imported"),
        ("sql_domain:PROMPT", "is str; it must name an hiexp_verl.domains.Domain"),
    ],
)
def test_a_domain_that_cannot_be_used_is_one_line(sql, name, message, capsys):
    arguments = ["rollout", "--questions", "train.jsonl", "--corpus", "shop.sqlite", "--model", "http://127.0.0.1:9/v1", "--out", "x"]
    assert main([*arguments, "--domain", name]) == 2
    assert message in capsys.readouterr().err
