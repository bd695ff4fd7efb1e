"""Preconditions of an E1 are computed from the episode, tested before it is shown, and reported where they separate nothing."""

import json
from dataclasses import replace

import pytest

from hiexp_verl.cli import main
from hiexp_verl.config import Budgets, PromptConfig, ToolConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.episode import Guidance, GuidedEpisode
from hiexp_verl.guide.lookup import ExperienceRequest, Lookup
from hiexp_verl.guide.record import EpisodeRecord
from hiexp_verl.hek import HEK, Retriever
from hiexp_verl.hek.opening import remember_encoder
from hiexp_verl.hek.preconditions import SearchState, hold
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.ledger.preconditions import firings
from hiexp_verl.ledger.rows import LEDGER, LedgerRow, append_rows, read_run, row_of
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.protocol import render_documents
from hiexp_verl.types import Hit, to_json
from tests.support.episodes import episode, two_hops
from tests.support.factories import entry, hek_of, passage

ENCODER = HashEncoder(64)
AGAIN = entry("e1-again", title="capital of a country", description="Change the words.", when=("repeated",))
ALWAYS = entry("e1-always", title="capital of a land", description="Search it.")
EMPTY, FOUND = (render_documents(found, "search_tags", 50, 500) for found in ([], [passage()]))


@pytest.mark.parametrize(
    ("when", "state", "holds"),
    [
        ((), SearchState(1, False, False), True),
        (("search>=2",), SearchState(1, False, False), False),
        (("search>=2",), SearchState(2, False, False), True),
        (("search<=2",), SearchState(3, False, False), False),
        (("empty",), SearchState(1, True, False), True),
        (("not empty",), SearchState(1, True, False), False),
        (("repeated", "search<=2"), SearchState(2, False, True), True),
        (("repeated", "not empty"), SearchState(2, True, True), False),
    ],
)
def test_all_preconditions_must_hold(when, state, holds):
    assert hold(when, state) == holds


def played(hits, *searches, top_k=1):
    """Return the episode of these (query, documents), and which entries each search was shown."""
    episode = GuidedEpisode(Guidance(Budgets(tool=ToolConfig(top_k=top_k))), lambda request: list(hits), "Who?", "q1")
    for query, documents in searches:
        episode.tool(query, documents)
    shown = [[row["entry"] for row in episode.shown if row["search"] == n] for n in range(1, len(searches) + 1)]
    return episode, shown


def test_the_guide_shows_an_entry_only_where_its_preconditions_hold():
    hits = [Hit(AGAIN, 0.9), Hit(ALWAYS, 0.8)]
    episode, shown = played(hits, ("capital of Peru", FOUND), ("capital of Peru", FOUND), ("Lima", FOUND))
    assert shown == [["e1-always"], ["e1-again"], []], "the second search asks the same as the first"
    assert episode.record().unmet == (AGAIN.content_id,), "once: the third search is no longer offered it"
    nothing = replace(AGAIN, when=("empty", "search>=2"))
    assert played([Hit(nothing, 0.9)], ("a", EMPTY), ("b", EMPTY), ("c", FOUND))[1] == [[], ["e1-again"], []]


def test_what_the_policy_did_not_read_is_forgotten():
    episode, _ = played([Hit(AGAIN, 0.9)], ("a", FOUND), ("b", FOUND))
    episode.forget_after(1)
    assert len(episode.record().unmet or ()) == 1


def test_without_preconditions_nothing_changes_on_disk():
    assert "when" not in to_json(ALWAYS) and to_json(AGAIN)["when"] == ("repeated",)
    episode, _ = played([Hit(ALWAYS, 0.9)], ("a", FOUND))
    assert "unmet" not in episode.record().to_json()
    assert "unmet" not in row_of(episode.record(), 1.0).to_json()


def test_a_look_up_finds_the_next_best_for_an_entry_that_may_not_be_shown():
    bank = hek_of([AGAIN, ALWAYS, entry("e1-third", title="a river", description="Other.")], ENCODER)
    found = Lookup(Retriever(bank, ENCODER), PromptConfig(), ToolConfig(min_score=-1.0)).now(
        ExperienceRequest("tool", "capital of a country")
    )
    assert [hit.entry.id for hit in found] == ["e1-again", "e1-always"]


