"""Small drawings beside numbers: intervals, and times as stacked bars."""

from collections.abc import Sequence

from hiexp_verl.report.markup import e

_WIDTH, _HEIGHT = 120, 16


def interval_bar(mean: float, low: float, high: float, scale: tuple[float, float], side: int | None = None) -> str:
    """Return a mean with its interval on a scale that all rows share; with a side of zero (-1, 0: neither, 1), that marked and coloured."""
    left, right = scale
    span = (right - left) or 1.0

    def x(value: float) -> float:
        return 4 + (_WIDTH - 8) * min(1.0, max(0.0, (value - left) / span))

    colour = ("even", "up", "down")[side or 0]
    line = "" if side is None else f'<path class="zero" d="M{x(0):.1f} 0V{_HEIGHT}"/>'
    middle = _HEIGHT / 2
    return (
        f'<svg class="interval {colour}" viewBox="0 0 {_WIDTH} {_HEIGHT}" aria-hidden="true">{line}'
        f'<path d="M{x(low):.1f} {middle}H{x(high):.1f}M{x(low):.1f} {middle - 4}v8M{x(high):.1f} {middle - 4}v8"/>'
        f'<circle cx="{x(mean):.1f}" cy="{middle}" r="3.5"/></svg>'
    )


def stages(parts: Sequence[tuple[str, float]]) -> str:
    """Return a bar for each (name, seconds), and their sum."""
    if not parts:
        return ""
    longest = max(seconds for _, seconds in parts) or 1.0
    rows = [
        f'<div class="stage"><span>{e(name)}</span><i style="width:{100 * seconds / longest:.1f}%"></i><span>{seconds:.1f} s</span></div>'
        for name, seconds in parts
    ]
    total = sum(seconds for _, seconds in parts)
    told = f"{total:.1f} s" if total < 120 else f"{total / 60:.1f} minutes" if total < 7200 else f"{total / 3600:.1f} hours"
    return f'{"".join(rows)}<p class="soft">In all {told}.</p>'
