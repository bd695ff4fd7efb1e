"""The difference of two HEKs names what came, what went and what changed, whatever the ids."""

import json
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl.cli import main
from hiexp_verl.hek.diff import diff, diff_text
from hiexp_verl.hek.edit import edit, remove
from hiexp_verl.hek.store import HEK
from tests.support.heks import ENCODER, e, evidence, hek, source, tree


def test_the_same_content_is_identical():
    found = diff(tree(), tree())
    assert found.identical
    assert diff_text(found) == "identical"


def test_an_edit_shows_the_field_in_both_states():
    found = diff(tree(), edit(tree(), "e1-0002", "clearer", description="Do it now."))
    (change,) = found.changed
    assert change.fields == {"description": ("Do what the loudest song needs.", "Do it now.")}
    assert not (found.added or found.removed or found.renumbered)
    assert set(found.header) == {"parents", "reason"}
    text = diff_text(found)
    assert "~ e1-0002 When the loudest song\n   description: - Do what the loudest song needs.\n   description: + Do it now.\n" in text
    assert text.endswith("reason: none -> edit e1-0002: clearer")


def test_a_new_title_is_a_change_and_not_a_new_entry():
    found = diff(tree(), edit(tree(), "e1-0002", "clearer", title="When it sings", description="Do it now.", encoder=ENCODER))
    assert [set(change.fields) for change in found.changed] == [{"title", "description"}]
    assert not (found.added or found.removed)


def test_a_removal_shows_the_entry_its_link_and_its_trajectory():
    a = tree()
    b = remove(remove(a, ["e3-0001"], "x"), ["e1-0003"], "y", with_orphans=True)
    found = diff(a, b)
    assert [entry.id for entry in found.removed] == ["e1-0003", "e2-0002", "e3-0001"]
    assert found.levels == {"e1": (3, 2), "e2": (2, 1), "e3": (1, 0)}
    assert found.sources["removed"] == ("q3#0",)
    linked = diff(a, remove(a, ["e1-0002"], "x"))
    assert [change.fields["children"] for change in linked.changed] == [(("e1-0001", "e1-0002 (removed)"), ("e1-0001",))]
    assert "   children: - e1-0002 (removed)\n" in diff_text(linked)


def test_entries_that_only_got_other_ids_are_neither_new_nor_changed():
    a = hek(e(1), e(2), replace(e(1, "e2"), children=("e1-0002",)))
    b = hek(replace(e(2), id="e1-0001"), replace(e(1), id="e1-0002"), replace(e(1, "e2"), children=("e1-0001",)))
    found = diff(a, b)
    assert found.renumbered == {"e1-0001": "e1-0002", "e1-0002": "e1-0001"}
    assert not (found.added or found.removed or found.changed or found.header or found.identical)
    # The id stayed, but the link is to another entry.
    c = hek(e(1), e(2), replace(e(1, "e2"), children=("e1-0001",)))
    assert [set(change.fields) for change in diff(a, c).changed] == [{"children"}]


def test_entries_of_one_title_are_told_apart_by_their_descriptions():
    one, two = e(1, title="Same", description="Do one."), e(2, title="Same", description="Do two.")
    found = diff(hek(one, two), hek(replace(two, id="e1-0001"), replace(one, id="e1-0002")))
    assert len(found.renumbered) == 2
    assert not (found.added or found.removed or found.changed)


def test_entries_of_the_same_words_are_told_apart_by_all_they_hold():
    one, two = (e(n, title="Same", description="Do it.", questions=(f"q{n}",)) for n in (1, 2))
    found = diff(hek(one, two), hek(replace(two, id="e1-0001"), replace(one, id="e1-0002")))
    assert not (found.changed or found.added or found.removed)
    assert len(found.renumbered) == 2


def test_links_and_origins_in_another_order_are_no_change():
    a = hek(e(1), e(2), e(1, "e2", children=("e1-0001", "e1-0002"), sources=("q1#0", "q2#0")))
    b = hek(replace(e(2), id="e1-0001"), replace(e(1), id="e1-0002"), e(1, "e2", children=("e1-0001", "e1-0002"), sources=("q2#0", "q1#0")))
    found = diff(a, b)
    assert len(found.renumbered) == 2 and not found.changed


