import itertools
import math
from xml.etree import ElementTree

import pytest

from utils.report.charts import WIDTH, Bars, Line, bar_chart, line_chart, text_width, ticks

SVG = "{http://www.w3.org/2000/svg}"


def flat(name: str, values: list[float]) -> Line:
    return Line(name, list(range(len(values))), values, values, values)


def points(element) -> list[tuple[float, float]]:
    return [tuple(map(float, point.split(","))) for point in element.get("points").split()]


def texts(chart: ElementTree.Element) -> list[str]:
    return [
        "".join(node.text or "" for node in [*element.findall(f"{SVG}title"), element][-1:])
        for element in chart.iter(f"{SVG}text")
    ]


@pytest.mark.parametrize("highest", [1e-4, 0.07, 0.3, 1, 5.9, 10, 34.9, 99.99, 100, 101, 25_000])
def test_ticks_are_round_few_and_reach_far_enough(highest):
    """Multiples of 1, 2, 2.5 or 5 times a power of ten, at most six."""
    found = ticks(highest)
    assert found[0] == 0
    assert highest <= found[-1] * (1 + 1e-9)
    assert found[-2] < highest
    assert 3 <= len(found) <= 6
    assert [b - a for a, b in itertools.pairwise(found)] == pytest.approx(
        [found[1]] * (len(found) - 1)
    )
    digits = found[1] / 10 ** math.floor(math.log10(found[1]) + 1e-9)
    assert any(digits == pytest.approx(round_number) for round_number in (1, 2, 2.5, 5))


def test_without_a_value_the_axis_still_has_a_length():
    assert ticks(0.0) == [0.0, 1.0]


def test_lines_and_bands_lie_where_the_axes_say():
    line = Line("ours", [0, 50, 100], [0.0, 5.0, 10.0], [0.0, 4.0, 10.0], [0.0, 6.0, 10.0])
    chart = ElementTree.fromstring(line_chart([line], "t", "step", "loss"))
    mean = points(chart.find(f"{SVG}polyline"))
    (x0, y0), (x1, y1), (x2, y2) = mean
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.11)
    ruled = {round(float(rule.get("y1")), 1) for rule in chart.iter(f"{SVG}line")}
    assert {y0, y2} <= ruled  # 0 and 10 are ticks
    high, low = points(chart.find(f"{SVG}polygon"))[1], points(chart.find(f"{SVG}polygon"))[4]
    assert high[1] == pytest.approx(y1 - (y0 - y2) / 10, abs=0.11)
    assert low[1] == pytest.approx(y1 + (y0 - y2) / 10, abs=0.11)


def test_a_chart_says_what_it_shows():
    chart = ElementTree.fromstring(line_chart([flat("a < b & c", [1, 2])], "Loss", "step", "nats"))
    assert {"Loss", "step", "nats", "a < b & c"} <= set(texts(chart))
    assert chart.get("aria-label") == "Loss"


def test_no_points_are_an_error():
    with pytest.raises(ValueError, match="'Loss' has no points"):
        line_chart([flat("ours", [])], "Loss", "step", "nats")


def test_twenty_lines_differ_in_color_or_dashes():
    chart = ElementTree.fromstring(
        line_chart([flat(f"row {n}", [1, 2]) for n in range(20)], "t", "x", "y")
    )
    styles = [
        (line.get("stroke"), line.get("stroke-dasharray")) for line in chart.iter(f"{SVG}polyline")
    ]
    assert len(set(styles)) == 20


def test_bars_are_as_long_as_their_values():
    """Absent values have no bar."""
    ours = Bars("ours", [20.0, 40.0, math.nan], [20.0, 30.0, math.nan], [20.0, 50.0, math.nan], 0)
    chart = ElementTree.fromstring(bar_chart(["road", "car", "train"], [ours], "IoU", "%"))
    bars = [rect for rect in chart.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    assert [rect.find(f"{SVG}title").text for rect in bars] == [
        "road, ours: 20.00",
        "car, ours: 40.00",
    ]
    widths = [float(rect.get("width")) for rect in bars]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.2)
    whisker = next(line for line in chart.iter(f"{SVG}line") if line.get("stroke") == "#ffffff")
    assert float(whisker.get("x2")) == pytest.approx(float(bars[1].get("x")) + widths[1], abs=0.2)


def test_charts_side_by_side_can_have_one_scale():
    """x_max makes the axes equal."""

    def end_of_axis(value: float) -> int:
        bars = Bars("ours", [value], [value], [value], 0)
        chart = ElementTree.fromstring(bar_chart(["road"], [bars], "t", "%", x_max=80))
        return max(int(text) for text in texts(chart) if text.isdigit())

    assert end_of_axis(3.0) == end_of_axis(79.0) == 80


def test_everything_lies_inside_the_picture():
    """Long names are cut, and whole in the tooltip."""
    long = (
        "light LAB-ADA + class-mix self-training with rare class sampling, EMA teacher, no"
        " discriminator"
    )
    for text in (
        line_chart([flat(long, [1, 2]), flat("short", [2, 1])], "t", "x", "y"),
        bar_chart(
            [long, "car"],
            [
                Bars(long, [1.0, 2.0], [1, 2], [1, 2], 0),
                Bars("b", [3.0, 1.0], [3, 1], [3, 1], 1, outlined=True),
            ],
            "t",
            "x",
        ),
    ):
        chart = ElementTree.fromstring(text)
        height = float(chart.get("viewBox").split()[3])
        assert long in [title.text for title in chart.iter(f"{SVG}title")]
        for element in chart.iter():
            for name in ("x", "x1", "x2"):
                assert 0 <= float(element.get(name, 0)) <= WIDTH
            for name in ("y", "y1", "y2"):
                assert 0 <= float(element.get(name, 0)) <= height
        for element in chart.iter(f"{SVG}text"):
            shown = (
                element.find(f"{SVG}title").tail
                if element.find(f"{SVG}title") is not None
                else element.text
            ) or ""
            start, width = float(element.get("x")), text_width(shown)
            start -= {"end": width, "middle": width / 2}.get(element.get("text-anchor"), 0)
            assert start >= -1
            assert start + width <= WIDTH + 1
