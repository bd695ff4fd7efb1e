"""One HTML file that shows a run: numbers, curves, the HEK as a tree, episodes with the injected text marked.

Self-contained (no script, no external resource), light and dark, readable on a phone. All text is escaped: models wrote it.
"""

import html
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

from hiexp_verl.hek.store import HEK
from hiexp_verl.jsonl import atomic_writer
from hiexp_verl.types import Entry, Trajectory, to_json

Points = Sequence[tuple[float, float]]

MAX_CHILDREN = 40  # shown under one entry; a HEK of thousands must still open on a phone
MAX_RUNS = 5  # line styles in report.html
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 360, 190, 44, 10, 10, 26  # of a chart, in SVG units

_EXPERIENCE = re.compile(r"(<experience>.*?</experience>)", re.DOTALL)
_SPOKEN = [  # on escaped text
    (re.compile(r"&lt;(search|tool_call)&gt;.*?&lt;/\1&gt;", re.DOTALL), "call"),
    (re.compile(r"&lt;answer&gt;.*?&lt;/answer&gt;", re.DOTALL), "answer"),
    (re.compile(r"&lt;think&gt;.*?&lt;/think&gt;", re.DOTALL), "think"),
]


@dataclass(frozen=True)
class ReportData:
    """What the report shows; empty parts are left out."""

    title: str
    facts: Mapping[str, Any] = field(default_factory=dict)  # what was run: model, data, machine ...
    rates: Mapping[str, float] = field(default_factory=dict)  # shares 0 to 1, as tiles: hit rate, fire rate ...
    stages: Sequence[tuple[str, float]] = ()  # (name, seconds)
    curves: Mapping[str, Mapping[str, Points]] = field(default_factory=dict)  # measure -> run -> (step, value)
    table: Sequence[Mapping[str, Any]] = ()  # one row per arm, for example with and without the HEK
    hek: HEK | None = None
    uses: Mapping[str, int] = field(default_factory=dict)  # entry id -> times shown (`count_uses`)
    episodes: Sequence[Trajectory | Mapping[str, Any]] = ()


def count_uses(trajectories: Iterable[Trajectory]) -> dict[str, int]:
    """Count how often each entry was shown."""
    return dict(Counter(row["entry"] for t in trajectories for row in t.extra.get("shown", ())))


def write_report(run: ReportData, path: Path) -> None:
    """Write the page, atomically."""
    page, palette = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("report.html", "palette.css"))
    sections = [
        _section("", _tiles(run.rates)),
        _section("What was run", _facts(run.facts)),
        _section("Comparison", _table(run.table)),
        _section("Curves", _curves(run.curves)),
        _section("Time", _stages(run.stages)),
        _section("Experience (HEK)", _tree(run.hek, run.uses)),
        _section("Episodes", "".join(_episode(e if isinstance(e, Mapping) else to_json(e)) for e in run.episodes)),
    ]
    page = Template(page).substitute(palette=palette, title=_e(run.title), body="\n".join(filter(None, sections)))
    with atomic_writer(path) as file:
        file.write(page.encode("utf-8", "replace").decode())


def _e(value: Any) -> str:
    return html.escape(str(value))


def _section(title: str, content: str) -> str:
    heading = f"<h2>{title}</h2>" if title else ""
    return f"<section>{heading}{content}</section>" if content else ""


def _number(value: Any) -> str:
    if not isinstance(value, float):
        return _e(value)
    return "n/a" if not math.isfinite(value) else f"{value:.3g}" if 0 < abs(value) < 0.001 or abs(value) >= 1e6 else f"{round(value, 3):g}"


def _tiles(rates: Mapping[str, float]) -> str:
    tiles = [f'<div class="card"><b>{_percent(value)}</b><span class="soft">{_e(name)}</span></div>' for name, value in rates.items()]
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _percent(share: float) -> str:
    if not math.isfinite(share):
        return "n/a"
    # 0.996 is not 100%, 0.004 not 0%.
    return f"{share:.0%}" if f"{share:.0%}" not in ("100%", "0%") or share in (0, 1) else f"{share:.1%}"


def _facts(facts: Mapping[str, Any]) -> str:
    rows = "".join(f"<dt>{_e(name)}</dt><dd>{_number(value)}</dd>" for name, value in facts.items())
    return f'<dl class="card">{rows}</dl>' if rows else ""


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if not columns:
        return ""
    head = "".join(f"<th>{_e(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{_cell(row.get(column, ''))}</td>" for column in columns) + "</tr>" for row in rows)
    return f'<div class="card scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) and math.isfinite(value) else _number(value)


