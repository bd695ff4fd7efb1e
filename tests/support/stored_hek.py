"""A HEK of two cases and a pattern, to be saved and loaded."""

from dataclasses import replace

from hiexp_verl.hek import HEK, Header
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.types import Entry

ENCODER = HashEncoder(32)


def entry(number: int, level="e1", **changes) -> Entry:
    return replace(
        Entry(f"{level}-{number:04d}", level, f"When it is case {number}", "Do the right thing.", questions=(f"q{number}",)), **changes
    )


def hek(*entries: Entry, **header) -> HEK:
    entries = entries or (entry(1), entry(2), entry(1, "e2", children=("e1-0001", "e1-0002")))
    return HEK(Header(ENCODER.identity, **header), tuple(entries), ENCODER.encode_passages([e.title for e in entries]))
