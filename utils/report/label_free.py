"""Tables and charts of a comparison without labels, from the file of scripts.select --json."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.files import read_json_object
from utils.report.charts import Bars, bar_chart

MEASURES_NOTE = (
    "Ranks are in parentheses, 1 is best by that measure. The chosen checkpoint is marked by an"
    " arrow."
)
MAX_BARS = 8
"""Candidates in one chart."""


def read_selection(path: Path) -> dict[str, Any]:
    """Reads what scripts.select wrote. Raises ValueError for another file."""
    keys = ("candidates", "chosen", "images", "measures", "pictures", "target", "warnings")
    return read_json_object(path, keys, "the file of scripts.select --json")


def measure_lines(selection: dict[str, Any]) -> tuple[Sequence[str], list[list[str]]]:
    """The header and a line for each candidate: values and ranks of all measures.

    No value is in percent, so that none is taken for a score.
    """
    lines = []
    for row in selection["candidates"]:
        cells = []
        for name in selection["measures"]:
            value, rank = row["values"].get(name), row["ranks"].get(name)
            text = f"{value or 0:.0f}" if name == "last" else f"{value or 0:.3f}"
            cells.append("-" if value is None else f"{text} ({rank:.3g})")
        chosen = row["checkpoint"] == selection["chosen"]
        lines.append([f"{'-> ' if chosen else ''}{row['name']}", *cells])
    return ["checkpoint", *selection["measures"].values()], lines


def last_of_runs(selection: dict[str, Any]) -> list[dict[str, Any]]:
    """The candidate with the most steps of each run folder, in their order."""
    found: dict[Path, dict[str, Any]] = {}
    for row in selection["candidates"]:
        folder = Path(row["checkpoint"]).parent
        if folder not in found or row["step"] >= found[folder]["step"]:
            found[folder] = row
    return list(found.values())


def share_charts(selection: dict[str, Any]) -> list[str]:
    """Class shares of the predictions of the last candidate of each run, as an SVG bar chart."""
    rows = last_of_runs(selection)[:MAX_BARS]
    names = list(rows[0]["class_shares"])
    bars = []
    for index, row in enumerate(rows):
        shares = [100 * row["class_shares"][name] for name in names]
        bars.append(Bars(row["name"], shares, shares, shares, index))
    highest = max(value for series in bars for value in series.values)
    return [bar_chart(names, bars, "predicted pixels", "% of the target's pixels", highest)]
