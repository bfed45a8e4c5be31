"""The tables of the results and of the research log are those of the records in docs/scores."""

import json
import re
import statistics
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("results.md", "research_log.md")
HEADS = {
    "%, mean ± sample standard deviation": ("miou", "pixel_accuracy", "mean_class_accuracy"),
    "IoU, %, mean of the seeds": ("iou",),
}


def tables() -> list[tuple[str, str, str, list[str]]]:
    """(records, head of the table, row, cells) of every row whose records are named before it."""
    found, records, head = [], "", None
    pages = [(DOCS / page).read_text(encoding="utf-8") for page in PAGES]
    for line in "\n".join(pages).splitlines():
        for name in re.findall(r"`docs/scores/([\w-]+)`", line):
            records = name
        row, *cells = [cell.strip(" *") for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            head = None
        elif head is None:
            head = row
        elif head in HEADS and not row.startswith(":"):
            found.append((records, head, row, cells))
    return found


def scored_seeds(records: str, row: str) -> list[dict]:
    """The scores of all seeds of a row."""
    name = re.sub("[^a-z0-9]+", "-", row.lower())
    files = sorted((DOCS / "scores" / records).glob(f"seed*/{name}.json"))
    return [json.loads(file.read_text(encoding="utf-8"))["rows"][0] for file in files]


@pytest.mark.parametrize(("records", "head", "row", "cells"), tables())
def test_a_row_shows_the_mean_of_its_records(records, head, row, cells):
    """Mean and sample standard deviation over all recorded seeds, and their number."""
    seeds = scored_seeds(records, row)
    assert seeds, f"no record of {row} in docs/scores/{records}"
    if HEADS[head] == ("iou",):
        classes = seeds[0]["classes"]
        means = [statistics.mean(100 * seed["iou"][c] for seed in seeds) for c in classes]
        assert cells == [f"{mean:.1f}" for mean in means]
        return
    expected = []
    for measure in HEADS[head]:
        values = [100 * seed[measure] for seed in seeds]
        deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        expected.append(f"{statistics.mean(values):.2f}{deviation}")
    assert cells == [*expected, str(len(seeds))]


def test_tables_of_all_records_are_compared():
    """Two tables, of the means and of the classes, for each of the seven sets of records."""
    found = {(records, head) for records, head, _, _ in tables()}
    assert len(found) == 2 * 7