def _stages(stages: Sequence[tuple[str, float]]) -> str:
    if not stages:
        return ""
    longest = max(seconds for _, seconds in stages) or 1.0
    rows = [
        f'<div class="stage"><span>{_e(name)}</span><i style="width:{100 * seconds / longest:.1f}%"></i><span>{seconds:.1f} s</span></div>'
        for name, seconds in stages
    ]
    total = sum(seconds for _, seconds in stages)
    return f'<div class="card">{"".join(rows)}<p class="soft">In all {total:.0f} s, {total / 60:.1f} minutes.</p></div>'


# --- curves ---------------------------------------------------------------------------------------------------------


def _curves(curves: Mapping[str, Mapping[str, Points]]) -> str:
    runs = list(dict.fromkeys(run for by_run in curves.values() for run in by_run))
    style = {run: i % MAX_RUNS for i, run in enumerate(runs)}
    charts = [_chart(name, by_run, style) for name, by_run in curves.items()]
    keys = [f'<span><svg viewBox="0 0 28 8"><path class="r{style[r]}" d="M1 4H27"/></svg>{_e(r)}</span>' for r in runs]
    legend = f'<div class="legend">{"".join(keys)}</div>' if runs else ""
    return f'{legend}<div class="grid">{"".join(charts)}</div>' if any(charts) else ""


def _chart(name: str, by_run: Mapping[str, Points], style: Mapping[str, int]) -> str:
    series = {run: [(float(x), float(y)) for x, y in points if math.isfinite(x) and math.isfinite(y)] for run, points in by_run.items()}
    everything = [point for points in series.values() for point in points]
    if not everything:
        return ""
    x_ticks, y_ticks = (_ticks(min(axis), max(axis)) for axis in zip(*everything, strict=True))
    x_ticks = [tick for tick in x_ticks if tick == int(tick)] or x_ticks  # there is no half step

    def x_of(x: float) -> float:
        low, high = min(p[0] for p in everything), max(p[0] for p in everything)
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * ((x - low) / (high - low) if high > low else 0.5)

    def y_of(y: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])

    parts = [
        f'<path class="gridline" style="stroke-width:1" d="M{_LEFT} {y_of(t):.1f}H{_WIDTH - _RIGHT}"/>'
        f'<text x="{_LEFT - 6}" y="{y_of(t) + 4:.1f}" text-anchor="end">{t:g}</text>'
        for t in y_ticks
    ]
    inside = [t for t in x_ticks if _LEFT - 1 <= x_of(t) <= _WIDTH - _RIGHT + 1]
    parts += [f'<text x="{x_of(t):.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{t:g}</text>' for t in inside]
    for run, points in series.items():
        line = " ".join(f"{'L' if i else 'M'}{x_of(x):.1f} {y_of(y):.1f}" for i, (x, y) in enumerate(points))
        parts.append(f'<path class="r{style[run]}" d="{line}"/>')
        parts += [
            f'<circle class="d{style[run]}" cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3">'
            f"<title>{_e(run)}, step {x:g}: {y:.4g}</title></circle>"
            for x, y in points
        ]
    label = f"{name} by step: " + ", ".join(f"{run} from {p[0][1]:.3g} to {p[-1][1]:.3g}" for run, p in series.items() if p)
    drawing = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{_e(label)}">{"".join(parts)}</svg>'
    return f'<figure class="card"><h3>{_e(name)}</h3>{drawing}<figcaption>by step</figcaption></figure>'


def _ticks(low: float, high: float) -> list[float]:
    """Return 3 to 6 round values that span low to high."""
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-12):  # a constant gets room around it
        room = 0.5 * abs(low) if abs(low) > 1e-12 else 0.5
        low, high = low - room, high + room
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, max(last, first + 1) + 1)]


# --- the HEK --------------------------------------------------------------------------------------------------------


