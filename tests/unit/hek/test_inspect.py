"""An entry is shown with where it comes from: rollouts side by side, the step at which they part, the evidence."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiexp_verl.cli import main
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek import inspect_entry, inspect_hek
from hiexp_verl.hek.provenance import SideBySide, actions, comparisons, excerpt, most_telling, neighbours, read_transcripts
from hiexp_verl.hek.text_view import entry_json
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.types import Evidence, Source
from tests.support.factories import entry
from tests.support.shown_hek import EVIDENCE, FAILURE, SUCCESS, hek


def compare(*sources):
    return comparisons(entry(sources=tuple(s.id for s in sources)), {s.id: s for s in sources})


def made(id, correct, *queries, prediction="x", question_id="q1"):
    return Source(id, question_id, "Why?", "m", prediction, correct, queries)


# ---- comparisons -----------------------------------------------------------------------------------------------------


def test_a_failure_stands_beside_the_success_of_its_question():
    wrong, right, other = made("q1#0", False, "a1"), made("q1#1", True, "a1", "b1"), made("q2#0", False, question_id="q2")
    assert compare(wrong, other, right) == [SideBySide(wrong, right, 1), SideBySide(other, None, None)]


def test_one_success_serves_several_failures():
    first, second, right = made("1", False, "a1"), made("2", False, "b1"), made("3", True, "a1")
    assert [(c.failure, c.success) for c in compare(right, first, second)] == [(first, right), (second, right)]


def test_of_several_successes_the_one_that_went_along_longest_is_compared_and_none_is_lost():
    failure, other, near = made("1", False, "a1", "b1"), made("2", True, "c1"), made("3", True, "a1", "d1")
    assert [(c.failure, c.success) for c in compare(other, near, failure)] == [(failure, near), (None, other)]


@pytest.mark.parametrize(
    ("failed", "succeeded", "at"),
    [
        (("a1", "b1"), ("a1", "c1"), 1),
        (("Capital of France",), ("France capital", "x1"), 1),  # another order is no difference; then one answers, the other searches
        ((), ("a1",), 0),
        (("a1",), ("a1",), 1),  # the answers differ
    ],
)
def test_the_first_action_that_differs_is_found(failed, succeeded, at):
    (found,) = compare(made("1", False, *failed, prediction="Rome"), made("2", True, *succeeded, prediction="Paris"))
    assert found.differ_at == at
    assert actions(found.failure)[at] != actions(found.success)[at]


def test_rollouts_that_do_the_same_do_not_part():
    assert compare(made("1", False, "a1", prediction="Paris."), made("2", True, "a1", prediction="paris"))[0].differ_at is None


def test_a_source_without_a_record_is_left_out():
    assert comparisons(entry(sources=("gone",)), {}) == []


# ---- links -----------------------------------------------------------------------------------------------------------


def test_neighbours_are_the_other_children_of_the_parent():
    bank = hek()
    assert [[other.id for other in neighbours(bank, bank.entry(name))] for name in ("e1-a", "e1-b", "e2-a")] == [["e1-b"], ["e1-a"], []]
    assert "neighbour:   e1-b capital of a country" in inspect_entry(bank, "e1-a")


def test_the_most_telling_rollouts_did_the_same_for_longest():
    soon = made("1", False, "a1"), made("2", True, "b1")
    late = made("3", False, "a1", "b1", question_id="q2"), made("4", True, "a1", "c1", "d1", question_id="q2")
    short = made("5", False, "a1", "b1", question_id="q3"), made("6", True, "a1", "c1", question_id="q3")
    found = most_telling(compare(*soon, *late, *short))
    assert found == SideBySide(*short, 1), "both pairs part at the second search; this one makes four, the other five"
    assert most_telling(compare(soon[0], late[1])) is None, "no question has both"


def test_a_pattern_leads_down_to_its_most_telling_rollouts():
    bank = hek()
    bank = replace(bank, entries=(*bank.entries[:2], replace(bank.entries[2], sources=("q1#0", "q1#1"))))
    assert "telling:     q1#1 beside q1#0, alike until they part" in inspect_entry(bank, "e2-a")
    row = entry_json(bank, "e2-a")
    assert (row["telling"], row["neighbours"], entry_json(bank, "e1-a")["neighbours"]) == ([["q1#1", "q1#0"]], [], ["e1-b"])
    assert "telling" not in inspect_entry(bank, "e1-a"), "a case shows its one comparison"


# ---- transcripts -----------------------------------------------------------------------------------------------------


def test_an_excerpt_is_the_document_around_the_span():
    found = excerpt(EVIDENCE, {"q1#1": FAILURE})
    assert found is not None
    assert (found.before, found.span) == ('Doc 1(Title: "Noshak") Noshak is a mountain in ', "Afghanistan")
    assert found.after == ". It is the highest point of Afghanistan."
    assert excerpt(EVIDENCE, {}) is None


def test_a_long_document_is_cut_around_the_span():
    long = replace(FAILURE, messages=({"role": "tool", "content": "a" * 2000 + "SPAN" + "b" * 2000},))
    found = excerpt(Evidence("q1#1", 0, 2000, 2004, "", ""), {"q1#1": long})
    assert found is not None
    assert (found.before, found.span, found.after) == ("…" + "a" * 600, "SPAN", "b" * 600 + "…")


@pytest.mark.parametrize("place", [(99, 0, 1), (-1, 0, 1), (3, 0, 99_999), (3, 5, 4), (3, -1, 4)])
def test_evidence_that_points_nowhere_is_refused(place):
    message, start, end = place
    with pytest.raises(HiExpError, match="built from"):
        excerpt(replace(EVIDENCE, message=message, start=start, end=end), {"q1#1": FAILURE})


def test_transcripts_of_another_run_are_refused(tmp_path):
    bank = hek()
    sources = {s.id: s for s in bank.sources}
    right, wrong, other = tmp_path / "right.jsonl", tmp_path / "wrong.jsonl", tmp_path / "other.jsonl"
    write_jsonl(right, [SUCCESS, FAILURE])
    write_jsonl(wrong, [replace(FAILURE, prediction="Oslo")])
    write_jsonl(other, [replace(FAILURE, id="q7#1")])
    assert set(read_transcripts([right], bank.entries, sources)) == {"q1#1"}
    assert set(read_transcripts([wrong, right], bank.entries, sources)) == {"q1#1"}
    with pytest.raises(HiExpError, match="is not the one in the HEK"):
        read_transcripts([wrong], bank.entries, sources)
    with pytest.raises(HiExpError, match="holds none of the 1 trajectories"):
        read_transcripts([other], bank.entries, sources)


# ---- text ------------------------------------------------------------------------------------------------------------

# 72 characters leave (72 - 8) / 2 = 32 for a column.
SHOWN = """\
question q1: What is the capital of the country whose highest point is
Noshak?
     FAILURE q1#1 (test)              | success q1#0 (test)
     ---------------------------------+---------------------------------
  1  search: Noshak highest point     | search: Noshak highest point
     country                          | country
