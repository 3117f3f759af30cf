"""Charts as SVG inside a page: curves over steps, and bars. Colours and letters are those of refllm/page.py."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from refllm.page import escaped

_WIDTH, _HEIGHT = 420, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 12, 40
_DASHES = ("", "6 3", "2 3", "9 3 2 3")  # tell curves apart where colours do not
_COLOURS = 8
_MOST = 400  # points of a curve that are drawn
_DOTS = 40  # points that get a dot of their own, with its numbers
_TICKS = 5
_LARGEST = 1e300  # differences of what is drawn are finite


@dataclass(frozen=True)
class Curve:
    """Numbers over numbers; what is not finite is left out."""

    name: str
    points: Sequence[tuple[float, float]]

    def drawn(self) -> list[tuple[float, float]]:
        """The points as they are drawn: of many, so many that are evenly spread, the last among them."""
        kept = [(x, y) for x, y in self.points if abs(x) < _LARGEST and abs(y) < _LARGEST]  # false for NaN
        step = max(1, math.ceil(len(kept) / _MOST))
        return kept[(len(kept) - 1) % step :: step] if kept else []


@dataclass(frozen=True)
class _Axis:
    """From numbers to places of the picture."""

    low: float
    high: float
    start: float
    end: float

    def place(self, number: float) -> float:
        return self.start + (number - self.low) / (self.high - self.low) * (self.end - self.start)


def line_chart(title: str, curves: Sequence[Curve], *, x: str) -> str:
    """A figure with its title and, of several curves, their names; "" where there is no point to draw."""
    drawn = [(number, curve, points) for number, curve in enumerate(curves) if (points := curve.drawn())]
    if not drawn:
        return ""
    across, up = _axes([point for _, _, points in drawn for point in points])
    parts = [*_grid(across, up, x)]
    for number, curve, points in drawn:
        path = " ".join(f"{across.place(a):.1f},{up.place(b):.1f}" for a, b in points)
        parts.append(f'<polyline class="curve" style="{_stroke(number)}" points="{path}"/>')
        if len(points) <= _DOTS:
            parts += [
                f'<circle cx="{across.place(a):.1f}" cy="{up.place(b):.1f}" r="3" style="fill: var(--c{number % 8})">'
                f"<title>{escaped(curve.name)}: {short(b)} at {short(a)}</title></circle>"
                for a, b in points
            ]
    said = "; ".join(f"{c.name} from {short(p[0][1])} to {short(p[-1][1])}" for _, c, p in drawn)
    several = _legend([(number, curve.name) for number, curve, _ in drawn]) if len(curves) > 1 else ""
    return (
        f"<figure><figcaption>{escaped(title)}</figcaption>{several}"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escaped(f"{title}: {said}")}">'
        f"{''.join(parts)}</svg></figure>"
    )


def bar_chart(title: str, bars: Sequence[tuple[str, float]], *, digits: int = 3) -> str:
    """Bars from zero with their names and numbers; "" where there is nothing to draw."""
    bars = [(name, value) for name, value in bars if 0 <= value < _LARGEST]
    if not bars:
        return ""
    largest = max(value for _, value in bars) or 1.0
    row, left, right = 26, 110, 64
    parts = []
    for number, (name, value) in enumerate(bars):
        y, width = row * number, (_WIDTH - left - right) * value / largest
        parts.append(
            f'<text x="{left - 8}" y="{y + 17}" text-anchor="end">{escaped(name)}</text>'
            f'<rect class="bar" x="{left}" y="{y + 5}" width="{max(width, 1):.1f}" height="16"/>'
            f'<text x="{left + width + 6:.1f}" y="{y + 17}">{value:.{digits}f}</text>'
        )
    said = "; ".join(f"{name} {value:.{digits}f}" for name, value in bars)
    return (
        f"<figure><figcaption>{escaped(title)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {row * len(bars) + 4}" role="img" aria-label="{escaped(f"{title}: {said}")}">'
        f"{''.join(parts)}</svg></figure>"
    )


def short(number: float) -> str:
    """A number in a few digits, as people write it: 2,000, 0.0013, 1.5e-9."""
    if number and not 1e-4 <= abs(number) < 1e9:
        return f"{number:.3g}"
    return f"{number:,.0f}" if number == round(number) and abs(number) >= 1 else f"{float(f'{number:.4g}'):,.10g}"


def _axes(points: list[tuple[float, float]]) -> tuple[_Axis, _Axis]:
    return (
        _axis([a for a, _ in points], _LEFT, _WIDTH - _RIGHT),
        _axis([b for _, b in points], _HEIGHT - _BOTTOM, _TOP),
    )


def _axis(numbers: list[float], start: float, end: float) -> _Axis:
    low, high = min(numbers), max(numbers)
    room = (high - low) * 0.05 or abs(high) * 0.5 or 1.0
    return _Axis(max(low - room, 0.0) if low >= 0 else low - room, high + room, start, end)


def _ticks(axis: _Axis) -> list[float]:
    """Round numbers within an axis: one, two or five times a power of ten apart."""
    rough = (axis.high - axis.low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((power * k for k in (1, 2, 5) if power * k >= rough), 10 * power)
    first = math.ceil(axis.low / step)
    found = [step * (first + i) for i in range(_TICKS + 2)]
    return [tick for tick in found if tick <= axis.high]


def _grid(across: _Axis, up: _Axis, x: str) -> Iterator[str]:
    for tick in _ticks(up):
        y = up.place(tick)
        yield f'<path class="axis" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{short(tick)}</text>'
    for tick in _ticks(across):
        place = across.place(tick)
        yield f'<path class="axis" d="M{place:.1f} {_HEIGHT - _BOTTOM}v5"/>'
        yield f'<text x="{place:.1f}" y="{_HEIGHT - _BOTTOM + 19}" text-anchor="middle">{short(tick)}</text>'
    yield f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 4}" text-anchor="end">{escaped(x)}</text>'


def _stroke(number: int) -> str:
    dash = _DASHES[number % len(_DASHES)]
    return f"stroke: var(--c{number % _COLOURS})" + (f"; stroke-dasharray: {dash}" if dash else "")


def _legend(names: list[tuple[int, str]]) -> str:
    items = "".join(
        f'<li><svg viewBox="0 0 30 10" aria-hidden="true"><path class="curve" d="M0 5H30" style="{_stroke(number)}"/>'
        f"</svg>{escaped(name)}</li>"
        for number, name in names
    )
    return f'<ul class="legend">{items}</ul>'
