"""The report of a comparison: one page of HTML with tables, curves, bars and pictures.

The page contains all that it shows: it opens offline and can be sent by mail.
"""

import base64
import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.evaluation.published import TABLE_1
from utils.report.charts import Bars, Line, bar_chart, line_chart
from utils.report.comparison import (
    MEASURES,
    class_line,
    commands_of,
    hardware_of,
    protocol_text,
    published_class_lines,
    published_score_lines,
    revisions_of,
    score_line,
    warnings_of,
)
from utils.report.curves import SeedRange
from utils.report.label_free import MEASURES_NOTE, measure_lines, share_charts
from utils.report.scored_rows import ComparisonRow

STYLE_SHEET = Path(__file__).with_name("page.css")
CONTENT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Browsers then run no script and load nothing from elsewhere."""


class Picture(NamedTuple):
    """An encoded picture (PNG or JPEG) and the text above it."""

    caption: str
    content: bytes


class ImageRow(NamedTuple):
    """An image, its ground truth and the prediction of each method."""

    name: str
    pictures: list[Picture]


class ScalarChart(NamedTuple):
    """How a scalar is drawn; its values are multiplied by ``factor``."""

    title: str
    y_label: str
    factor: float


CHARTS = {
    "loss/segmentation": ScalarChart(
        "Segmentation loss", "cross-entropy, main and both auxiliary outputs, nats", 1
    ),
    "val/miou": ScalarChart(
        "mIoU on the scored split during training", "mIoU over all classes, %", 100
    ),
}
"""{scalar in TensorBoard: its chart}."""

CURVES_NOTE = (
    "Lines are means over the seeds; bands reach from the lowest to the highest seed, at the steps"
    " that all seeds logged. Long runs are averaged over intervals. Scores during training use"
    " labels for monitoring only: the tables hold the last checkpoint, not the best."
)
BARS_NOTE = (
    "Bars are means over the seeds, in the order of the legend; the thin line inside reaches from"
    " the lowest to the highest seed."
)
PICTURES_NOTE = (
    "Predictions of the first seed of each row. The images are evenly spaced over the scored split,"
    " not selected."
)


def curve_charts(curves: dict[str, dict[str, SeedRange]]) -> dict[str, str]:
    """The training curves of the scalars in CHARTS, {scalar: SVG}.

    ``curves``: {scalar: {name of a row: its range over the seeds}}.
    """
    charts = {}
    for scalar, (title, y_label, factor) in CHARTS.items():
        lines = []
        for name, seeds in curves.get(scalar, {}).items():
            values = [list(factor * curve) for curve in (seeds.mean, seeds.low, seeds.high)]
            lines.append(Line(name, seeds.steps.tolist(), *values))
        if lines:
            charts[scalar] = line_chart(lines, title, "step", y_label)
    return charts


def class_charts(
    rows: list[ComparisonRow], published: bool, class_names: Sequence[str]
) -> list[str]:
    """IoU of each class as bar charts, SVG.

    First each method beside its published values, where the paper has them; then all rows.
    """
    classes = rows[0].classes
    names = [class_names[c] for c in classes]
    series = [_class_bars(row, classes, index) for index, row in enumerate(rows)]
    charts = []
    for bars in series:
        if published and bars.name in TABLE_1:
            values = [TABLE_1[bars.name][c] for c in classes]
            paper = Bars("published", values, values, values, bars.color, outlined=True)
            pair = [bars._replace(name="ours"), paper]
            charts.append(bar_chart(names, pair, bars.name, "IoU, %", 100))
    if len(rows) > 1 or not charts:
        highs = (value for bars in series for value in bars.high)
        x_max = max((value for value in highs if not math.isnan(value)), default=0.0)
        # More than ten classes are drawn as two charts, with the same axis.
        half = math.ceil(len(classes) / 2) if len(classes) > 10 else len(classes)
        for start in range(0, len(classes), half):
            part = slice(start, start + half)
            title = f"{names[part][0]} to {names[part][-1]}"
            drawn = [
                bars._replace(values=bars.values[part], low=bars.low[part], high=bars.high[part])
                for bars in series
            ]
            charts.append(bar_chart(names[part], drawn, title, "IoU, %", x_max))
    return charts


def _class_bars(row: ComparisonRow, classes: Sequence[int], color: int) -> Bars:
    seeds = [row.class_values(c) or [math.nan] for c in classes]
    means = [float(np.mean(values)) for values in seeds]
    return Bars(row.name, means, list(map(min, seeds)), list(map(max, seeds)), color)


def report_page(
    title: str,
    rows: list[ComparisonRow],
    published: bool,
    classes: Sequence[tuple[str, str]],
    curves: dict[str, dict[str, SeedRange]],
    image_rows: list[ImageRow],
    notes: dict[str, list[str]],
) -> str:
    """The page as HTML.

    Args: rows: at least one; published: with the paper's rows; classes: (name, CSS color) by
    trainId; curves: as in ``curve_charts``; notes: on missing results, for the sections "tables",
    "curves" and "pictures".
    """
    names = [name for name, _ in classes]
    missing = {section: _paragraphs("note", texts) for section, texts in notes.items()}
    explanation = escape(protocol_text(rows))
    if published:
        explanation += " Rows marked <em>published</em> are the paper's, not ours."
    sections = [
        f"<h1>{escape(title)}</h1><p>{explanation}</p>"
        f"{_paragraphs('warning', warnings_of(rows))}{missing.get('tables', '')}",
        f"<h2>Scores and costs</h2>{_score_table(rows, published)}",
        f"<h2>IoU of each class, %</h2>{_class_table(rows, published, names)}",
        f"<h2>Training curves</h2><p>{CURVES_NOTE}</p>{missing.get('curves', '')}"
        f"{_charts(curve_charts(curves).values())}",
        f"<h2>Classes</h2><p>{BARS_NOTE}</p>{_charts(class_charts(rows, published, names))}",
        f"<h2>Pictures</h2><p>{PICTURES_NOTE}</p>{missing.get('pictures', '')}"
        f"{_images(image_rows)}{_legend(classes) if image_rows else ''}",
        f"<h2>Commands and versions</h2>{_origins(rows)}",
    ]
    return html_page(title, sections)


def html_page(title: str, sections: Sequence[str]) -> str:
    """A page that contains all that it shows; ``sections`` are HTML."""
    body = "\n".join(f"<section>{section}</section>" for section in sections)
    head = (
        '<meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>"
        f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_POLICY}">'
        f"<style>\n{STYLE_SHEET.read_text(encoding='utf-8')}</style>"
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n'
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


WITHOUT_LABELS = (
    "No label of the target was opened: nothing on this page is a score, and no measure says how"
    " many pixels are right. Look at the pictures."
)


def label_free_page(
    title: str,
    selection: dict[str, Any],
    classes: Sequence[tuple[str, str]],
    curves: dict[str, dict[str, SeedRange]],
    image_rows: list[ImageRow],
) -> str:
    """The report of a comparison on an unlabelled target, as HTML.

    ``selection``: what scripts.select wrote; ``classes``: (name, CSS color) by trainId; ``curves``:
    as in ``curve_charts``.
    """
    header, lines = measure_lines(selection)
    head = _header_line(header)
    table = f"<table><thead>{head}</thead>{_table_body([(line, False) for line in lines])}</table>"
    sample = f"{selection['images']} images of {selection['target']}"
    losses = {name: rows for name, rows in curves.items() if not name.startswith("val/")}
    sections = [
        f"<h1>{escape(title)}</h1><p>{escape(sample)}. {WITHOUT_LABELS}</p>"
        f"{_paragraphs('warning', selection['warnings'])}",
        f'<h2>Measures without labels</h2><p>{MEASURES_NOTE}</p><div class="wide">{table}</div>',
        f"<h2>Class shares of the predictions</h2>{_charts(share_charts(selection))}",
        f"<h2>Training curves</h2>{_charts(curve_charts(losses).values())}",
        f"<h2>Pictures</h2>{_images(image_rows)}{_legend(classes) if image_rows else ''}",
    ]
    return html_page(title, sections)


def _paragraphs(css_class: str, texts: Iterable[str]) -> str:
    return "".join(f'<p class="{css_class}">{escape(text)}</p>' for text in texts)


def _interleave(
    ours: dict[str, list[str]], published: dict[str, list[str]]
) -> list[tuple[list[str], bool]]:
    """(cells, published): our rows, each above the published row of its name, then the others."""
    lines = []
    for name, line in ours.items():
        lines.append((line, False))
        if name in published:
            lines.append((published[name], True))
    return lines + [(line, True) for name, line in published.items() if name not in ours]


def _table_body(lines: list[tuple[list[str], bool]]) -> str:
    def data_cell(text: str) -> str:
        mean, *deviation = escape(text).split(" ±")
        return f"<td>{mean}{''.join(f' <small>±{value}</small>' for value in deviation)}</td>"

    rows = ""
    for (name, *cells), published in lines:
        css_class = ' class="published"' if published else ""
        columns = "".join(map(data_cell, cells))
        rows += f'<tr{css_class}><th scope="row">{escape(name)}</th>{columns}</tr>'
    return f"<tbody>{rows}</tbody>"


def _header_line(names: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in names)}</tr>"


def _score_table(rows: list[ComparisonRow], published: bool) -> str:
    ours = {row.name: score_line(row) for row in rows}
    paper = published_score_lines(rows[0].classes) if published else {}
    groups = (
        f'<tr><td></td><th colspan="{len(MEASURES)}">scores, %</th><th colspan="2">over</th>'
        '<th colspan="2">discriminator: training only</th>'
        '<th colspan="2">deployed model</th></tr>'
    )
    costs = ("parameters", "MACs")
    head = groups + _header_line(["row", *MEASURES.values(), "classes", "seeds", *costs, *costs])
    body = _table_body(_interleave(ours, paper))
    return f'<div class="wide"><table><thead>{head}</thead>{body}</table></div>'


def _class_table(rows: list[ComparisonRow], published: bool, class_names: Sequence[str]) -> str:
    ours = {row.name: class_line(row) for row in rows}
    paper = published_class_lines(rows[0].classes) if published else {}
    head = _header_line(["row", *(class_names[c] for c in rows[0].classes)])
    body = _table_body(_interleave(ours, paper))
    return f'<div class="wide"><table class="classes"><thead>{head}</thead>{body}</table></div>'


def _charts(charts: Iterable[str]) -> str:
    return f'<div class="charts">{"".join(charts)}</div>'


def _images(image_rows: list[ImageRow]) -> str:
    text = ""
    for row in image_rows:
        figures = "".join(map(_figure, row.pictures))
        text += f'<h3>{escape(row.name)}</h3><div class="images">{figures}</div>'
    return text


def _figure(picture: Picture) -> str:
    caption = escape(picture.caption)
    kind = "png" if picture.content.startswith(b"\x89PNG") else "jpeg"
    data = base64.b64encode(picture.content).decode()
    return (
        f"<figure><figcaption>{caption}</figcaption>"
        f'<img alt="{caption}" src="data:image/{kind};base64,{data}"></figure>'
    )


def _legend(classes: Sequence[tuple[str, str]]) -> str:
    entries = "".join(
        f'<li><span style="background:{color}"></span>{escape(name)}</li>'
        for name, color in classes
    )
    return f'<ul class="legend">{entries}</ul>'


def _origins(rows: list[ComparisonRow]) -> str:
    """Seeds, revisions, machines and commands of each row."""
    text = ""
    for row in rows:
        seeds = ", ".join(str(starts[0]["seed"]) for starts in row.starts)
        revisions = ", ".join(sorted(set(map(revisions_of, row.starts))))
        machines = "; ".join(sorted(set(map(hardware_of, row.starts))))
        origin = escape(f"seed {seeds}; git {revisions}; {machines}")
        commands = ("\n".join(commands_of(starts)) for starts in row.starts)
        commands = "".join(f"<pre>{escape(command)}</pre>" for command in commands)
        text += f"<h3>{escape(row.name)}</h3><p>{origin}</p>{commands}"
    return text
