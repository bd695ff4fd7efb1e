"""What is known of a candidate before it is played."""

from dataclasses import replace
from pathlib import Path

import pytest

from hiexp_verl.config import LoopConfig
from hiexp_verl.evolve.background import Task, make_candidate, self_sourced
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.types import to_json
from tests.support.episodes import episode, two_hops
from tests.support.factories import entry, hek_of, trajectory
from tests.support.sums import PLACE


def test_an_entry_is_self_sourced_if_every_rollout_behind_it_was_shown_experience():
    seen = [{"entry": "e2-0001", "content": "0a", "level": "e2", "score": 0.9, "place": "prompt", "tokens": 9}]
    rollouts = [trajectory(id="q1#0"), trajectory(id="q1#1", extra={"shown": seen}), trajectory(id="q1#2", extra={"shown": seen})]
    sources = {"both": ("q1#0", "q1#1"), "guided": ("q1#1", "q1#2"), "old": ("q1#1",), "none": ()}
    hek = hek_of([entry(f"e1-{name}", title=name, sources=ids) for name, ids in sources.items()], HashEncoder(16))
    came = frozenset(each.content_id for each in hek.entries if each.title != "old")
    assert self_sourced(hek, came, rollouts) == 0.5, "of both and guided; one was there before, one has no sources"
    assert self_sourced(hek, frozenset(), rollouts) == 0.0


@pytest.mark.parametrize(("asked", "when"), [(False, ()), (True, ("repeated",))])
def test_a_candidate_has_the_preconditions_of_its_diagnoses_if_asked(tmp_path, asked, when):
    right = [episode(("capital Noshak country", "capital"), number=0), two_hops(question_id="q2", number=0)]
    again = episode(("capital Noshak", "bread"), ("Noshak capital", "bread"), answer="Tehran", number=1)
    other = episode(("Noshak", "other"), answer="Dushanbe", question_id="q2", number=1)
    write_jsonl(tmp_path / "1.jsonl", map(to_json, (*right, again, other)))
    path = hek_of([entry("e1-a")], HashEncoder(64)).save(tmp_path / "hek")
    config = LoopConfig(enabled=True, preconditions=asked)
    task = Task(str(path), "hash:64", (str(tmp_path / "1.jsonl"),), str(tmp_path / "ledger.jsonl"), 1, config)
    made = HEK.load(Path(make_candidate(task).path)).entries
    (repeated,) = [each for each in made if each.description.startswith("When a query brings nothing new, change it")]
    assert repeated.when == when and not any(each.when for each in made if each is not repeated)


def test_a_candidate_is_made_in_the_domain_of_the_run_which_may_be_somebodys_own(tmp_path):
    hek = hek_of([entry("e1-a")], HashEncoder(64))
    path = replace(hek, header=replace(hek.header, domain="sums")).save(tmp_path / "hek")
    rollouts = [
        trajectory(id=f"q1#{sum}", question="What is 17 + 25?", answers=("42",), prediction=sum, correct=sum == "42")
        for sum in ("42", "32")
    ]
    write_jsonl(tmp_path / "1.jsonl", rollouts)
    (tmp_path / "ledger.jsonl").touch()
    config = LoopConfig(enabled=True)
    task = Task(str(path), "hash:64", (str(tmp_path / "1.jsonl"),), str(tmp_path / "ledger.jsonl"), 1, config, domain=PLACE)
    made = HEK.load(Path(make_candidate(task).path))
    assert made.header.domain == "sums"
    assert "Add the units first, and carry what is over ten." in {each.description for each in made.entries}
