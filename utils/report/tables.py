"""Tables as Markdown, readable on a terminal too."""

import math
from collections.abc import Sequence


def percent(fraction: float | None) -> str:
    """A fraction of 1 as percent with two decimals; "-" for None and NaN."""
    return "-" if fraction is None or math.isnan(fraction) else f"{100 * fraction:.2f}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of aligned columns, the first to the left and the others to the right."""
    widths = [
        max(len(str(row[column])) for row in (header, *rows)) for column in range(len(header))
    ]

    def line(cells: Sequence[str]) -> str:
        first, *numbers = map(str, cells)
        padded = [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True)]
        return f"| {' | '.join([first.ljust(widths[0]), *padded])} |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(header), line(rule), *(line(row) for row in rows)])
