"""Pieces of HTML. Every text goes through `e`: models wrote it."""

import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

# Control characters and what turns the direction of text: they would act on the page around them.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def e(value: Any) -> str:
    """Return any value as text that is safe between tags and in quoted attributes."""
    return html.escape(_CONTROL.sub("\ufffd", str(value)))


def section(title: str, content: str) -> str:
    """Return a part of the page under its heading; nothing where there is no content."""
    if not content:
        return ""
    anchor = re.sub(r"\W+", "-", title.lower()).strip("-")
    return f'<section id="{e(anchor)}"><h2>{e(title)}</h2>{content}</section>'


def number(value: Any) -> str:
    """Return a number for people, in few digits; other values as text."""
    if not isinstance(value, float):
        return e(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1000 else value)
    if not math.isfinite(value):
        return "n/a"
    return f"{value:.3g}" if 0 < abs(value) < 0.001 or abs(value) >= 1e6 else f"{round(value, 3):g}"


def percent(share: float) -> str:
    """Return a share; one that is nearly none or nearly all is not rounded to it."""
    if not math.isfinite(share):
        return "n/a"
    return f"{share:.0%}" if f"{share:.0%}" not in ("100%", "0%") or share in (0, 1) else f"{share:.1%}"


def facts(rows: Mapping[str, Any]) -> str:
    """Return names with their values."""
    listed = "".join(f"<dt>{e(name)}</dt><dd>{number(value)}</dd>" for name, value in rows.items())
    return f'<dl class="card">{listed}</dl>' if listed else ""


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a table of cells that are HTML already; the first column stays in view while the others scroll."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if not columns:
        return ""
    head = "".join(f'<th scope="col"><div>{e(column)}</div></th>' for column in columns)
    body = "".join(f"<tr>{''.join(_cells([row.get(column, '') for column in columns]))}</tr>" for row in rows)
    return f'<div class="card scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cells(cells: Sequence[str]) -> list[str]:
    """Return the cells; the name in the first one has a box, which can be bounded (a cell grows as its longest word)."""
    return [f"<td><div>{cells[0]}</div></td>", *(f"<td>{cell}</td>" for cell in cells[1:])]


def listed(items: Sequence[str]) -> str:
    """Return a list of items that are HTML already."""
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>" if items else ""


def folded(summary: str, content: str) -> str:
    """Return content (HTML) behind a line (text) that opens it."""
    return f'<details class="fold"><summary class="soft">{e(summary)}</summary>{content}</details>' if content else ""


def plural(count: int, noun: str) -> str:
    """Return `1 step`, `2 steps`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
