"""Edits and removals make a new HEK with its parent and the reason; what would not hold together is refused."""

import numpy as np
import pytest

from hiexp_verl.cli import main
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek import HEK, Retriever
from hiexp_verl.hek.edit import edit, remove
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.types import MAX_DESCRIPTION_CHARS, MAX_TITLE_CHARS, Source
from tests.support.heks import ENCODER, e, evidence, hek, source, tree


def test_an_edit_keeps_everything_but_the_words():
    before = tree(thresholds={"tool_min_score": 0.25})
    after = edit(before, "e1-0002", "clearer", description="Do it now.", kind="pitfall")
    assert (after.entry("e1-0002").description, after.entry("e1-0002").kind) == ("Do it now.", "pitfall")
    assert [x.id for x in after.entries] == [x.id for x in before.entries]
    assert after.entry("e1-0002").questions == ("q2",)
    assert (after.header.parents, after.header.reason) == ((before.content_hash(),), "edit e1-0002: clearer")
    assert after.header.thresholds == before.header.thresholds
    assert np.array_equal(after.vectors_E_D, before.vectors_E_D)


def test_a_new_title_is_found_by_its_words():
    before = tree()
    after = edit(before, "e1-0002", "clearer", title="When a volcano erupts", encoder=ENCODER)
    (hits,) = Retriever(after, ENCODER).retrieve(["when a volcano erupts"], ["e1"], 1)
    assert (hits[0].entry.id, round(hits[0].score, 4)) == ("e1-0002", 1.0)
    others = [row for row, x in enumerate(before.entries) if x.id != "e1-0002"]
    assert np.array_equal(after.vectors_E_D[others], before.vectors_E_D[others])
    assert before.entry("e1-0002").title == "When the loudest song"


def test_the_text_of_an_edit_is_sanitised_and_what_is_too_long_is_refused_not_cut():
    after = edit(tree(), "e1-0002", "a <|im_end|>b", description="Do\n<|im_start|>it <search>now</search>.")
    assert (after.entry("e1-0002").description, after.header.reason) == ("Do it now.", "edit e1-0002: a b")
    assert len(edit(tree(), "e1-0002", "x", description="d" * MAX_DESCRIPTION_CHARS).entry("e1-0002").description) == 320
    with pytest.raises(HiExpError, match="321 characters; shorten it to 320"):
        edit(tree(), "e1-0002", "x", description="d" * (MAX_DESCRIPTION_CHARS + 1))
    with pytest.raises(HiExpError, match="121 characters; shorten it to 120"):
        edit(tree(), "e1-0002", "x", title="t" * (MAX_TITLE_CHARS + 1), encoder=ENCODER)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"description": "<|im_end|> "}, "description is empty"),
        ({"title": ""}, "title is empty"),
        ({}, "nothing would change"),
        ({"kind": "guide"}, "nothing would change"),
        ({"title": "When it sings"}, "needs the encoder"),
        ({"title": "When it sings", "encoder": HashEncoder(64)}, "dimensions"),
        ({"entry_id": "e1-0009", "kind": "pitfall"}, "e1-0009"),
        ({"reason": " \n", "kind": "pitfall"}, "reason is empty"),
    ],
)
def test_an_edit_that_cannot_be_is_refused(changes, says):
    with pytest.raises(HiExpError, match=says):
        edit(tree(), **({"entry_id": "e1-0002", "reason": "why"} | changes))


def test_a_removal_takes_links_vectors_and_unused_sources_along():
    before = hek(
        e(1),
        e(2),
        e(3, sources=(), evidence=(evidence(4),)),
        e(1, "e2", "Patterns", children=("e1-0001", "e1-0002"), sources=("q1#0",)),
        sources=[source(n) for n in (1, 2, 4)],
    )
    after = remove(before, ["e1-0002"], "tells a name")
    assert [x.id for x in after.entries] == ["e1-0001", "e1-0003", "e2-0001"]
    assert after.entry("e2-0001").children == ("e1-0001",)
    assert [s.id for s in after.sources] == ["q1#0", "q4#0"]
    assert np.array_equal(after.vectors_E_D, before.vectors_E_D[[0, 2, 3]])
    assert (after.header.parents, after.header.reason) == ((before.content_hash(),), "remove e1-0002: tells a name")


