"""The credit of a HEK's entries as a table and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from math import inf, isfinite
from pathlib import Path
from typing import Any

from hiexp_verl.hek.store import HEK
from hiexp_verl.ledger.credit import Z95, Credit, Credits, credit
from hiexp_verl.ledger.drift import Span
from hiexp_verl.ledger.rows import LEDGER, read_ledger
from hiexp_verl.types import Entry

_HEADS = ("entry", "shown", "groups", "with it", "without", "effect", "best guess", "95% interval")


def credits_json(hek: HEK, credits: Credits) -> dict[str, Any]:
    """Return what the estimates rest on, and one object for each entry of the HEK that has been shown."""
    known = _known(hek, credits)
    return {
        "rollouts": credits.rows,
        "without_baseline": credits.without_baseline,
        "masked": dict(credits.masked),
        "bias": {place: {"mean": mean, "error": error} for place, (mean, error) in credits.bias.items()},
        "not_shown": len(hek.entries) - len(known),
        "entries": [{"entry": entry.id, **_finite({**asdict(c), "low": c.low, "high": c.high})} for entry, c in known],
    }


def credits_text(hek: HEK, credits: Credits, most: int) -> str:
    """Return a table of at most so many entries, those first whose interval is farthest from 0, and a line about the others."""
    known = _known(hek, credits)
    clearest = sorted(known, key=lambda pair: (-abs(pair[1].shrunk) / (pair[1].shrunk_error or 1e-9), pair[0].id))
    rows = [_HEADS, *(_row(entry, c) for entry, c in clearest[:most])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    more = f", {len(known) - most} more are shown with --most or --json" if len(known) > most else ""
    helps, harms = sum(c.low > 0 for _, c in known), sum(c.high < 0 for _, c in known)
    rest = f"{helps} entries help, {harms} harm, by their intervals; {len(hek.entries) - len(known)} were never shown{more}"
    return "\n".join([*_basis(credits), "", *lines, "", rest])


def spans_json(spans: Sequence[Span]) -> list[dict[str, Any]]:
    """Return one object for each version that was shown in mixed groups, the first one first."""
    names = ("hek", "first", "last", "groups", "gap", "error", "reward")
    return [_finite({name: getattr(span, name) for name in names}) for span in spans]


def spans_text(spans: Sequence[Span]) -> str:
    """Return the gap between rollouts with and without experience by version; nothing for fewer than two."""
    if len(spans) < 2:
        return ""
    lines = []
    for span in spans:
        bounds = f" [{span.gap - Z95 * span.error:+.3f}, {span.gap + Z95 * span.error:+.3f}]" if isfinite(span.error) else ""
        reward = f"reward {span.reward:.3f} with experience, {span.gap:+.3f}{bounds} more than without"
        lines.append(f"  {span.hek[:12]}  steps {span.first} to {span.last}, {span.groups} groups: {reward}")
    return "\n".join(["by version:", *lines])


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values for JSON, null for what is not known."""
    return {name: value if isinstance(value, str) or isfinite(value) else None for name, value in values.items()}


def effect_text(credit: Credit) -> str:
    """Return the effect of an entry in one line."""
    guess = f"{credit.shrunk:+.3f} [{credit.low:+.3f}, {credit.high:+.3f}]" if credit.shrunk_error < inf else "not known"
    if not credit.groups:
        return f"never shown; by its neighbours {guess}"
    groups = f"{credit.groups} group{'s' * (credit.groups > 1)}"
    return f"{guess}; mean reward {credit.with_it:.3f} with it and {credit.without:.3f} without, {credit.exposures:.0f} times in {groups}"


def effects_of(hek: HEK, path: Path) -> dict[str, str]:
    """Return for each entry its effect in one line, by content id; nothing where the HEK at `path` has no ledger."""
    rows = read_ledger(path if (path / LEDGER).is_dir() else path.parent)
    return {content: effect_text(found) for content, found in credit(rows, hek.entries).of.items()} if rows else {}


def _basis(credits: Credits) -> list[str]:
    lines = [f"{credits.rows} rollouts; {credits.without_baseline} of them in groups that have nothing to compare them with"]
    for place, (mean, error) in credits.bias.items():
        count = credits.masked[place]
        if count:
            bias = f"reward minus baseline {mean:+.3f}, standard error {error:.3f}"
            lines.append(f"{place}: {count} times an entry was left out by chance; {bias}")
    if not any(credits.masked.values()):
        lines.append("nothing was left out by chance: effects of E1 are biased, since look-ups are likelier where an episode goes badly")
    return lines


def _known(hek: HEK, credits: Credits) -> list[tuple[Entry, Credit]]:
    """Return the entries that have been shown, with their credit."""
    return [(entry, found) for entry in hek.entries if (found := credits.of.get(entry.content_id)) and found.groups]


def _row(entry: Entry, c: Credit) -> tuple[str, ...]:
    means = f"{c.with_it:.3f}", f"{c.without:.3f}", f"{c.effect:+.3f}", f"{c.shrunk:+.3f}"
    return entry.id, f"{c.exposures:.0f}", str(c.groups), *means, f"{c.low:+.3f} to {c.high:+.3f}" if isfinite(c.low) else "not known"
