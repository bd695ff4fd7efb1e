"""Two HEKs become one in which everything still has its origin and no id means two things."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hiexp_verl.cli import main
from hiexp_verl.distil.merge import merge_heks
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek import HEK, Retriever
from hiexp_verl.hek.edit import edit
from hiexp_verl.hek.opening import HINT, remember_encoder
from tests.support.heks import ENCODER, e, evidence, hek, source, tree


def two():
    """q1 to q3 in the first, q2 to q5 in the second; case 2 is the same, and so is one pattern."""
    b = hek(
        replace(e(2, evidence=(evidence(2),)), id="e1-0001", questions=("q2", "q4"), sources=("q2#0", "q4#0")),
        replace(e(5), id="e1-0002"),
        e(1, "e2", "Patterns of film, too", e(1, "e2").description, children=("e1-0001", "e1-0002"), questions=("q2", "q4", "q5")),
        sources=[source(n) for n in (2, 4, 5)],
    )
    return tree(), b


def test_entries_of_both_are_there_and_the_same_are_one():
    a, b = two()
    merged = merge_heks(a, b, ENCODER)
    assert merged.levels == {"e1": 4, "e2": 2, "e3": 1}
    united = merged.entry("e1-0002")
    assert (united.title, united.questions, united.sources) == ("When the loudest song", ("q2", "q4"), ("q2#0", "q4#0"))
    assert (united.evidence, united.counters) == ((evidence(2),), {"merged": 1})
    assert merged.entry("e1-0004").questions == ("q5",)
    # The pattern of both has the children of both: 1 and 2 of the first; 2 (united) and 5 (now 4) of the second.
    assert merged.entry("e2-0001").children == ("e1-0001", "e1-0002", "e1-0004")
    assert merged.entry("e2-0001").title == "Patterns of film"
    assert merged.entry("e3-0001").children == ("e2-0001", "e2-0002")
    assert [s.id for s in merged.sources] == ["q1#0", "q2#0", "q3#0", "q4#0", "q5#0"]
    assert merged.header.counts["both.e1"] == 1


def test_each_entry_keeps_its_vector():
    a, b = two()
    merged = merge_heks(a, b, ENCODER)
    assert np.array_equal(merged.vectors_E_D, ENCODER.encode_passages([x.title for x in merged.entries]))


def test_the_header_says_where_it_comes_from_and_takes_the_stricter_thresholds():
    one = {"tool_min_score": 0.25, "percentile": 95.0, "e1_ward_max_height": 1.0}
    two = {"tool_min_score": 0.3, "percentile": 95.0, "e1_ward_max_height": 1.5, "e2_ward_max_height": 2.0}
    a = hek(e(1), thresholds=one, distiller="rules", models=("m2",), prompts={"p": "a" * 64, "q": "c" * 64})
    b = hek(e(2), thresholds=two, distiller="teacher", models=("m1", "m2"), prompts={"p": "b" * 64, "q": "c" * 64})
    header = merge_heks(a, b, ENCODER).header
    assert header.parents == (a.content_hash(), b.content_hash())
    assert header.thresholds == {"tool_min_score": 0.3, "percentile": 95.0, "e1_ward_max_height": 1.0, "e2_ward_max_height": 2.0}
    assert header.reason == (
        f"merge of {a.content_hash()[:12]} and {b.content_hash()[:12]}; "
        "of thresholds that differed, the stricter: e1_ward_max_height 1, e2_ward_max_height 2, tool_min_score 0.3"
    )
    assert (header.distiller, header.models) == ("rules, teacher", ("m1", "m2"))
    assert header.prompts == {"p": "a" * 64, "p bbbbbbbbbbbb": "b" * 64, "q": "c" * 64}


def test_near_duplicate_questions_are_united_within_and_across():
    same = "Which river is long?"
    a = hek(e(1), sources=[source(1, same)], near_duplicates={"q1": ("x",), "x": ("q1",)})
    b = hek(e(2), sources=[source(2, "Long is which river?")], near_duplicates={"x": ("y",), "y": ("x",)})
    merged = merge_heks(a, b, ENCODER)
    groups = merged.header.near_duplicates
    assert groups == {"q1": ("q2", "x", "y"), "q2": ("q1", "x", "y"), "x": ("q1", "q2", "y"), "y": ("q1", "q2", "x")}
    assert Retriever(merged, ENCODER).hidden_rows("y") == {0, 1}


def test_an_entry_goes_into_the_closest_one():
    a = hek(e(1, title="When the films are long", description="Look."), e(2, title="When the films are long.", description="Look."))
    b = hek(e(2, title="When the films are long.", description="Look.", questions=("q7",)))
    merged = merge_heks(a, b, ENCODER)
    assert [x.questions for x in merged.entries] == [("q1",), ("q2", "q7")]


def test_versions_of_one_hek_do_not_count_as_near_duplicates():
    a = tree()
    merged = merge_heks(a, edit(a, "e1-0001", "x", kind="pitfall"), ENCODER)
    assert [x.counters for x in merged.entries] == [{"merged": 1}, {}, {}, {}, {}, {}]
    with pytest.raises(HiExpError, match="the same"):
        merge_heks(a, tree(), ENCODER)


def test_a_question_id_with_two_meanings_is_refused_or_prefixed():
    a = hek(e(1, evidence=(evidence(1),)), sources=[source(1, "Who?")])
    b = hek(
        e(2, questions=("q1",), sources=("q1#0",), evidence=(evidence(1),)),
        sources=[source(1, "Where?")],
        near_duplicates={"q1": ("q9",), "q9": ("q1",)},
    )
    with pytest.raises(HiExpError, match=r"question id 'q1' means another question.*--prefix"):
        merge_heks(a, b, ENCODER)
    merged = merge_heks(a, b, ENCODER, prefix="b-")
    second = merged.entry("e1-0002")
    assert (second.questions, second.sources, second.evidence[0].trajectory) == (("b-q1",), ("b-q1#0",), "b-q1#0")
    assert [(s.id, s.question_id) for s in merged.sources] == [("q1#0", "q1"), ("b-q1#0", "b-q1")]
    assert merged.header.near_duplicates == {"b-q1": ("b-q9",), "b-q9": ("b-q1",)}
    assert merged.header.parents[1] == b.content_hash()
    assert merged.entry("e1-0001").questions == ("q1",)


def test_runs_on_the_same_questions_keep_the_question_ids():
    a, b = hek(e(1), sources=[source(1)]), hek(e(2, questions=("q1",), sources=("q1#0",)), sources=[source(1, prediction="Rome")])
    with pytest.raises(HiExpError, match="trajectory id 'q1#0'"):
        merge_heks(a, b, ENCODER)
    merged = merge_heks(a, b, ENCODER, prefix="run2/")
    assert [(x.questions, x.sources) for x in merged.entries] == [(("q1",), ("q1#0",)), (("q1",), ("run2/q1#0",))]


def test_a_prefix_that_does_not_help_is_refused():
    a = hek(e(1), sources=[source(1, "Who?"), replace(source(1, "When?"), id="b-q1#0", question_id="b-q1")])
    with pytest.raises(HiExpError, match="give another"):
        merge_heks(a, hek(e(2), sources=[source(1, "Where?")]), ENCODER, prefix="b-")


def test_another_encoder_is_refused():
    other = replace(ENCODER.identity, sha256="0" * 64)
    foreign = hek(e(2))
    foreign = replace(foreign, header=replace(foreign.header, encoder=other))
    for pair in ((hek(e(1)), foreign), (foreign, hek(e(1)))):
        with pytest.raises(HiExpError, match="sha256"):
            merge_heks(*pair, ENCODER)


NUMBERS = st.lists(st.integers(1, 9), min_size=1, max_size=6, unique=True)


@settings(deadline=None)
@given(one=NUMBERS, two=NUMBERS, parents=st.booleans())
def test_nothing_is_lost_in_a_merge(one, two, parents):
    def made(numbers, text):
        above = [e(1, "e2", text, text, children=tuple(f"e1-{n:04d}" for n in numbers))] if parents else []
        return hek(*(e(n) for n in numbers), *above, sources=[source(n) for n in numbers])

    assume(one != two)
    a, b = made(one, "Films and what they are about"), made(two, "Rivers, lakes, mountains")
    merged = merge_heks(a, b, ENCODER)
    cases = [x for x in merged.entries if x.level == "e1"]
    assert {x.title for x in cases} == {e(n).title for n in {*one, *two}}
    assert len(cases) == len({*one, *two})
    assert {s.id for s in merged.sources} == {f"q{n}#0" for n in {*one, *two}}
    if parents:
        for above, numbers in ((merged.entry("e2-0001"), one), (merged.entry("e2-0002"), two)):
            assert {merged.entry(child).title for child in above.children} == {e(n).title for n in numbers}


def test_the_command_line_merges_into_a_new_hek(tmp_path, capsys):
    for each, name in zip(two(), ("a", "b"), strict=True):
        each.save(tmp_path / name)
        remember_encoder(tmp_path / name, "hash:128")
    command = ["merge", str(tmp_path / "a"), str(tmp_path / "b"), "--out"]
    assert main([*command, str(tmp_path / "c")]) == 0
    assert f"4 E1, 2 E2, 1 E3 in {tmp_path / 'c' / '0001'}" in capsys.readouterr().out
    assert HEK.load(tmp_path / "c").header.parents == tuple(x.content_hash() for x in two())
    assert (tmp_path / "c" / HINT).read_text() == "hash:128\n"
    assert main([*command, str(tmp_path / "a")]) == 0
    assert HEK.load(tmp_path / "a" / "0002").entries == HEK.load(tmp_path / "c").entries
    (tmp_path / "file").write_text("")
    assert main([*command, str(tmp_path / "file")]) == 2
