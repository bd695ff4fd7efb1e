"""Pages and pieces of HTML, for the report and the viewer. Every text goes through `e`: models wrote it."""

import base64
import hashlib
import html
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

_STATIC = Path(__file__).parent / "static"
_COLUMNS = 9  # that fit a page; a wider table becomes several
_SHORT, _LONG_WORD, _LONG = 16, 16, 24  # characters: of a cell that does not wrap, of a word that does, of a cell with text

# Control characters and what turns the direction of text: they would act on the page around them.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def e(value: Any) -> str:
    """Return any value as text that is safe between tags and in quoted attributes."""
    return html.escape(_CONTROL.sub("\ufffd", str(value)))


def static(name: str, **values: str) -> str:
    """Return a file of this folder with its values put in."""
    text = (_STATIC / name).read_text(encoding="utf-8")
    return Template(text).substitute(values) if values else text


def document(title: str, body: str, css: str, script: str = "", data: str = "") -> str:
    """Return a page that needs no network, light and dark. Its policy admits its own style and script, by their hashes, and nothing else.

    Args:
        css: file with the style of this page, beside what all pages share.
        script: file with its program; `data` is JSON in which "<" is escaped.
    """
    style, program = static("base.css") + static(css), static(script) if script else ""
    policy = f"style-src '{_hash(style)}'"
    if program:
        policy += f"; script-src '{_hash(program)}'"
        body += f'\n<script type="application/json" id="data">{data}</script>\n<script>{program}</script>'
    return static("page.html", title=e(title), policy=policy, style=style, body=body)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def number(value: Any) -> str:
    """Return a number for people, in few digits; other values as text."""
    if not isinstance(value, float):
        return e(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1000 else value)
    if not math.isfinite(value):
        return "n/a"
    return f"{value:.3g}" if 0 < abs(value) < 0.001 or abs(value) >= 1e6 else f"{round(value, 3):g}"


def facts(rows: Mapping[str, Any]) -> str:
    """Return names with their values."""
    listed = "".join(f"<dt>{e(name)}</dt><dd>{number(value)}</dd>" for name, value in rows.items())
    return f'<dl class="card">{listed}</dl>' if listed else ""


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a table of cells that are HTML already; one of many columns is cut into several that repeat the first column."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    first, rest = columns[:1], columns[1:]
    pieces = [rest[i : i + _COLUMNS - 1] for i in range(0, len(rest), _COLUMNS - 1)] or [[]]
    return "".join(_table([*first, *piece], rows) for piece in pieces) if first else ""


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str:
    head = "".join(map(_head, columns))
    body = "".join(f"<tr>{''.join(_cell(column, row.get(column, '')) for column in columns)}</tr>" for row in rows)
    texts = any(len(_plain(row.get(column, ""))) > _LONG and "<svg" not in row[column] for row in rows for column in columns[1:])
    style = ' class="texts"' if texts else ""
    return f'<div class="card scroll" tabindex="0"><table{style}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _head(column: str) -> str:
    style = ' class="long"' if any(len(word) > _LONG_WORD for word in column.split()) else ""
    return f'<th scope="col"{style}>{e(column)}</th>'


def _cell(column: str, content: str) -> str:
    style = ' class="short"' if len(_plain(content)) <= _SHORT else ""
    return f'<td{style} data-name="{e(column)}">{content}</td>'


def _plain(content: str) -> str:
    return html.unescape(re.sub("<[^>]*>", "", content))


def listed(items: Sequence[str]) -> str:
    """Return a list of items that are HTML already."""
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>" if items else ""


def folded(summary: str, content: str) -> str:
    """Return content (HTML) behind a line (text) that opens it."""
    return f'<details class="fold"><summary class="soft">{e(summary)}</summary>{content}</details>' if content else ""


def plural(count: int, noun: str) -> str:
    """Return `1 step`, `2 steps`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