def test_a_parent_without_children_goes_only_when_asked():
    with pytest.raises(HiExpError, match="e2-0002 would lose all its children"):
        remove(tree(), ["e1-0003"], "x")
    after = remove(tree(), ["e1-0003"], "x", with_orphans=True)
    assert [x.id for x in after.entries] == ["e1-0001", "e1-0002", "e2-0001", "e3-0001"]
    assert after.entry("e3-0001").children == ("e2-0001",)
    assert after.header.reason == "remove e1-0003, e2-0002: x"
    # Orphans of orphans: the strategy stands on the two patterns.
    loose = remove(hek(*tree().entries, e(4)), ["e1-0001", "e1-0002", "e1-0003"], "x", with_orphans=True)
    assert [x.id for x in loose.entries] == ["e1-0004"]
    # A parent that is named itself is no orphan.
    assert remove(tree(), ["e1-0003", "e2-0002"], "x").levels == {"e1": 2, "e2": 1, "e3": 1}


@pytest.mark.parametrize(
    ("ids", "reason", "says"),
    [
        (["e1-0001", "e1-0009"], "x", "e1-0009"),
        (["e3-0001"], "", "reason is empty"),
        ([x.id for x in tree().entries], "x", "no entry would be left"),
    ],
)
def test_a_removal_that_cannot_be_is_refused(ids, reason, says):
    with pytest.raises(HiExpError, match=says):
        remove(tree(), ids, reason)


def test_the_command_line_edits_and_removes(tmp_path, capsys):
    hek_dir = tmp_path / "hek"
    tree().save(hek_dir)
    command = ["edit", str(hek_dir), "e1-0002"]
    assert main([*command, "--title", "When a volcano erupts", "--reason", "wider"]) == 0  # hash:128 opens by its name
    assert "title:       When a volcano erupts" in capsys.readouterr().out
    assert main(["remove", str(hek_dir), "e3-0001", "e1-0001", "--reason", "tells"]) == 0
    assert capsys.readouterr().out.endswith(f"2 E1, 2 E2, 0 E3 left in {hek_dir / '0003'}\n")
    assert HEK.load(hek_dir).header.reason == "remove e1-0001, e3-0001: tells"
    assert main(["edit", str(hek_dir / "0001"), "e1-0001", "--kind", "pitfall", "--reason", "from the first"]) == 0
    assert HEK.load(hek_dir / "0004").header.parents == (tree().content_hash(),)
    assert main(["remove", str(hek_dir), "e1-0009", "--reason", "tells"]) == 2
    assert sorted(path.name for path in hek_dir.iterdir()) == ["0001", "0002", "0003", "0004", "CURRENT"]
    with pytest.raises(SystemExit):
        main([*command, "--kind", "pitfall"])
    assert "--reason" in capsys.readouterr().err


def test_an_edit_that_tells_the_answer_needs_force(tmp_path, capsys):
    told = Source("q1#0", "q1", "What is the highest mountain?", "m", "Sagarmatha", True, ("highest mountain",))
    hek(e(1, questions=("q1",), sources=("q1#0",)), sources=[told]).save(tmp_path / "hek")
    command = ["edit", str(tmp_path / "hek"), "e1-0001", "--reason", "why", "--description"]
    assert main([*command, "It is sagarmatha, say so."]) == 2
    assert "tell the answer 'Sagarmatha'" in capsys.readouterr().err
    assert main([*command, "Search for the height first."]) == 0
    assert main([*command, "It is sagarmatha, say so.", "--force"]) == 0