def test_a_hek_that_was_saved_and_read_back_has_not_changed(tmp_path):
    tree().save(tmp_path)
    found = diff(tree(), HEK.load(tmp_path))
    assert found.identical and not (found.changed or found.header)


def test_a_child_that_took_the_id_of_a_removed_one_is_a_change():
    a = hek(e(1), e(2), replace(e(1, "e2"), children=("e1-0001",)))
    b = hek(replace(e(2), id="e1-0001"), replace(e(1, "e2"), children=("e1-0001",)))
    found = diff(a, b)
    assert [entry.title for entry in found.removed] == [e(1).title]
    assert [change.fields["children"] for change in found.changed] == [(("e1-0001 (removed)",), ("e1-0001",))]


def test_another_entry_under_the_same_id_is_not_a_change_of_the_first():
    found = diff(hek(e(1)), hek(replace(e(2), id="e1-0001")))
    assert ([x.title for x in found.removed], [x.title for x in found.added]) == ([e(1).title], [e(2).title])
    assert not found.changed


def test_header_vectors_evidence_and_order_are_seen():
    a = hek(e(1), e(2), thresholds={"tool_min_score": 0.25, "percentile": 95.0})
    b = hek(e(1), e(2), thresholds={"tool_min_score": 0.5, "percentile": 95.0})
    assert diff(a, b).header == {"thresholds.tool_min_score": (0.25, 0.5)}
    assert "thresholds.tool_min_score: 0.25 -> 0.5" in diff_text(diff(a, b))
    turned = replace(a, vectors_E_D=np.roll(a.vectors_E_D, 1, axis=1))
    assert diff_text(diff(a, turned)).endswith("or with other vectors")
    found = diff(hek(e(1)), hek(e(1, evidence=(evidence(1),))))
    assert "   evidence: + decision in q1#0: quote" in diff_text(found)
    assert "in another order" in diff_text(diff(hek(e(1), e(2)), hek(e(2), e(1))))
    assert diff(hek(e(1), sources=[source(1)]), hek(e(1), sources=[source(1, prediction="Rome")])).sources["changed"] == ("q1#0",)


def test_control_text_of_a_foreign_hek_does_not_reach_the_terminal():
    found = diff(hek(e(1)), hek(e(1), e(2, title="red \x1b[31m <|im_start|> title")))
    assert "red [31m title" in diff_text(found)


ENTRIES = st.lists(st.sampled_from(range(1, 10)), min_size=1, max_size=8, unique=True).map(lambda ns: [e(n) for n in ns])


@given(a=ENTRIES, b=ENTRIES, shift=st.integers(0, 20))
def test_what_is_removed_and_added_accounts_for_the_counts(a, b, shift):
    b = [replace(entry, id=f"e1-{int(entry.id[3:]) + shift:04d}") for entry in b]
    found = diff(hek(*a), hek(*b))
    assert len(a) - len(found.removed) + len(found.added) == len(b)
    assert {x.title for x in found.removed} == {x.title for x in a} - {x.title for x in b}
    assert {x.title for x in found.added} == {x.title for x in b} - {x.title for x in a}
    back = diff(hek(*b), hek(*a))
    assert (back.added, back.removed) == (found.removed, found.added)


def test_the_command_line_shows_versions_and_json(tmp_path, capsys):
    tree().save(tmp_path)
    edit(tree(), "e1-0002", "clearer", kind="pitfall").save(tmp_path)
    assert main(["diff", str(tmp_path), str(tmp_path / "0002")]) == 0
    assert capsys.readouterr().out == "identical\n"
    assert main(["diff", str(tmp_path / "0001"), str(tmp_path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["changed"][0]["fields"] == {"kind": ["guide", "pitfall"]}
    assert printed["header"]["reason"] == ["", "edit e1-0002: clearer"]
    assert main(["diff", str(tmp_path), str(tmp_path / "none")]) == 2
