"""Charts as SVG, for a page that needs nothing else: lines with a band, and bars. Each carries its
title, axes, units and legend.

Colors are those of Okabe and Ito, which color-blind people tell apart, and some more; lines
differ in their dashes too, bars in their order, which is the legend's. One chart is drawn 440 units
wide with a type of 12, so that it can be read at a phone's width and at half a screen's.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import NamedTuple

WIDTH, TYPE = 440, 12
LEFT, RIGHT = 52, 12
COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#7F6000",
    "#8A8A8A",
    "#882255",
)
DASHES = ("none", "7 3", "2 2", "9 3 2 3")
INK, FAINT, GRID = "#222222", "#595959", "#dddddd"


class Line(NamedTuple):
    """One line: ``mean`` at ``steps``, in a band from ``low`` to ``high``; all of one length."""

    name: str
    steps: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


class Bars(NamedTuple):
    """The bars of one color: a value for every group, its whisker from ``low`` to ``high``; NaN
    where there is none.

    ``color`` counts through COLORS; ``hollow`` bars are outlined, for what is not our own.
    """

    name: str
    values: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    color: int
    hollow: bool = False


def line_chart(
    lines: Sequence[Line], title: str, x_label: str, y_label: str, height: int = 210
) -> str:
    """Lines over a horizontal axis, from 0 up. Raises ValueError where there is no point to
    draw.
    """
    if not any(len(line.steps) for line in lines):
        raise ValueError(f"The chart {title!r} has no points.")
    last = max(max(line.steps) for line in lines)
    highest = max(value for line in lines for value in line.high)
    x_ticks, y_ticks = ticks(last), ticks(highest)
    top, right = 40, WIDTH - RIGHT
    bottom = top + height

    def x(step: float) -> float:
        return LEFT + (right - LEFT) * step / max(x_ticks[-1], last)

    def y(value: float) -> float:
        return bottom - height * value / y_ticks[-1]

    parts = [_text(LEFT, 26, y_label, FAINT)]
    for tick in y_ticks:
        parts += [
            _rule(LEFT, y(tick), right, y(tick)),
            _text(LEFT - 6, y(tick) + 4, _number(tick), anchor="end"),
        ]
    for tick in x_ticks:
        parts += [
            _rule(x(tick), bottom, x(tick), bottom + 4, INK),
            _text(x(tick), bottom + 17, _number(tick), anchor="middle"),
        ]
    parts += [
        _rule(LEFT, bottom, right, bottom, INK),
        _text(right, bottom + 33, x_label, FAINT, "end"),
    ]
    for place, line in enumerate(lines):
        outline = [
            *zip(line.steps, line.high, strict=True),
            *reversed([*zip(line.steps, line.low, strict=True)]),
        ]
        points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in outline)
        parts.append(f'<polygon points="{points}" fill="{_color(place)}" fill-opacity="0.15"/>')
    for place, line in enumerate(lines):
        points = " ".join(
            f"{x(step):.1f},{y(value):.1f}"
            for step, value in zip(line.steps, line.mean, strict=True)
        )
        stroke = (
            f'stroke="{_color(place)}" stroke-width="2" stroke-dasharray="{_dash(place)}"'
            ' stroke-linejoin="round"'
        )
        parts.append(
            f'<polyline points="{points}" fill="none"'
            f" {stroke}><title>{escape(line.name)}</title></polyline>"
        )
        if len(line.steps) == 1:
            parts.append(
                f'<circle cx="{x(line.steps[0]):.1f}" cy="{y(line.mean[0]):.1f}" r="3"'
                f' fill="{_color(place)}"/>'
            )

    def swatch(place: int, x: float, y: float) -> str:
        stroke = f'stroke="{_color(place)}" stroke-width="2.5" stroke-dasharray="{_dash(place)}"'
        return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{x + 26:.1f}" y2="{y:.1f}" {stroke}/>'

    entries, end = _legend([line.name for line in lines], bottom + 48, swatch)
    return _svg([*parts, *entries], title, end)


def bar_chart(
    groups: Sequence[str],
    series: Sequence[Bars],
    title: str,
    x_label: str,
    highest: float | None = None,
) -> str:
    """Horizontal bars from 0, those of each group below each other. ``highest``: the largest value
    that must fit, for charts side by side.
    """
    thickness, gap, left = (8 if len(series) > 2 else 10), 9, 92
    top, right = 36, WIDTH - RIGHT
    pitch = len(series) * thickness + gap
    bottom = top + len(groups) * pitch
    known = [
        value for bars in series for value in (*bars.values, *bars.high) if not math.isnan(value)
    ]
    x_ticks = ticks(max([highest or 0, *known]))

    def x(value: float) -> float:
        return left + (right - left) * value / x_ticks[-1]

    parts = []
    for tick in x_ticks:
        parts += [
            _rule(x(tick), top, x(tick), bottom),
            _text(x(tick), bottom + 15, _number(tick), anchor="middle"),
        ]
    parts += [_rule(left, top, left, bottom, INK), _text(right, bottom + 31, x_label, FAINT, "end")]
    for row, group in enumerate(groups):
        start = top + row * pitch + gap / 2
        parts.append(
            _text(
                left - 6,
                start + len(series) * thickness / 2 + 4,
                group,
                anchor="end",
                most=left - 8,
            )
        )
        for place, bars in enumerate(series):
            parts += _bar(bars, row, group, x, start + place * thickness, thickness - 1)

    def swatch(place: int, x: float, y: float) -> str:
        return f'<rect x="{x:.1f}" y="{y - 5:.1f}" width="20" height="10" {_fill(series[place])}/>'

    entries, end = _legend([bars.name for bars in series], bottom + 46, swatch)
    return _svg([*parts, *entries], title, end)


def _bar(
    bars: Bars, row: int, group: str, x: Callable[[float], float], y: float, height: float
) -> list[str]:
    """The bar of one group and its whisker; ``x`` places a value. Nothing where there is no
    value.
    """
    value, low, high = bars.values[row], bars.low[row], bars.high[row]
    if math.isnan(value):
        return []
    label = escape(f"{group}, {bars.name}: {value:.2f}")
    inset = 0.5 if bars.hollow else 0  # an outline lies half outside its rectangle
    size = f'width="{max(0, x(value) - x(0) - inset):.1f}" height="{height - 2 * inset:.1f}"'
    parts = [
        f'<rect x="{x(0):.1f}" y="{y + inset:.1f}" {size}'
        f" {_fill(bars)}><title>{label}</title></rect>"
    ]
    if high > low:
        middle = y + height / 2
        parts += [
            _rule(x(low), middle, x(value), middle, INK if bars.hollow else "#ffffff"),
            _rule(x(value), middle, x(high), middle, INK),
        ]
    return parts


def ticks(highest: float, most: int = 6) -> list[float]:
    """Round numbers from 0 to at least ``highest``, evenly spaced, at most ``most``."""
    if not highest > 0:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(highest))
    step = next(
        step
        for factor in (0.1, 0.2, 0.25, 0.5, 1, 2, 2.5, 5)
        if highest <= (step := factor * power) * (most - 1)
    )
    return [round(number * step, 12) for number in range(math.ceil(highest / step - 1e-9) + 1)]


def _number(value: float) -> str:
    return f"{value:,.10g}"


def _color(place: int) -> str:
    return COLORS[place % len(COLORS)]


def _dash(place: int) -> str:
    return DASHES[(place + place // len(COLORS)) % len(DASHES)]


def _fill(bars: Bars) -> str:
    color = _color(bars.color)
    return (
        f'fill="#ffffff" stroke="{color}" stroke-width="1.2"' if bars.hollow else f'fill="{color}"'
    )


def _legend(
    names: Sequence[str], top: float, swatch: Callable[[int, float, float], str]
) -> tuple[list[str], float]:
    """Entries from left to right, as many in a line as there is room for; and where the legend
    ends.
    """
    parts, x, y = [], 10.0, top + 8
    for place, name in enumerate(names):
        width = 34 + text_width(name) + 14
        if x > 10 and x + width > WIDTH:
            x, y = 10.0, y + 19
        parts += [swatch(place, x, y), _text(x + 32, y + 4, name, most=WIDTH - 44)]
        x += width
    return parts, y + 14


def text_width(text: str) -> float:
    """About how wide a text is in the type of the charts: no font can be asked."""
    return (
        sum(
            (
                0.32
                if letter in " iljtf.,'|"
                else 0.72
                if letter.isupper() or letter in "mwMW%±"
                else 0.58
            )
            for letter in text
        )
        * TYPE
    )


def _text(
    x: float, y: float, text: str, color: str = INK, anchor: str = "start", most: float = math.inf
) -> str:
    """``text``, cut short where it is wider than ``most``; the whole of it then shows under the
    pointer.
    """
    shown = text
    while text_width(shown) > most:
        shown = shown.removesuffix("…")[:-1].rstrip() + "…"
    title = f"<title>{escape(text)}</title>" if shown != text else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}"'
        f' text-anchor="{anchor}">{title}{escape(shown)}</text>'
    )


def _rule(x1: float, y1: float, x2: float, y2: float, color: str = GRID) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"/>'


def _svg(parts: Iterable[str], title: str, height: float) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img"'
        f' aria-label="{escape(title)}"'
    )
    style = (
        'font-family="system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"'
        f' font-size="{TYPE}"'
    )
    heading = f'<text x="4" y="12" fill="{INK}" font-weight="600">{escape(title)}</text>'
    return (
        f'{head} {style}><rect width="100%" height="100%"'
        f' fill="#ffffff"/>{heading}{"".join(parts)}</svg>\n'
    )
