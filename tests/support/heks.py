"""Small HEKs for tests."""

from collections.abc import Sequence

from hiexp_verl.hek import HEK, Header
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.types import Entry, Evidence, Level, Source

ENCODER = HashEncoder(128)


def e(number: int, level: Level = "e1", title: str = "", description: str = "", **fields) -> Entry:
    """An entry that rests on question q<number> and trajectory q<number>#0."""
    values = {"questions": (f"q{number}",), "sources": (f"q{number}#0",)} | fields
    words = _WORDS[number % len(_WORDS)]
    return Entry(f"{level}-{number:04d}", level, title or f"When {words}", description or f"Do what {words} needs.", **values)


def source(number: int, question: str = "", **fields) -> Source:
    values = {"model": "m", "prediction": "Paris", "correct": True, "queries": ("capital",)} | fields
    return Source(f"q{number}#0", f"q{number}", question or f"Who knows {_WORDS[number % len(_WORDS)]}?", **values)


def evidence(number: int) -> Evidence:
    return Evidence(f"q{number}#0", 2, 0, 5, "decision", "quote")


def hek(*entries: Entry, sources: Sequence[Source] = (), **header) -> HEK:
    return HEK(Header(ENCODER.identity, **header), entries, ENCODER.encode_passages([each.title for each in entries]), tuple(sources))


def tree(**header) -> HEK:
    """Two patterns over three cases, and a strategy over the patterns."""
    return hek(
        e(1),
        e(2),
        e(3),
        e(1, "e2", "Patterns of film", children=("e1-0001", "e1-0002"), questions=("q1", "q2"), sources=("q1#0", "q2#0")),
        e(2, "e2", "Patterns of rivers", children=("e1-0003",), questions=("q3",), sources=("q3#0",)),
        e(1, "e3", "Everything there is", children=("e2-0001", "e2-0002"), questions=("q1", "q2", "q3"), sources=("q1#0", "q2#0", "q3#0")),
        sources=[source(n) for n in (1, 2, 3)],
        **header,
    )


# Unlike one another in their letters, so that no two are near-duplicates for the hash encoder.
_WORDS = (
    "zebra", "a queen of Poland", "the loudest song", "every third bridge", "old volcanoes", "jazz clubs", "winter sport", "chess", "mud", "gold",
)  # fmt: skip
