"""A comparison as one page of HTML that holds everything it shows: tables, curves, bars and
pictures. It opens offline and can be mailed.
"""

import base64
import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from utils.evaluation.published import TABLE_1
from utils.report.charts import Bars, Line, bar_chart, line_chart
from utils.report.comparison import (
    MEASURES,
    ComparisonRow,
    class_line,
    command_of,
    hardware_of,
    protocol_text,
    published_class_lines,
    published_score_lines,
    score_line,
    warnings_of,
)
from utils.report.curves import SeedRange


class Picture(NamedTuple):
    """An encoded picture (PNG or JPEG) and what stands above it."""

    caption: str
    content: bytes


class ImageRow(NamedTuple):
    """One street, as every method sees it."""

    name: str
    pictures: list[Picture]


CHARTS = {
    "loss/segmentation": (
        "Segmentation loss",
        "cross-entropy, main and both auxiliary outputs, nats",
        1,
    ),
    "val/miou": ("mIoU on the scored split, along the way", "mIoU over all 19 classes, %", 100),
}
"""{scalar in TensorBoard: title, vertical axis, factor}."""


def curve_charts(bands: dict[str, dict[str, SeedRange]]) -> dict[str, str]:
    """The learning curves, {scalar: SVG}. ``bands``: {scalar: {row: band over the seeds}}; only the
    scalars of CHARTS are drawn.
    """
    charts = {}
    for scalar, (title, y_label, factor) in CHARTS.items():
        lines = [
            Line(
                name,
                band.steps.tolist(),
                *(list(factor * values) for values in (band.mean, band.low, band.high)),
            )
            for name, band in bands.get(scalar, {}).items()
        ]
        if lines:
            charts[scalar] = line_chart(lines, title, "step", y_label)
    return charts


def class_charts(
    rows: list[ComparisonRow], published: bool, class_names: Sequence[str]
) -> list[str]:
    """IoU of the classes as bars, SVG: each method against what the paper reports of it where it
    does; then the rows beside each other.
    """
    classes = rows[0].scores[0]["classes"]
    ours = [_bars(row, classes, place) for place, row in enumerate(rows)]
    charts = []
    for bars, row in zip(ours, rows, strict=True):
        if published and row.name in TABLE_1:
            values = [TABLE_1[row.name][c] for c in classes]
            theirs = Bars("published", values, values, values, bars.color, hollow=True)
            charts.append(
                bar_chart(
                    [class_names[c] for c in classes],
                    [bars._replace(name="ours"), theirs],
                    row.name,
                    "IoU, %",
                    100,
                )
            )
    if len(rows) > 1 or not charts:
        highest = max(
            (value for bars in ours for value in bars.high if not math.isnan(value)), default=0.0
        )
        half = math.ceil(len(classes) / 2) if len(classes) > 10 else len(classes)
        for part in (slice(0, half), slice(half, None)):
            names = [class_names[c] for c in classes[part]]
            some = [
                bars._replace(values=bars.values[part], low=bars.low[part], high=bars.high[part])
                for bars in ours
            ]
            if names:
                charts.append(
                    bar_chart(names, some, f"{names[0]} to {names[-1]}", "IoU, %", highest)
                )
    return charts


def _bars(row: ComparisonRow, classes: Sequence[int], color: int) -> Bars:
    values = [row.class_values(c) or [math.nan] for c in classes]
    return Bars(
        row.name,
        [float(np.mean(v)) for v in values],
        [min(v) for v in values],
        [max(v) for v in values],
        color,
    )


