"""The short campaign: kills, writers, mutations, full disks, odd command lines, fuzzed inputs and replies. `make chaos` is the long one."""

import pytest

from tests.chaos.campaign import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_leaked_or_raised(tmp_path, kind):
    function, rounds, _ = KINDS[kind]
    counts = function(tmp_path, rounds, 0)
    assert not {key: count for key, count in counts.items() if count and key.startswith(("traceback", "wrong", "left unfinished"))}
    assert sum(counts.values()) >= rounds
