"""What the campaign breaks on purpose, and what must hold: one function for each kind, which returns counts.

`tracebacks` and `wrong` (a silent wrong value, a lost or doubled row, a changed content that is accepted) must be 0.
"""

from collections.abc import Callable
from pathlib import Path

from tests.chaos.arguments import addresses, odd_commands, settings
from tests.chaos.counting import Counts
from tests.chaos.inputs import inputs, replies
from tests.chaos.processes import changes_at_once, full_disks, kills, writers
from tests.chaos.stored import damaged_runs, forged, mutations

# Kind -> what it does, rounds of the short and of the long campaign.
KINDS: dict[str, tuple[Callable[[Path, int, int], Counts], int, int]] = {
    "kills": (kills, 1, 60),
    "writers": (writers, 2, 60),
    "changes at once": (changes_at_once, 2, 60),
    "mutations": (mutations, 200, 5_000),
    "forged HEKs": (forged, 20, 1_000),
    "damaged runs": (damaged_runs, 40, 2_000),
    "full disks": (full_disks, 3, 120),
    "odd command lines": (odd_commands, 150, 3_000),
    "settings": (settings, 200, 5_000),
    "addresses": (addresses, 200, 3_000),
    "inputs": (inputs, 1_500, 30_000),
    "replies": (replies, 500, 10_000),
}
