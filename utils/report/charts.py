"""Line charts and bar charts as SVG, without a drawing library.

Each chart carries its title, axes, units and legend. The colors are those of Okabe and Ito, which
color-blind readers can tell apart, and some more. Lines differ in their dashes too; bars stand in
the order of the legend. A chart is 440 units wide with text of size 12, which can be read at the
width of a phone and at half the width of a screen.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import NamedTuple

WIDTH, FONT_SIZE = 440, 12
LEFT, RIGHT = 52, 12
"""Margins of a line chart; the right one is also that of a bar chart."""
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
INK, MUTED, GRID, WHITE = "#222222", "#595959", "#dddddd", "#ffffff"

Swatch = Callable[[int, float, float], str]
"""Draws the legend's sample of an entry: (index of the entry, x, y) -> SVG."""


class Line(NamedTuple):
    """A line: ``mean`` at ``steps``, in a band from ``low`` to ``high``; all of one length."""

    name: str
    steps: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


class Bars(NamedTuple):
    """The bars of one color, a value for every group; NaN where a group has none.

    The whisker of a bar reaches from ``low`` to ``high``. ``color`` is an index into COLORS, modulo
    their number. ``outlined`` bars are empty inside: values that others published.
    """

    name: str
    values: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    color: int
    outlined: bool = False


class Scale(NamedTuple):
    """Maps the values 0 to ``maximum`` to the coordinates ``start`` to ``end``."""

    start: float
    end: float
    maximum: float

    def __call__(self, value: float) -> float:
        return self.start + (self.end - self.start) * value / self.maximum


def line_chart(
    lines: Sequence[Line], title: str, x_label: str, y_label: str, height: int = 210
) -> str:
    """Lines with their bands; both axes begin at 0. ``height``: of the plotted area.

    Raises ValueError where there is no point to draw.
    """
    if not any(len(line.steps) for line in lines):
        raise ValueError(f"The chart {title!r} has no points.")
    last_step = max(max(line.steps) for line in lines if len(line.steps))
    x_ticks = ticks(last_step)
    y_ticks = ticks(max(value for line in lines for value in line.high))
    top = 40
    bottom = top + height
    x = Scale(LEFT, WIDTH - RIGHT, max(x_ticks[-1], last_step))
    y = Scale(bottom, top, y_ticks[-1])

    parts = [_text(LEFT, 26, y_label, MUTED)]
    for tick in y_ticks:
        parts.append(_segment(LEFT, y(tick), x.end, y(tick)))
        parts.append(_text(LEFT - 6, y(tick) + 4, _number(tick), anchor="end"))
    for tick in x_ticks:
        parts.append(_segment(x(tick), bottom, x(tick), bottom + 4, INK))
        parts.append(_text(x(tick), bottom + 17, _number(tick), anchor="middle"))
    parts.append(_segment(LEFT, bottom, x.end, bottom, INK))
    parts.append(_text(x.end, bottom + 33, x_label, MUTED, "end"))
    # All bands lie below all lines.
    parts += [_band(line, index, x, y) for index, line in enumerate(lines)]
    parts += [_polyline(line, index, x, y) for index, line in enumerate(lines)]

    def swatch(index: int, x: float, y: float) -> str:
        return (
            f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{x + 26:.1f}" y2="{y:.1f}"'
            f" {_stroke(index, 2.5)}/>"
        )

    entries, end = _legend([line.name for line in lines], bottom + 48, swatch)
    return _svg([*parts, *entries], title, end)


def _band(line: Line, index: int, x: Scale, y: Scale) -> str:
    """The area between ``low`` and ``high`` of a line."""
    upper = list(zip(line.steps, line.high, strict=True))
    lower = list(zip(line.steps, line.low, strict=True))
    points = _points(upper + lower[::-1], x, y)
    return f'<polygon points="{points}" fill="{_color(index)}" fill-opacity="0.15"/>'


def _polyline(line: Line, index: int, x: Scale, y: Scale) -> str:
    """The means of a line; a single one, which has no length, is a dot."""
    points = list(zip(line.steps, line.mean, strict=True))
    drawn = (
        f'<polyline points="{_points(points, x, y)}" fill="none" {_stroke(index, 2)}'
        f' stroke-linejoin="round"><title>{escape(line.name)}</title></polyline>'
    )
    if len(points) == 1:
        step, value = points[0]
        drawn += f'<circle cx="{x(step):.1f}" cy="{y(value):.1f}" r="3" fill="{_color(index)}"/>'
    return drawn


def _points(points: Iterable[tuple[float, float]], x: Scale, y: Scale) -> str:
    return " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)


