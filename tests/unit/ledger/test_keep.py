"""Which entries leave: those that are shown to harm, few at a time, and those beyond the capacity."""

from hiexp_verl.ledger.credit import Credit
from hiexp_verl.ledger.keep import KeepConfig, leaving
from tests.support.stored_hek import entry, hek

ENTRIES = [entry(number) for number in range(1, 41)]


def credits(**shrunk):
    """Of entries by number, e.g. _3=-0.2; the standard error is 0.05, the exposures 200."""
    found = {}
    for name, value in shrunk.items():
        of = ENTRIES[int(name[1:]) - 1].content_id
        found[of] = Credit(of, "e1", 200, 50, 0.5, 0.5, value, 0.05, value, 0.05)
    return found


def ids(found):
    return [each.id for each in found]


def test_entries_are_retired_whose_upper_bound_is_below_zero():
    found = leaving(hek(*ENTRIES), credits(_3=-0.2, _4=-0.09, _5=0.3))
    assert ids(found) == ["e1-0003"] and "retired" in found[0].why and "-0.200 [-0.298, -0.102]" in found[0].why


def test_at_most_a_share_of_a_level_leaves_at_once_the_worst_first():
    found = leaving(hek(*ENTRIES), credits(_1=-0.2, _2=-0.4, _3=-0.3), KeepConfig(most=0.05))
    assert ids(found) == ["e1-0002", "e1-0003"]  # two of forty


def test_few_exposures_retire_nothing():
    assert leaving(hek(*ENTRIES), credits(_3=-0.2), KeepConfig(n_min=201)) == []


def test_beyond_the_capacity_the_lowest_bounds_leave_and_young_entries_stay():
    young = frozenset(each.content_id for each in ENTRIES[:2])
    found = leaving(hek(*ENTRIES), credits(_1=-0.05, _7=-0.05, _8=0.3), KeepConfig(e1=39), young)
    assert ids(found) == ["e1-0007"] and "capacity of 39 E1" in found[0].why
    assert "e1-0008" not in ids(leaving(hek(*ENTRIES), credits(_8=0.3), KeepConfig(e1=1)))