def _tree(hek: HEK | None, uses: Mapping[str, int]) -> str:
    if hek is None:
        return ""
    by_id = {entry.id: entry for entry in hek.entries}
    children = {child for entry in hek.entries for child in entry.children}
    roots = [entry for level in ("e3", "e2", "e1") for entry in hek.entries if entry.level == level and entry.id not in children]
    counts = ", ".join(f"{count} {level.upper()}" for level, count in sorted(hek.levels.items(), reverse=True))
    header = hek.header
    origin = f"Encoder {_e(header.encoder.name)}, distilled by {_e(header.distiller or 'unknown')}"
    about = f"{counts}. {origin}, shown {sum(uses.values())}&times;."
    return f'<p class="soft">{about}</p><div class="card tree">{_branches(roots, by_id, uses)}</div>'


def _branches(entries: Sequence[Entry], by_id: Mapping[str, Entry], uses: Mapping[str, int]) -> str:
    ranked = sorted(entries, key=lambda entry: (-int(entry.level[1]), -uses.get(entry.id, 0), entry.id))
    more = f'<p class="soft">and {len(ranked) - MAX_CHILDREN} more</p>' if len(ranked) > MAX_CHILDREN else ""
    return "".join(_branch(entry, by_id, uses) for entry in ranked[:MAX_CHILDREN]) + more


def _branch(entry: Entry, by_id: Mapping[str, Entry], uses: Mapping[str, int]) -> str:
    shown = uses.get(entry.id, 0)
    tags = f'<span class="tag">{entry.level.upper()}</span><span class="tag {_e(entry.kind)}">{_e(entry.kind)}</span>'
    sources = f"{len(entry.questions)} question{'s' * (len(entry.questions) != 1)}"
    about = f'<p>{_e(entry.description)}</p><p class="soft">{_e(entry.id)}, from {sources}, shown {shown}&times;</p>'
    children = [by_id[child] for child in entry.children if child in by_id]
    if not children:
        return f'<div class="leaf">{tags}{_e(entry.title)}{about}</div>'
    opened = " open" if entry.level == "e3" else ""
    return f"<details{opened}><summary>{tags}{_e(entry.title)}</summary>{about}{_branches(children, by_id, uses)}</details>"


# --- episodes -------------------------------------------------------------------------------------------------------


def _episode(row: Mapping[str, Any]) -> str:
    correct = bool(row.get("correct"))
    verdict = f'<span class="{"good" if correct else "bad"}">{"✓ right" if correct else "✗ wrong"}</span>'
    extra = row.get("extra") or {}
    label = f'<span class="tag">{_e(extra["label"])}</span>' if extra.get("label") else ""
    answers = " / ".join(_e(answer) for answer in row.get("answers") or ())
    result = f"answered <b>{_e(row.get('prediction') or 'nothing')}</b>, gold <b>{answers}</b>, reward {float(row.get('score') or 0):.2f}"
    shown = [f"{s.get('level', '').upper()} {s.get('entry')} (cosine {s.get('score')})" for s in extra.get("shown") or ()]
    used = f'<p class="soft">Experience shown: {_e(", ".join(shown))}</p>' if shown else ""
    turns = "".join(_turn(message) for message in row.get("messages") or ())
    return (
        f'<details class="card episode"><summary>{verdict} {label}{_e(row.get("question", ""))}'
        f'<br><span class="soft">{result}</span></summary>{used}{turns}</details>'
    )


def _turn(message: Mapping[str, Any]) -> str:
    role, content = str(message.get("role", "")), message.get("content")
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    if role in ("system", "tool"):
        body = "".join(_told(part, role) for part in _EXPERIENCE.split(text) if part.strip())
    else:
        body = f'<p class="text">{_spoken(text)}</p>'
    return f'<div class="turn {_e(role)}"><div class="who">{_e(role)}</div>{body}</div>'


def _told(part: str, role: str) -> str:
    """Return a piece of a system or tool message: experience in view, the rest folded."""
    if _EXPERIENCE.fullmatch(part):
        return f'<div class="exp"><div class="who">injected experience</div><p class="text">{_e(part)}</p></div>'
    name = "prompt" if role == "system" else f"{part.count('Doc ')} documents" if "Doc " in part else "message"
    return (
        f'<details><summary class="soft">{name}, {len(part.strip())} characters</summary><p class="text">{_e(part.strip())}</p></details>'
    )


def _spoken(text: str) -> str:
    escaped = _e(text)
    for pattern, css in _SPOKEN:
        escaped = pattern.sub(lambda match, css=css: f'<span class="{css}">{match.group()}</span>', escaped)
    return escaped
