"""Selection by value in training: fitted to the ledger when a run starts, used by the look-ups of a node, made for each candidate."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

pytestmark = pytest.mark.verl
pytest.importorskip("verl")

from hiexp_verl.config import Budgets, HiExpConfig, SearchConfig, ToolConfig
from hiexp_verl.evolve.background import make_candidate
from hiexp_verl.guide.lookup import ExperienceRequest
from hiexp_verl.guide.select import Values, values_path
from hiexp_verl.hek import HEK
from hiexp_verl.hek.opening import pinned
from hiexp_verl.ledger.rows import LEDGER, LedgerRow, append_rows
from hiexp_verl.plugin.retrieval import LocalRetrieval
from hiexp_verl.plugin.trainer import _fit_values
from tests.support.peaks import builder_task
from tests.support.verl_fixtures import write_corpus, write_hek

REQUEST = ExperienceRequest("tool", "highest point of a country", draw="0/1/q1")


@pytest.fixture
def settings(tmp_path):
    search = SearchConfig(corpus=str(write_corpus(tmp_path / "c.jsonl")))
    return pinned(HiExpConfig(hek=str(write_hek(tmp_path / "hek")), tool=ToolConfig(select="linucb"), search=search))


def trained(settings, effect):
    """A ledger in which showing the entry e1-1 has this effect on every rollout."""
    hek = HEK.load(Path(settings.hek))
    seen = {"content": hek.entry("e1-1").content_id, "level": "e1", "place": "tool", "search": 1, "score": 0.9, "p": 0.9}
    rows = [
        LedgerRow(1, f"q{group}", session, hek.header.content_hash, ("none", "full")[session], 0.5 + effect * session, (seen,) * session)
        for group in range(300)
        for session in range(2)
    ]
    append_rows(Path(settings.hek).parent / LEDGER / "run.jsonl", rows)


def looked_up(settings):
    return asyncio.run(LocalRetrieval(settings).experience(REQUEST))


def test_an_entry_that_harmed_is_shown_no_more_and_one_that_helped_is(settings):
    _fit_values(settings, resumed=False)
    (found,) = looked_up(settings)
    assert found.entry.id == "e1-1" and found.value is None, "the ledger is empty: by cosine"
    trained(settings, effect=-0.3)
    _fit_values(settings, resumed=True)
    assert len(looked_up(settings)) == 1, "a resumed run goes on with what it had"
    _fit_values(settings, resumed=False)
    assert looked_up(settings) == []


def test_what_helped_is_shown_with_its_value(settings):
    trained(settings, effect=0.3)
    _fit_values(settings, resumed=False)
    (found,) = looked_up(settings)
    assert found.entry.id == "e1-1" and found.value == pytest.approx(0.3, abs=0.03)


def test_a_run_by_cosine_writes_no_values(settings):
    by_cosine = HiExpConfig(hek=settings.hek, hek_hash=settings.hek_hash, search=settings.search)
    _fit_values(by_cosine, resumed=False)
    assert not values_path(Path(settings.hek), settings.hek_hash).exists()


def test_a_candidate_has_values_of_its_own(tmp_path):
    task, _ = builder_task(tmp_path)
    made = make_candidate(replace(task, budgets=Budgets(tool=ToolConfig(select="thompson"))))
    values = Values.load(Path(made.path), made.content_hash)
    assert values is not None and values.known and not values.places, "of 48 rollouts the effects are known, and by cosine is selected"
