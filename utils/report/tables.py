"""Tables as Markdown, which reads as well on a terminal as on a page."""

import math
from collections.abc import Sequence


def percent(value: float | None) -> str:
    """A fraction of 1 as percent with two decimals; "-" where there is none."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.2f}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, columns aligned, the first to the left and the others to the right."""
    widths = [
        max(len(str(row[column])) for row in (header, *rows)) for column in range(len(header))
    ]

    def line(cells: Sequence[str]) -> str:
        padded = [
            str(cell).ljust(width) if place == 0 else str(cell).rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(header), line(rule), *(line(row) for row in rows)])
