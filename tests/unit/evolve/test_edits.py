"""A model's edits of a proposal: strict answers, one edit of an entry, what is reworded keeps what it rests on."""

from dataclasses import replace
from math import inf

import pytest

from hiexp_verl.config import SearchConfig
from hiexp_verl.distil.distillers import PromptedDistiller
from hiexp_verl.distil.edits import Edit
from hiexp_verl.distil.merge import merge_heks
from hiexp_verl.distil.rules import RulesDistiller
from hiexp_verl.errors import HiExpError
from hiexp_verl.evolve.edits import Edits
from hiexp_verl.evolve.spec import EvolveSpec
from hiexp_verl.ledger.credit import Credit
from hiexp_verl.ledger.keep import leaving
from hiexp_verl.models.encoder import HashEncoder
from tests.support.factories import entry, hek_of
from tests.support.scripted_distiller import Scripted

ENCODER = HashEncoder(64)
TITLES = ("capital of a country by its peak", "river of a city by its bridge", "director of a film by its actor")
OLD = [entry(f"e1-000{i}", title=title, description=f"Old advice {i}.", questions=(f"q{i}",)) for i, title in enumerate(TITLES)]
PARENT = hek_of([*OLD, entry("e2-0001", "e2", "questions in two steps", "Split them.", children=("e1-0000", "e1-0001"))], ENCODER)
FRESH = [replace(each, description=f"New advice {i}.", questions=(f"new{i}",)) for i, each in enumerate(OLD)]
NEW = hek_of(FRESH, ENCODER)


def asked(*answers, new=NEW):
    """The edits that a model with these answers wants, and what it was asked."""
    replies = Scripted(list(answers))
    distiller = PromptedDistiller(replies)
    return Edits.asked(distiller, new, PARENT), replies.asked, distiller


def answer(op, number=0):
    return {"op": op, "number": number}


def test_each_new_entry_is_asked_about_beside_those_near_it():
    edits, prompts, _ = asked(answer("ADD"), answer("UPDATE", 1), answer("DELETE", 1))
    ((first, *_),) = prompts
    assert f"The new one: ({TITLES[0]}) New advice 0." in first and f"1. ({TITLES[0]}) Old advice 0." in first
    assert edits.reworded == {FRESH[1].content_id: OLD[1].content_id}
    assert edits.suspected == {OLD[2].content_id} and not edits.unneeded


def test_what_is_near_nothing_or_there_already_is_not_asked_about():
    far = hek_of([entry("e1-0001", title="zebra", description="Something else."), OLD[0]], ENCODER)
    edits, prompts, _ = asked(new=far)
    assert edits == Edits() and not prompts


UNREADABLE = (
    *("", "ADD", "[]", '{"op": "ADD"}', '{"op": "ADD", "number": 0, "more": 1}', '{"op": "REPLACE", "number": 1}'),
    *(
        '{"op": "UPDATE", "number": 0}',
        '{"op": "UPDATE", "number": 9}',
        '{"op": "DELETE", "number": true}',
        '{"op": "DELETE", "number": "1"}',
    ),
)


@pytest.mark.parametrize("text", UNREADABLE)
def test_an_answer_that_cannot_be_read_leaves_the_entry_out_and_is_counted(text):
    edits, _, distiller = asked(text, answer("ADD"), answer("NONE"))
    assert edits.unneeded == {FRESH[0].content_id, FRESH[2].content_id} and distiller.dropped["unclear_edit"] == 1


def test_of_two_edits_of_an_entry_the_first_counts():
    twice = hek_of([FRESH[0], replace(FRESH[0], id="e1-0009", description="Newer advice.")], ENCODER)
    edits, _, _ = asked(answer("UPDATE", 1), answer("DELETE", 1), new=twice)
    assert edits.reworded == {FRESH[0].content_id: OLD[0].content_id} and not edits.suspected


def test_a_reworded_entry_keeps_its_place_and_what_it_rests_on():
    edits, _, _ = asked(answer("UPDATE", 1), answer("NONE"), answer("ADD"))
    merged = merge_heks(PARENT, hek_of([FRESH[0], FRESH[2]], ENCODER), ENCODER)
    result, went = edits.applied(merged)
    (reworded,) = [each for each in result.entries if each.description == "New advice 0."]
    assert reworded.questions == ("new0", "q0") and went == {OLD[0].content_id: "reworded"}
    assert reworded.id in result.entry("e2-0001").children and "Old advice 0." not in [each.description for each in result.entries]
    assert result.levels == {"e1": 4, "e2": 1, "e3": 0} and len(result.vectors_E_D) == 5
    row = [each.id for each in result.entries].index(reworded.id)
    assert result.vectors_E_D[row] == pytest.approx(ENCODER.encode_passages([reworded.title])[0])


def test_a_reworded_entry_is_shown_where_the_old_one_was():
    edits, _, _ = asked(answer("UPDATE", 1), answer("NONE"), answer("NONE"))
    parent = replace(PARENT, entries=tuple(replace(each, when=("empty",)) if each is OLD[0] else each for each in PARENT.entries))
    result, _ = edits.applied(merge_heks(parent, hek_of([FRESH[0]], ENCODER), ENCODER))
    assert [each.description for each in result.entries if each.when == ("empty",)] == ["New advice 0."]


def test_an_update_of_what_was_united_already_changes_nothing():
    edits = Edits(reworded={"gone": OLD[0].content_id, FRESH[0].content_id: "gone"})
    assert edits.applied(PARENT) == (PARENT, {})


def test_a_suspected_entry_leaves_by_the_bound_alone():
    def credit(high, groups=3, shown=5.0):
        return Credit(OLD[0].content_id, "e1", shown, groups, 0.0, 0.5, -0.3, 0.1, high - 1.96 * 0.1, 0.1)

    def left(credit, suspected):
        return [each.id for each in leaving(PARENT, {OLD[0].content_id: credit}, suspected=suspected)]

    assert left(credit(-0.1), {OLD[0].content_id}) == ["e1-0000"] and left(credit(-0.1), ()) == []
    assert left(credit(0.1), {OLD[0].content_id}) == [], "the ledger decides, and not the model"
    assert left(replace(credit(-0.1, groups=0), exposures=0.0, error=inf), {OLD[0].content_id}) == [], "it was never shown"


def test_rules_add_all_and_refuse_edits(tmp_path):
    assert RulesDistiller().edit([(FRESH[0], OLD), (FRESH[1], OLD)]) == [Edit("ADD")] * 2
    files = {"questions": tmp_path / "q", "out": tmp_path / "o", "hek": tmp_path / "h"}
    with pytest.raises(HiExpError, match="needs a distiller that is a model"):
        EvolveSpec(model="DIR", search=SearchConfig(corpus="c.jsonl"), edits=True, **files)


def test_the_prompt_names_local_numbers_and_the_form_of_the_answer():
    _, prompts, _ = asked(answer("ADD"), answer("ADD"), answer("ADD"))
    assert all(prompt.count("\n1. (") == 1 and prompt.endswith("number is 0 for ADD and NONE.") for prompt in prompts[0])