def bar_chart(
    groups: Sequence[str],
    series: Sequence[Bars],
    title: str,
    x_label: str,
    x_max: float | None = None,
) -> str:
    """Horizontal bars from 0, below each other in every group.

    ``x_max``: a value that the axis must reach, for charts that are compared.
    """
    thickness, gap, left = (8 if len(series) > 2 else 10), 9, 92
    group_height = len(series) * thickness
    top, right = 36, WIDTH - RIGHT
    bottom = top + len(groups) * (group_height + gap)
    values = [value for bars in series for value in (*bars.values, *bars.high)]
    x_ticks = ticks(max([x_max or 0, *(value for value in values if not math.isnan(value))]))
    x = Scale(left, right, x_ticks[-1])

    parts = []
    for tick in x_ticks:
        parts.append(_segment(x(tick), top, x(tick), bottom))
        parts.append(_text(x(tick), bottom + 15, _number(tick), anchor="middle"))
    parts.append(_segment(left, top, left, bottom, INK))
    parts.append(_text(right, bottom + 31, x_label, MUTED, "end"))
    for row, group in enumerate(groups):
        start = top + row * (group_height + gap) + gap / 2
        middle = start + group_height / 2
        parts.append(_text(left - 6, middle + 4, group, anchor="end", max_width=left - 8))
        for index, bars in enumerate(series):
            parts += _bar(bars, row, group, x, start + index * thickness, thickness - 1)

    def swatch(index: int, x: float, y: float) -> str:
        return f'<rect x="{x:.1f}" y="{y - 5:.1f}" width="20" height="10" {_fill(series[index])}/>'

    entries, end = _legend([bars.name for bars in series], bottom + 46, swatch)
    return _svg([*parts, *entries], title, end)


def _bar(bars: Bars, row: int, group: str, x: Scale, y: float, height: float) -> list[str]:
    """The bar of a group with its whisker, ``y`` its upper edge; [] where there is no value."""
    value, low, high = bars.values[row], bars.low[row], bars.high[row]
    if math.isnan(value):
        return []
    label = escape(f"{group}, {bars.name}: {value:.2f}")
    inset = 0.5 if bars.outlined else 0  # an outline lies half outside its rectangle
    size = f'width="{max(0, x(value) - x(0) - inset):.1f}" height="{height - 2 * inset:.1f}"'
    parts = [
        f'<rect x="{x(0):.1f}" y="{y + inset:.1f}" {size}'
        f" {_fill(bars)}><title>{label}</title></rect>"
    ]
    if high > low:
        middle = y + height / 2
        inside = INK if bars.outlined else WHITE
        parts.append(_segment(x(low), middle, x(value), middle, inside))
        parts.append(_segment(x(value), middle, x(high), middle, INK))
    return parts


def ticks(maximum: float, max_count: int = 6) -> list[float]:
    """Round numbers from 0 to at least ``maximum``, evenly spaced, at most ``max_count``."""
    if not maximum > 0:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(maximum))
    spacings = (factor * power for factor in (0.1, 0.2, 0.25, 0.5, 1, 2, 2.5, 5))
    spacing = next(spacing for spacing in spacings if maximum <= spacing * (max_count - 1))
    return [round(n * spacing, 12) for n in range(math.ceil(maximum / spacing - 1e-9) + 1)]


def _number(value: float) -> str:
    return f"{value:,.10g}"


def _color(index: int) -> str:
    return COLORS[index % len(COLORS)]


def _stroke(index: int, width: float) -> str:
    """Color, width and dashes of a line; the dashes shift when the colors begin again."""
    dashes = DASHES[(index + index // len(COLORS)) % len(DASHES)]
    return f'stroke="{_color(index)}" stroke-width="{width}" stroke-dasharray="{dashes}"'


def _fill(bars: Bars) -> str:
    color = _color(bars.color)
    if bars.outlined:
        return f'fill="{WHITE}" stroke="{color}" stroke-width="1.2"'
    return f'fill="{color}"'


def _legend(names: Sequence[str], top: float, swatch: Swatch) -> tuple[list[str], float]:
    """The entries, from left to right in as many lines as they need, and the y of their end."""
    parts, x, y = [], 10.0, top + 8
    for index, name in enumerate(names):
        width = 34 + text_width(name) + 14
        if x > 10 and x + width > WIDTH:
            x, y = 10.0, y + 19
        parts += [swatch(index, x, y), _text(x + 32, y + 4, name, max_width=WIDTH - 44)]
        x += width
    return parts, y + 14


def text_width(text: str) -> float:
    """Approximate width of a text in a chart: the font of the reader is not known."""

    def em(letter: str) -> float:
        if letter in " iljtf.,'|":
            return 0.32
        return 0.72 if letter.isupper() or letter in "mwMW%±" else 0.58

    return sum(map(em, text)) * FONT_SIZE


def _text(
    x: float,
    y: float,
    text: str,
    color: str = INK,
    anchor: str = "start",
    max_width: float = math.inf,
) -> str:
    """``text``, cut short where it is wider than ``max_width``; the pointer then shows it all."""
    visible = text
    while text_width(visible) > max_width:
        visible = visible.removesuffix("…")[:-1].rstrip() + "…"
    title = f"<title>{escape(text)}</title>" if visible != text else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}" text-anchor="{anchor}">'
        f"{title}{escape(visible)}</text>"
    )


def _segment(x1: float, y1: float, x2: float, y2: float, color: str = GRID) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"/>'


def _svg(parts: Iterable[str], title: str, height: float) -> str:
    fonts = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img"'
        f' aria-label="{escape(title)}" font-family="{fonts}" font-size="{FONT_SIZE}">'
        f'<rect width="100%" height="100%" fill="{WHITE}"/>'
        f'<text x="4" y="12" fill="{INK}" font-weight="600">{escape(title)}</text>'
        f"{''.join(parts)}</svg>\n"
    )
