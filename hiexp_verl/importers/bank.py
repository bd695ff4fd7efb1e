"""Experience banks of other programs as a HEK of flat entries: their words, their counters, no trajectories behind them."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hiexp_verl.domains.domain import UNMARKED
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.schema import Header
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.datasets import read_records
from hiexp_verl.io.rows import BadRow, parse_json, required, text_field
from hiexp_verl.models.encoder import Encoder
from hiexp_verl.scoring import normalise
from hiexp_verl.text import sanitise
from hiexp_verl.types import MAX_DESCRIPTION_CHARS, MAX_TITLE_CHARS, Entry, Kind, Level

_LONG = 100_000  # above every limit: what is too long is cut here, at a sentence
_SENTENCE_END = re.compile(r"(?<=[.!?])\s")
_HEADED = re.compile(r"^\[([^\]]{3,})\][.:]?\s*(.+)$", re.DOTALL)
_SECTION = re.compile(r"^##\s*(Title|Description|Content)\s*", re.MULTILINE | re.IGNORECASE)


_NUMBERED = re.compile(r"^#\s*Memory Item\b.*$", re.MULTILINE | re.IGNORECASE)
_ENDED_WELL = ("success", "successful", "succeeded", "true", "1", "1.0", "correct")


@dataclass(frozen=True)
class Item:
    """One piece of experience of another program."""

    when: str  # when it applies; "" where the bank does not say
    advice: str
    kind: Kind = "guide"
    right: int = 0  # uses that ended well and badly, where the bank counts them
    wrong: int = 0


def evolver(row: dict[str, Any]) -> Iterator[Item]:
    """Yield the principle of a row of EvolveR: `description`, `principle_type`, `usage_count`, `success_count`."""
    counts = (row.get(key) or 0 for key in ("usage_count", "success_count"))
    used, right = (int(n) if isinstance(n, float) and n.is_integer() else n for n in counts)
    if not (isinstance(used, int) and isinstance(right, int) and 0 <= right <= used):
        raise BadRow("usage_count and success_count must be whole numbers, the second at most the first", f"found {used!r}, {right!r}")
    kind: Kind = "pitfall" if str(row.get("principle_type", "")).startswith(("caution", "warn", "fail")) else "guide"
    yield Item("", text_field(row, "description"), kind, right, used - right)


def reme(row: dict[str, Any]) -> Iterator[Item]:
    """Yield the memory of a row of ReMe: `when_to_use`, `content`."""
    yield Item(text_field(row, "when_to_use"), text_field(row, "content"))


def youtu(row: dict[str, Any]) -> Iterator[Item]:
    """Yield the experiences of youtu-agent's one object: a text for each name, "[When]. Advice"."""
    for name in row:
        headed = _HEADED.match(text_field(row, name))
        yield Item(headed[1], headed[2]) if headed else Item("", text_field(row, name))


def reasoningbank(row: dict[str, Any]) -> Iterator[Item]:
    """Yield the items of a row of ReasoningBank: `memory_items` (Markdown with Title, Description and Content), `status`."""
    items = required(row, "memory_items")
    items = [items] if isinstance(items, str) and _SECTION.search(items) else items
    if not isinstance(items, list):
        raise BadRow("'memory_items' must be a list of texts", f"found {type(items).__name__}")
    ended_well = row.get("status") is None or str(row["status"]).strip().lower() in _ENDED_WELL
    for item in items:
        if isinstance(item, dict):
            pairs = [(name, str(item[name])) for name in ("title", "description", "content") if item.get(name)]
        else:
            _, *parts = _SECTION.split(_NUMBERED.sub("", str(item)))
            pairs = [(name.lower(), text.strip(" .:*\n")) for name, text in zip(parts[::2], parts[1::2], strict=True)]
        if not pairs:
            raise BadRow("a memory item has none of the headings ## Title, ## Description, ## Content", f"found {str(item)[:60]!r}")
        starts = [i for i, (name, _) in enumerate(pairs) if name == "title" or i == 0]  # a text may hold several items
        for start, end in zip(starts, [*starts[1:], len(pairs)], strict=True):
            found = dict(pairs[start:end])
            advice = found.get("content") or found.get("description") or found.get("title", "")
            yield Item(found.get("title", ""), advice, "guide" if ended_well else "pitfall")