def report_page(
    title: str,
    rows: list[ComparisonRow],
    published: bool,
    classes: Sequence[tuple[str, str]],
    bands: dict[str, dict[str, SeedRange]],
    strips: list[ImageRow],
    notes: dict[str, list[str]],
) -> str:
    """The page. ``rows``: at least one; ``classes``: (name, CSS color) by trainId; ``notes``: what
    is missing and why, below "tables", "curves" and "pictures".
    """
    class_names = [name for name, _ in classes]
    warnings = "".join(f'<p class="warning">{escape(warning)}</p>' for warning in warnings_of(rows))
    said = {
        section: "".join(f'<p class="note">{escape(note)}</p>' for note in texts)
        for section, texts in notes.items()
    }
    marked = " Rows marked <em>published</em> are the paper's, not ours." if published else ""
    sections = [
        (
            f"<h1>{escape(title)}</h1><p>{escape(protocol_text(rows))}{marked}</p>{warnings}{said.get('tables', '')}"
        ),
        f"<h2>Scores and costs</h2>{_score_table(rows, published)}",
        f"<h2>IoU of each class, %</h2>{_class_table(rows, published, class_names)}",
        (
            "<h2>Learning"
            f" curves</h2><p>{_BAND}</p>{said.get('curves', '')}{_grid(curve_charts(bands).values())}"
        ),
        f"<h2>Classes</h2><p>{_BARS}</p>{_grid(class_charts(rows, published, class_names))}",
        (
            f"<h2>Pictures</h2><p>{_PICTURES}</p>{said.get('pictures', '')}{_strips(strips)}{_legend(classes) if strips else ''}"
        ),
        f"<h2>How each row was made</h2>{_origins(rows)}",
    ]
    body = "\n".join(f"<section>{section}</section>" for section in sections)
    # No script, and nothing from elsewhere: a browser holds the page to it.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width,'
        f' initial-scale=1"><title>{escape(title)}</title>'
    )
    head += f'<meta http-equiv="Content-Security-Policy" content="{policy}"><style>{_STYLE}</style>'
    return (
        "<!DOCTYPE html>\n<html"
        f' lang="en"><head>{head}</head>\n<body><main>\n{body}\n</main></body></html>\n'
    )


_BAND = (
    "Lines are means over the seeds, bands reach from the lowest to the highest seed, at the steps"
    " that all of them logged; long runs are averaged in stretches. Scores along the way open"
    " labels for watching only: the tables hold the last checkpoint, not the best."
)
_BARS = (
    "Bars are means over the seeds, in the order of the legend; the thin line inside reaches from"
    " the lowest to the highest seed."
)
_PICTURES = (
    "Predictions of each row's first seed on images evenly spaced over the scored split, not chosen"
    " by their looks."
)


def _interleave(
    ours: dict[str, list[str]], published: dict[str, list[str]]
) -> list[tuple[list[str], bool]]:
    """(cells, published): each of our rows with the paper's of the same name below it, then what
    else the paper has.
    """
    lines = []
    for name, line in ours.items():
        lines += [(line, False), *([(published[name], True)] if name in published else [])]
    return lines + [(line, True) for name, line in published.items() if name not in ours]


def _rows_of(lines: list[tuple[list[str], bool]]) -> str:
    text = ""
    for (name, *cells), published in lines:
        kind = ' class="published"' if published else ""
        columns = "".join(
            f"<td>{escape(cell).replace(' ±', ' <small>±')}{'</small>' if '±' in cell else ''}</td>"
            for cell in cells
        )
        text += f'<tr{kind}><th scope="row">{escape(name)}</th>{columns}</tr>'
    return text


def _score_table(rows: list[ComparisonRow], published: bool) -> str:
    lines = _interleave(
        {row.name: score_line(row) for row in rows},
        published_score_lines(rows[0].scores[0]["classes"]) if published else {},
    )
    groups = f'<tr><td></td><th colspan="{len(MEASURES)}">scores, %</th><th colspan="2">over</th>'
    groups += (
        '<th colspan="2">discriminator: training only</th><th colspan="2">deployed model</th></tr>'
    )
    names = [
        "row",
        *MEASURES.values(),
        "classes",
        "seeds",
        "parameters",
        "MACs",
        "parameters",
        "MACs",
    ]
    head = groups + f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in names)}</tr>"
    return (
        "<div"
        f' class="wide"><table><thead>{head}</thead><tbody>{_rows_of(lines)}</tbody></table></div>'
    )


