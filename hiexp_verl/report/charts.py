"""Drawings as SVG: curves of several runs over each other, intervals beside numbers, bars of seconds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from hiexp_verl.report.html import e

Point = tuple[float, float]  # step, value
Span = tuple[float, float, float]  # step, lowest, highest
MAX_POINTS = 60  # of a line: of longer runs one wants to see the course, not the noise
_MAX_DOTS = 40
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM, _DIGIT = 360, 190, 44, 12, 10, 24, 7  # in SVG units


@dataclass(frozen=True)
class Line:
    """One run, or the mean of runs, in a chart."""

    name: str
    style: int  # of the colours and dashes in report.css
    points: Sequence[Point]
    band: Sequence[Span] = ()
    marks: Sequence[float] = ()  # steps at which a run was resumed
    published: Sequence[float] = ()  # steps from which a new version of the HEK is in use
    faint: Sequence[Sequence[Point]] = ()  # runs that the points are the mean of, and that go further


def chart(title: str, lines: Sequence[Line], by: str = "step") -> str:
    """Return a chart of the lines; nothing where they have no points."""
    curves = [points for line in lines for points in (line.points, *line.faint) if points]
    if not curves:
        return ""
    steps = [x for points in curves for x, _ in points]
    heights = [y for points in curves for _, y in points] + [y for line in lines for _, *span in line.band for y in span]
    frame = _Frame(min(steps), max(steps), ticks(min(heights), max(heights)))
    ends = ", ".join(f"{line.name} from {line.points[0][1]:.3g} to {line.points[-1][1]:.3g}" for line in lines if line.points)
    label = e(f"{title} by {by}: {ends}")
    drawn = "".join(_line(line, frame) for line in lines)
    drawing = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{frame.grid()}{drawn}</svg>'
    window = max(map(_window, curves))
    note = f", each point the mean of {window} points" if window > 1 else ""
    return f'<figure class="card"><h3>{e(title)}</h3>{drawing}<figcaption>by {e(by)}{note}</figcaption></figure>'


@dataclass(frozen=True)
class _Frame:
    """Where values lie in the drawing."""

    low: float
    high: float
    y_ticks: Sequence[float]

    @property
    def left(self) -> int:
        """Where the axis stands: right of the longest label."""
        return max(_LEFT, 10 + _DIGIT * max(len(f"{t:g}") for t in self.y_ticks))

    def x(self, x: float) -> float:
        return self.left + (_WIDTH - self.left - _RIGHT) * ((x - self.low) / (self.high - self.low) if self.high > self.low else 0.5)

    def y(self, y: float) -> float:
        bottom, top = self.y_ticks[0], self.y_ticks[-1]
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (y - bottom) / (top - bottom)

    def grid(self) -> str:
        rows = [
            f'<path class="gridline" d="M{self.left} {self.y(t):.1f}H{_WIDTH - _RIGHT}"/>'
            f'<text x="{self.left - 6}" y="{self.y(t) + 4:.1f}" text-anchor="end">{t:g}</text>'
            for t in self.y_ticks
        ]
        columns = [f'<text x="{self.x(t):.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{_short(t)}</text>' for t in self._x_ticks()]
        return "".join(rows + columns)

    def _x_ticks(self) -> list[float]:
        inside: list[float] = []
        for parts in (4, 8):  # finer where most lie outside
            if len(inside) < 2:
                inside = [t for t in ticks(self.low, self.high, parts) if self.low <= t <= self.high]
        return [t for t in inside if t == int(t)] or inside or [self.low]  # there is no half step


def _line(line: Line, frame: _Frame) -> str:
    thin = thinned(line.points)
    parts = [f'<path class="r{line.style} faint" d="{_path(thinned(run), frame)}"/>' for run in line.faint]
    if len(line.band) > 1:
        lows, highs = thinned([(x, low) for x, low, _ in line.band]), thinned([(x, high) for x, _, high in line.band])
        around = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in [*highs, *reversed(lows)])
        parts.append(f'<polygon class="b{line.style}" points="{around}"/>')
    parts += [_published(line, x, frame) for x in line.published if frame.low <= x <= frame.high]
    if thin:
        parts.append(f'<path class="r{line.style}" d="{_path(thin, frame)}"/>')
        parts += [_mark(line, x, frame) for x in line.marks if frame.low <= x <= frame.high]
    if len(thin) <= _MAX_DOTS:
        parts += [
            f'<circle class="d{line.style}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="2.5">'
            f"<title>{e(line.name)}, {x:g}: {y:.4g}</title></circle>"
            for x, y in thin
        ]
    return f'<g class="k{line.style}">{"".join(parts)}</g>'


def _path(points: Sequence[Point], frame: _Frame) -> str:
    return " ".join(f"{'L' if i else 'M'}{frame.x(x):.1f} {frame.y(y):.1f}" for i, (x, y) in enumerate(points))


def _mark(line: Line, step: float, frame: _Frame) -> str:
    value = min(line.points, key=lambda point: abs(point[0] - step))[1]
    title = f"<title>{e(line.name)} resumed at step {step:g}</title>"
    return f'<path class="m{line.style}" d="M{frame.x(step):.1f} {frame.y(value) - 6:.1f}l6 6l-6 6l-6 -6z">{title}</path>'


def _published(line: Line, step: float, frame: _Frame) -> str:
    title = f"<title>{e(line.name)}: a new version of the HEK from step {step:g}</title>"
    return f'<path class="published" d="M{frame.x(step):.1f} {_TOP}V{_HEIGHT - _BOTTOM}">{title}</path>'


def _window(points: Sequence[Point]) -> int:
    return math.ceil(len(points) / MAX_POINTS)


def thinned(points: Sequence[Point]) -> list[Point]:
    """Return at most `MAX_POINTS` points: means of as many neighbours as that takes."""
    window = _window(points)
    pieces = [points[i : i + window] for i in range(0, len(points), window)] if window > 1 else []
    return [(fmean(x for x, _ in piece), fmean(y for _, y in piece)) for piece in pieces] or list(points)


def mean_and_band(curves: Sequence[Sequence[Point]]) -> tuple[list[Point], list[Span]]:
    """Return mean and (lowest, highest) of several curves where all of them have a point."""
    values: list[Mapping[float, float]] = [dict(curve) for curve in curves]
    shared = sorted(set.intersection(*(set(curve) for curve in values)))
    columns = [(x, [curve[x] for curve in values]) for x in shared]
    return [(x, fmean(column)) for x, column in columns], [(x, min(column), max(column)) for x, column in columns]


def ticks(low: float, high: float, parts: int = 4) -> list[float]:
    """Return round values that span low to high, so many and at most two more."""
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-12):  # a constant gets room around it
        room = 0.5 * abs(low) if abs(low) > 1e-12 else 0.5
        low, high = low - room, high + room
    raw = (high - low) / parts
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, max(last, first + 1) + 1)]


def _short(value: float) -> str:
    return f"{value / 1e6:g}M" if abs(value) >= 1e6 else f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{value:g}"


_BAR_WIDTH, _BAR_HEIGHT = 120, 16


def interval_bar(mean: float, low: float, high: float, scale: tuple[float, float], side: int | None = None) -> str:
    """Return a mean with its interval on a scale that all rows share; with a side of zero (-1, 0: neither, 1), that marked and coloured."""
    left, right = scale
    span = (right - left) or 1.0

    def x(value: float) -> float:
        return 4 + (_BAR_WIDTH - 8) * min(1.0, max(0.0, (value - left) / span))

    colour = ("even", "up", "down")[side or 0]
    line = "" if side is None else f'<path class="zero" d="M{x(0):.1f} 0V{_BAR_HEIGHT}"/>'
    middle = _BAR_HEIGHT / 2
    return (
        f'<svg class="interval {colour}" viewBox="0 0 {_BAR_WIDTH} {_BAR_HEIGHT}" aria-hidden="true">{line}'
        f'<path d="M{x(low):.1f} {middle}H{x(high):.1f}M{x(low):.1f} {middle - 4}v8M{x(high):.1f} {middle - 4}v8"/>'
        f'<circle cx="{x(mean):.1f}" cy="{middle}" r="3.5"/></svg>'
    )


def stages(parts: Sequence[tuple[str, float]], whole: str = "In all") -> str:
    """Return a bar for each (name, seconds), and their sum behind the words for it."""
    longest = max((seconds for _, seconds in parts), default=0.0) or 1.0
    rows = [
        f'<div class="stage"><span>{e(name)}</span><svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{max(0.5, 100 * seconds / longest):.1f}" height="10"/></svg><span>{seconds:.1f} s</span></div>'
        for name, seconds in parts
    ]
    total = sum(seconds for _, seconds in parts)
    text = f"{total:.1f} s" if total < 120 else f"{total / 60:.1f} minutes" if total < 7200 else f"{total / 3600:.1f} hours"
    return f'{"".join(rows)}<p class="soft">{whole} {text}.</p>'