> 2  answer: Paris                    | search: capital of Afghanistan
  3                                   | answer: Kabul

the answer was here: q1#1, characters 61 to 72 of message 3
  "a mountain in X"
"""


def test_failure_and_success_stand_side_by_side_with_an_arrow_where_they_part():
    text = inspect_entry(hek(), "e1-a", width=72)
    assert text.endswith(SHOWN.rstrip())
    assert "tags:        bridge:peak" in text
    assert "counter:     merged 3" in text
    assert "parent:      e2-a a pattern" in text


def test_the_document_around_the_evidence_is_shown_when_transcripts_are_given():
    text = inspect_entry(hek(), "e1-a", {"q1#1": FAILURE})
    assert "Noshak is a mountain in [[Afghanistan]]. It is" in " ".join(text.split())


@settings(deadline=None)
@given(st.integers(45, 250))
def test_the_table_fits_the_terminal(width):
    lines = inspect_entry(hek(), "e1-a", width=width).splitlines()
    table = lines[next(i for i, line in enumerate(lines) if line.startswith("question q1")) :]
    assert max(map(len, table)) <= width


def test_what_a_model_wrote_cannot_steer_the_terminal():
    evil = "\x1b[2J\x9b2J\u202eabc\nparent: forged"
    bank = hek(title=evil, evidence=(replace(EVIDENCE, quote=evil, what=evil),))
    for text in (inspect_entry(bank, "e1-a"), inspect_hek(bank)):
        assert not set(text) & set("\x1b\x9b\u202e")
        assert not any(line.startswith("parent: forged") for line in text.splitlines())


def test_a_long_history_is_cut_and_says_so():
    bank = hek(evidence=(EVIDENCE,) * 11)
    assert "... and 3 more pieces of evidence" in inspect_entry(bank, "e1-a")
    assert len(entry_json(bank, "e1-a")["evidence"]) == 11


# ---- command line ----------------------------------------------------------------------------------------------------


def test_json_has_all_of_it(tmp_path, capsys):
    root, rollouts = tmp_path / "hek", tmp_path / "t.jsonl"
    hek().save(root)
    write_jsonl(rollouts, [SUCCESS, FAILURE])
    assert main(["inspect", str(root), "e1-a", "--json", "--trajectories", str(rollouts)]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["id"], row["parents"], row["counters"]) == ("e1-a", ["e2-a"], {"merged": 3})
    assert [(c["failure"]["id"], c["success"]["queries"][1], c["differ_at"]) for c in row["comparisons"]] == [
        ("q1#1", "capital of Afghanistan", 1)
    ]
    assert row["evidence"][0]["quote"] == "a mountain in X"
    assert row["excerpts"][0]["span"] == "Afghanistan"


def test_the_page_is_written_and_named(tmp_path, capsys):
    root, page = tmp_path / "hek", tmp_path / "hek.html"
    hek().save(root)
    assert main(["inspect", str(root), "--html", str(page), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"html": str(page), "bytes": page.stat().st_size}


@pytest.mark.parametrize(("arguments", "fault"), [(["--trajectories", "x"], "give an ENTRY"), (["e1-a", "--html", "x"], "leave out")])
def test_options_that_make_no_sense_together_are_refused(tmp_path, capsys, arguments, fault):
    hek().save(tmp_path)
    assert main(["inspect", str(tmp_path), *arguments]) == 2
    assert fault in capsys.readouterr().err