BANKS: dict[str, Callable[[dict[str, Any]], Iterator[Item]]] = {
    "evolver": evolver,
    "reme": reme,
    "youtu": youtu,
    "reasoningbank": reasoningbank,
}


def import_bank(path: Path, format: str, encoder: Encoder, level: Level = "e2", domain: str = UNMARKED) -> tuple[HEK, Counter[str]]:
    """Return a HEK of the items of a bank, and the counts of items left out or shortened.

    An item becomes one entry without children: the title says when it applies (else it is the advice itself), the description is the
    advice, cut at a sentence. Its successes and failures become the counters `right` and `wrong`; the distiller is "imported from ...".

    Args:
        path: of JSON lines, a JSON list or parquet; of one JSON object for `youtu`.
        format: a key of `BANKS`.
        encoder: makes the vectors of the titles.
        level: of the entries: e2 and e3 go into the prompt, e1 into tool responses.
        domain: of the HEK, by its name.

    Raises:
        HiExpError: the file cannot be read, a row lacks a field of the format, or no item is left.
    """
    counts: Counter[str] = Counter()
    entries: dict[str, Entry] = {}
    for place, row in _rows(path, format):
        try:
            for item in BANKS[format](row):
                counts["items"] += 1
                _add(item, entries, counts, level)
        except BadRow as error:
            raise HiExpError(f"{place}: {error}; is --format {format} right? Formats are {', '.join(BANKS)}") from error
    if not entries:
        raise HiExpError(f"{path} holds no experience that can be used; is --format {format} right?")
    numbered = tuple(replace(entry, id=f"{level}-{number:04d}") for number, entry in enumerate(entries.values()))
    vectors_E_D = np.asarray(encoder.encode_passages([entry.title for entry in numbered]), dtype=np.float32)
    header = Header(encoder.identity, distiller=f"imported from {format}", counts={f"written.{level}": len(numbered)}, domain=domain)
    return HEK(header, numbered, vectors_E_D), counts


def _add(item: Item, entries: dict[str, Entry], counts: Counter[str], level: Level) -> None:
    advice = sanitise(item.advice, _LONG)
    title = sanitise(item.when, _LONG) or advice
    if not advice:
        counts["left out: no advice"] += 1
    elif (key := normalise(f"{title} {advice}")) in entries:
        counts["left out: the same words twice"] += 1
    else:
        shown = _shortened(advice, MAX_DESCRIPTION_CHARS)
        counts["shortened"] += shown != advice
        counters = {name: count for name, count in (("right", item.right), ("wrong", item.wrong)) if count}
        title = _shortened(title, MAX_TITLE_CHARS)
        entries[key] = Entry("", level, title, shown, item.kind, tags=("imported",), counters=counters)


def _rows(path: Path, format: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if format != "youtu":
        yield from read_records(path, "bank")
        return
    try:
        row = parse_json(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise HiExpError(f"bank {path} does not exist; give the path of a JSON file") from error
    except (ValueError, RecursionError) as error:
        raise HiExpError(f"bank {path} is not one JSON object ({error}); give the file that youtu-agent wrote") from error
    if not isinstance(row, dict):
        raise HiExpError(f"bank {path} is not one JSON object (found {type(row).__name__}); give the file that youtu-agent wrote")
    yield str(path), row


def _shortened(text: str, most: int) -> str:
    """Return whole sentences within the limit; the first one cut at a word where even it is longer."""
    if len(text) <= most:
        return text
    kept = ""
    for sentence in _SENTENCE_END.split(text):
        if len(kept) + len(sentence) + 1 > most:
            break
        kept = f"{kept} {sentence}".strip()
    return kept or sanitise(text, most)
