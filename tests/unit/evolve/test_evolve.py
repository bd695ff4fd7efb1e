"""A HEK evolves: a harmful plan is replaced by one of its own rollouts, by measured gain; a killed evolution comes to the same versions."""

import json
import shutil
from dataclasses import replace

import pytest

from hiexp_verl.cli import build_parser
from hiexp_verl.cli.evolve import evolve_spec
from hiexp_verl.config import SearchConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.evolve.evolve import HEK_FOLDER
from hiexp_verl.evolve.spec import EvolveSpec
from hiexp_verl.evolve.table import TABLE_JSON, TABLE_MD, as_markdown, write_table
from hiexp_verl.hek.versions import versions
from hiexp_verl.ledger.rows import read_ledger
from tests.support.peaks import Follower, evolved, start


def test_a_plan_that_harms_is_replaced_by_one_that_is_measured_better(tmp_path):
    first, second, third = evolved(tmp_path / "out")
    assert (first.candidate, first.verdict) == (None, None), "the first round has no rollouts to learn from"
    assert first.rewards["incumbent"] < 0.2 < first.rewards["none"] < 0.6
    assert second.accepted and second.verdict.difference > 0.5 and second.verdict.look == 12
    assert second.rewards["candidate"] > 0.9
    (came,) = [change for change in second.proposal.came if change.level == "e2"]
    (went,) = [change for change in second.proposal.went if change.level == "e2"]
    assert "highest point country" in came.description and "largest city" in went.description
    assert "better tally" in went.why
    assert first.detectable is None and 0 < second.detectable < 0.5, "known before the test, from the groups of the first round"
    assert third.incumbent == second.candidate and third.rewards["incumbent"] > 0.9
    assert not third.accepted or third.verdict.difference >= 0


def test_versions_ledger_and_table_are_left_behind(tmp_path):
    rounds = evolved(tmp_path / "out")
    saved = versions(tmp_path / "out" / HEK_FOLDER)
    assert [v.name for v in saved if v.is_current] == [rounds[-1].candidate if rounds[-1].accepted else rounds[-1].incumbent]
    assert saved[1].parents == ("0001",) and "came" in saved[1].reason
    rows = read_ledger(tmp_path / "out" / HEK_FOLDER)
    assert len(rows) == sum(each.rollouts for each in rounds)
    assert len({row.key for row in rows}) == len(rows)
    assert {row.hek for row in rows if row.arm == "full"} <= {v.content_hash for v in saved}
    assert any(row.masked for row in rows) and not any(row.shown for row in rows if row.arm == "none")
    write_table(tmp_path / "out", rounds)
    assert json.loads((tmp_path / "out" / TABLE_JSON).read_text())["rounds"][1]["verdict"]["decision"] == "accept"
    assert "| 2 | 0001 | 0002 |" in (tmp_path / "out" / TABLE_MD).read_text() == as_markdown(rounds) + "\n"


def test_what_is_killed_and_resumed_comes_to_the_same(tmp_path):
    whole = evolved(tmp_path / "whole" / "out")
    for stop_after in (1, 60, 150, 260):
        out = tmp_path / str(stop_after) / "out"
        with pytest.raises(HiExpError, match="the server has stopped"):
            evolved(out, Follower(stop_after))
        resumed = evolved(out)
        assert [each.to_json() for each in resumed] == [each.to_json() for each in whole]
        assert [(v.name, v.content_hash, v.is_current) for v in versions(out / HEK_FOLDER)] == [
            (v.name, v.content_hash, v.is_current) for v in versions(tmp_path / "whole" / "out" / HEK_FOLDER)
        ]
        assert read_ledger(out / HEK_FOLDER) == read_ledger(tmp_path / "whole" / "out" / HEK_FOLDER)


def test_the_budget_ends_it(tmp_path):
    rounds = evolved(tmp_path / "out", budget_rollouts=100)
    assert sum(each.rollouts for each in rounds) <= 100
    assert rounds[1].verdict.groups == (100 - rounds[0].rollouts) // 6 < 12


def test_what_was_rejected_is_not_proposed_again(tmp_path):
    good = evolved(tmp_path / "first" / "out")[1].proposal.hek
    assert good is not None
    rounds = evolved(tmp_path / "out", hek=replace(good, header=replace(good.header, parents=(), reason="")), rounds=4)
    proposed = [change.content for each in rounds if not each.accepted for change in each.proposal.came]
    assert len(proposed) == len(set(proposed))


def test_it_needs_a_hek_and_a_temperature(tmp_path):
    more = {"model": "DIR", "out": tmp_path, "search": SearchConfig(corpus="c.jsonl"), "questions": tmp_path / "q.jsonl"}
    with pytest.raises(HiExpError, match="evolve starts from a HEK"):
        EvolveSpec(**more)


def test_the_option_for_preconditions_reaches_the_build():
    files = ["--questions", "q.jsonl", "--corpus", "c.jsonl", "--model", "DIR", "--hek", "hek", "--out", "out"]
    specs = [evolve_spec(build_parser().parse_args(["evolve", *files, *more])) for more in ([], ["--preconditions"])]
    assert [spec.build.preconditions for spec in specs] == [False, True]


def test_a_folder_that_holds_rounds_is_not_added_to_without_resume(tmp_path):
    from hiexp_verl.evolve.evolve import evolve

    (tmp_path / "out" / "rounds").mkdir(parents=True)
    start().save(tmp_path / "hek")
    spec = EvolveSpec(
        model="DIR", out=tmp_path / "out", search=SearchConfig(corpus="c.jsonl"), questions=tmp_path / "q.jsonl", hek=tmp_path / "hek"
    )
    with pytest.raises(HiExpError, match="holds rounds already"):
        evolve(spec)
    with pytest.raises(HiExpError, match="a HEK of its own domain; leave --other-domain out"):
        evolve(replace(spec, other_domain=True))
    shutil.rmtree(tmp_path / "out")