def test_preconditions_are_checked_saved_and_edited(tmp_path, capsys):
    for broken, says in ((("soon",), "'soon' is not a precondition; use search>=N"), (("search>=0",), "'search>=0' is not")):
        with pytest.raises(HiExpError, match=says):
            hek_of([replace(AGAIN, when=broken)], ENCODER)
    with pytest.raises(HiExpError, match="only E1 are shown there"):
        hek_of([entry("e2-1", "e2", when=("empty",))], ENCODER)
    root = tmp_path / "hek"
    assert HEK.load(hek_of([AGAIN, ALWAYS], ENCODER).save(root)).entries[0].when == ("repeated",)
    assert main(["edit", str(root), "e1-always", "--when", "search>=2", "not empty", "--reason", "late"]) == 0
    assert "shown when:  search>=2 and not empty" in capsys.readouterr().out
    assert main(["edit", str(root), "e1-again", "--when", "--reason", "always"]) == 0
    assert [each.when for each in HEK.load(root).entries] == [(), ("search>=2", "not empty")]


def test_without_a_tool_there_is_nowhere_to_check_them(tmp_path, capsys):
    hek = hek_of([ALWAYS], ENCODER)
    replace(hek, header=replace(hek.header, domain="maths")).save(tmp_path / "hek")
    assert main(["edit", str(tmp_path / "hek"), ALWAYS.id, "--reason", "late", "--when", "search>=2"]) == 2
    assert "episodes of the domain maths have none; leave --when out" in capsys.readouterr().err


def test_preconditions_that_hold_hardly_ever_or_nearly_always_are_reported(tmp_path, capsys):
    seen = {"content": AGAIN.content_id, "level": "e1", "place": "tool", "score": 0.9, "p": 1.0}
    late = replace(ALWAYS, when=("search>=2",))

    def rows(fired, unmet, content=AGAIN.content_id):
        shown = [LedgerRow(1, f"q{i}", 0, "v", "full", 1.0, ({**seen, "content": content},)) for i in range(fired)]
        return [*shown, *(LedgerRow(1, f"r{i}", 0, "v", "full", 1.0, unmet=(content,)) for i in range(unmet))]

    def fault(fired, unmet):
        return firings(rows(fired, unmet), [AGAIN, late])[0].fault

    assert [fault(0, 49), fault(0, 50), fault(1, 49), fault(45, 5), fault(46, 4)] == ["", "hardly ever", "", "", "nearly always"]
    root = tmp_path / "hek"
    hek_of([AGAIN, late], ENCODER).save(root)
    remember_encoder(root, "hash:64")
    append_rows(root / LEDGER / "run.jsonl", rows(1, 99))
    assert [row.unmet for row in read_run(root / LEDGER / "run.jsonl")].count((AGAIN.content_id,)) == 99
    assert main(["ledger", str(root)]) == 0
    assert "e1-again: repeated holds hardly ever, 1 of the 100 times that it was found" in capsys.readouterr().out
    assert main(["ledger", str(root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["preconditions"]
    assert [(each["entry"], each["found"], each["fired"], each["fault"]) for each in found] == [
        ("e1-again", 100, 1, "hardly ever"),
        ("e1-always", 0, 0, None),
    ]


def test_a_record_comes_back_with_what_was_unmet():
    record = EpisodeRecord("q", "?", unmet=("a", "b"))
    assert EpisodeRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


@pytest.mark.parametrize(("options", "when"), [([], ()), (["--preconditions"], ("repeated",))])
def test_a_build_writes_those_of_the_diagnosis_if_asked(tmp_path, options, when):
    good = episode(("capital Noshak country", "capital"), number=0)
    bad = episode(("capital Noshak", "bread"), ("Noshak capital", "bread"), answer="Tehran", number=1)
    stopped = [two_hops(question_id="q2", number=0), episode(("Noshak", "other"), answer="Dushanbe", question_id="q2", number=1)]
    write_jsonl(tmp_path / "t.jsonl", [to_json(each) for each in (good, bad, *stopped)])
    assert (
        main(["build", "--trajectories", str(tmp_path / "t.jsonl"), "--encoder", "hash:64", "--out", str(tmp_path / "hek"), *options]) == 0
    )
    cases = {each.findings[0]: each for each in HEK.load(tmp_path / "hek").entries if each.level == "e1"}
    (again,) = [each for each in cases.values() if each.description.startswith("When a query brings nothing new, change it")]
    assert again.when == when and len(cases) > 1 and not any(each.when for each in cases.values() if each is not again)