def _class_table(rows: list[ComparisonRow], published: bool, class_names: Sequence[str]) -> str:
    classes = rows[0].scores[0]["classes"]
    lines = _interleave(
        {row.name: class_line(row) for row in rows},
        published_class_lines(classes) if published else {},
    )
    head = f"<tr><th>row</th>{''.join(f'<th>{escape(class_names[c])}</th>' for c in classes)}</tr>"
    return (
        '<div class="wide"><table'
        f' class="classes"><thead>{head}</thead><tbody>{_rows_of(lines)}</tbody></table></div>'
    )


def _grid(charts: Iterable[str]) -> str:
    return f'<div class="charts">{"".join(charts)}</div>'


def _strips(strips: list[ImageRow]) -> str:
    text = ""
    for strip in strips:
        figures = "".join(
            f"<figure><figcaption>{escape(picture.caption)}</figcaption><img"
            f' alt="{escape(picture.caption)}" src="{_data(picture.content)}"></figure>'
            for picture in strip.pictures
        )
        text += f'<h3>{escape(strip.name)}</h3><div class="strip">{figures}</div>'
    return text


def _data(content: bytes) -> str:
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _legend(classes: Sequence[tuple[str, str]]) -> str:
    entries = "".join(
        f'<li><span style="background:{color}"></span>{escape(name)}</li>'
        for name, color in classes
    )
    return f'<ul class="legend">{entries}</ul>'


def _origins(rows: list[ComparisonRow]) -> str:
    text = ""
    for row in rows:
        seeds = ", ".join(str(record["seed"]) for record in row.records)
        revisions = ", ".join(sorted({record["git"] for record in row.records}))
        machines = "; ".join(sorted({hardware_of(record) for record in row.records}))
        commands = "".join(f"<pre>{escape(command_of(record))}</pre>" for record in row.records)
        text += (
            f"<h3>{escape(row.name)}</h3><p>seed {escape(seeds)}; git {escape(revisions)};"
            f" {escape(machines)}</p>{commands}"
        )
    return text


_STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #fff; color: #222; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
main { max-width: 1360px; margin: 0 auto; padding: 8px 16px 48px; }
section > p { max-width: 75ch; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 16px 0 8px; }
h2 { font-size: 1.25rem; margin: 40px 0 8px; padding-top: 8px; border-top: 1px solid #ddd; }
h3 { font-size: 1rem; margin: 20px 0 4px; overflow-wrap: anywhere; }
.note, .warning { padding: 6px 12px; border-left: 4px solid #8a8a8a; background: #f5f5f5; overflow-wrap: anywhere; }
.warning { border-color: #d55e00; background: #fdf3ec; }
.warning::before { content: "Warning: "; font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 8px; text-align: right; white-space: nowrap; border-bottom: 1px solid #e6e6e6; }
thead th { font-weight: 600; vertical-align: bottom; border-bottom-color: #999; }
thead th[colspan] { text-align: center; border-left: 1px solid #e6e6e6; font-weight: 400; color: #595959; }
th[scope=row], thead tr:last-child th:first-child { text-align: left; position: sticky; left: 0; background: #fff; white-space: normal;
  min-width: clamp(8.5em, 11vw, 13em); max-width: 16em; }
th[scope=row] { font-weight: 600; }
.published th[scope=row], .published td { background: #f3f3f3; color: #595959; font-weight: 400; }
small { font-size: 12px; color: #595959; }
.classes th, .classes td { white-space: normal; padding: 4px 5px; line-height: 1.3; }
.classes small { display: block; white-space: nowrap; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); gap: 24px; align-items: start; }
.charts svg { width: 100%; max-width: 620px; height: auto; display: block; }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(47%, 260px), 1fr)); gap: 8px; }
figure { margin: 0; display: flex; flex-direction: column; justify-content: flex-end; }
figcaption { font-size: 13px; line-height: 1.3; overflow-wrap: anywhere; }
img { width: 100%; height: auto; display: block; image-rendering: auto; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 0; font-size: 14px; }
.legend span { display: inline-block; width: 22px; height: 12px; margin-right: 6px; border: 1px solid #0002; }
pre { margin: 4px 0 8px; padding: 8px 10px; background: #f5f5f5; font: 13px/1.45 ui-monospace, Menlo, Consolas, monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; }
@media print { .wide { overflow: visible; } section { break-inside: auto; } figure, svg { break-inside: avoid; } }
"""
