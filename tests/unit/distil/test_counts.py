"""Counters have short keys; their texts stand in one table."""

from hiexp_verl.distil.counts import label_of, table_of


def test_a_key_has_a_text_with_its_group_and_level():
    assert label_of("left_out.e1.not_json") == "left out: e1 not JSON"
    assert label_of("left_out.duplicate") == "left out: duplicate trajectories"
    assert label_of("written.e2") == "e2 written"
    assert label_of("both.e3") == "e3 in both"


def test_a_name_without_a_text_stands_for_itself():
    assert label_of("diagnosed.never_searched") == "diagnosed never_searched"


def test_counters_at_zero_are_not_listed():
    assert table_of({"trajectories": 12, "written.e1": 0}) == ["    12 trajectories"]
