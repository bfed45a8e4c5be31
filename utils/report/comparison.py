"""Tables I and II of scored runs: means over seeds, costs, and the published rows beside them.

Written as Markdown, CSV and LaTeX.
"""

import csv
import io
import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from utils.evaluation.published import TABLE_1, TABLE_2
from utils.report.scored_rows import ComparisonRow
from utils.report.tables import markdown_table

MEASURES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel acc.",
    "pixel_accuracy_with_void": "pixel acc. incl. void",
    "mean_class_accuracy": "mean class acc.",
}
"""{measure in eval.py's JSON: name in tables}."""
COSTS = ("discriminator", "discriminator MACs", "deployed model", "deployed MACs")
NUM_PUBLISHED_CLASSES = 19


class Table(NamedTuple):
    """A header and lines of as many cells."""

    header: Sequence[str]
    lines: list[list[str]]

    def without(self, *columns: str) -> "Table":
        """The table without the columns of these names."""
        kept = [i for i, name in enumerate(self.header) if name not in columns]
        header, *lines = ([cells[i] for i in kept] for cells in (self.header, *self.lines))
        return Table(header, lines)


def mean_and_deviation(values: list[float]) -> str:
    """ "31.20 ± 0.55", the sample standard deviation; a single value alone; "-" for none."""
    if not values:
        return "-"
    text = f"{statistics.mean(values):.2f}"
    return f"{text} ± {statistics.stdev(values):.2f}" if len(values) > 1 else text


def table_1(rows: list[ComparisonRow], class_names: Sequence[str], published: bool) -> Table:
    """IoU of each class. ``class_names``: by trainId; ``published``: with the paper's rows."""
    classes = rows[0].classes
    lines = list(published_class_lines(classes).values()) if published else []
    lines += map(class_line, rows)
    return Table(("IoU, %", *(class_names[c] for c in classes)), lines)


def class_line(row: ComparisonRow) -> list[str]:
    """The name of a row and its IoU of each class."""
    return [row.name, *(mean_and_deviation(row.class_values(c)) for c in row.classes)]


def published_class_lines(classes: Sequence[int]) -> dict[str, list[str]]:
    """The lines of the paper's Table I: {name of the row: cells}."""
    return {
        name: [f"{name} (published)", *(f"{iou[c]:.2f}" for c in classes)]
        for name, iou in TABLE_1.items()
    }


def table_2(rows: list[ComparisonRow], published: bool, seeds: bool = True) -> Table:
    """Accuracies, mIoU and costs.

    ``published``: with the paper's rows, if means are over its 19 classes; ``seeds``: with the
    number of seeds.
    """
    lines = list(published_score_lines(rows[0].classes).values()) if published else []
    lines += map(score_line, rows)
    table = Table(("%", *MEASURES.values(), "classes", "seeds", *COSTS), lines)
    return table if seeds else table.without("seeds")


def score_line(row: ComparisonRow) -> list[str]:
    """The cells of a row of Table II."""
    first = row.scores[0]
    costs = ["-", "-"]
    if "discriminator" in first:
        costs = _cost_cells(first["discriminator_parameters"], first["discriminator_gmac"])
    costs += _cost_cells(first["model_parameters"], first["model_gmac"])
    scores = [mean_and_deviation(row.values(measure)) for measure in MEASURES]
    # Seeds may predict other classes.
    averaged = sorted({score["averaged"] for score in row.scores})
    return [row.name, *scores, ", ".join(map(str, averaged)), str(len(row.scores)), *costs]


def _cost_cells(parameters: int, gmac: float) -> list[str]:
    return [f"{parameters / 1e6:.2f} M", f"{gmac:.2f} GMac"]


def published_score_lines(classes: Sequence[int]) -> dict[str, list[str]]:
    """The lines of the paper's Table II: {name of the row: cells}.

    {} where ``classes`` are fewer than the paper's: its means cannot be compared with theirs.
    """
    if len(classes) != NUM_PUBLISHED_CLASSES:
        return {}
    lines = {}
    for row in TABLE_2:
        # The paper has no pixel accuracy without void.
        values = [getattr(row, measure, None) for measure in MEASURES]
        scores = ["-" if value is None else f"{value:.2f}" for value in values]
        costs = [row.discriminator_parameters, row.discriminator_macs, "-", "-"]
        averaged, seeds = str(NUM_PUBLISHED_CLASSES), "-"
        lines[row.name] = [f"{row.name} (published)", *scores, averaged, seeds, *costs]
    return lines


def comparison_tables(
    rows: list[ComparisonRow], published: bool, class_names: Sequence[str] = ()
) -> dict[str, str]:
    """The comparison as {"md": ..., "csv": ..., "tex": ...}: Table II, then Table I.

    ``rows``: at least one. ``class_names``: by trainId; without them Table I is left out.
    """
    scores = table_2(rows, published)
    class_tables = [table_1(rows, class_names, published)] if class_names else []
    return {
        "md": _markdown([scores, *class_tables], rows),
        "csv": _csv(rows, class_names),
        "tex": "\n".join(map(_latex, [scores.without(*COSTS), *class_tables])),  # fits a page
    }


def protocol_text(rows: list[ComparisonRow]) -> str:
    """States how the rows were scored: images, checkpoint, resolution, precision."""
    first = rows[0].scores[0]
    files = {Path(score.get("checkpoint", "last.pt")).name for row in rows for score in row.scores}
    checkpoint = "last checkpoint" if files == {"last.pt"} else ", ".join(sorted(files))
    parts = [f"{first['images']} images of {first['split']}"] if "images" in first else []
    parts.append(checkpoint)
    precisions = {
        score["precision"] for row in rows for score in row.scores if "precision" in score
    }
    parts += ["full resolution", *sorted(precisions)]
    return (
        f"{', '.join(parts)}, one confusion matrix over the split; several seeds: mean ± sample"
        " standard deviation. The discriminator is absent at inference; MACs at 512x1024 by"
        " ptflops."
    )


def warnings_of(rows: list[ComparisonRow]) -> list[str]:
    """The warnings that eval.py wrote beside the scores, sorted, each once."""
    return sorted(
        {warning for row in rows for score in row.scores for warning in score["warnings"]}
    )


def commands_of(starts: Sequence[dict]) -> list[str]:
    """The commands of a run, quoted for a shell: the first, and later ones that differ in more than
    --resume.
    """
    plain = (tuple(word for word in start["argv"] if word != "--resume") for start in starts)
    first, *others = dict.fromkeys(plain)
    return [f"python {shlex.join(words)}" for words in (first, *((*o, "--resume") for o in others))]


def revisions_of(starts: Sequence[dict]) -> str:
    """The git revisions that trained a run, in order."""
    return ", ".join(dict.fromkeys(start["git"] for start in starts))


def hardware_of(starts: Sequence[dict]) -> str:
    """The processors, torch versions and precisions that trained a run, in order."""
    return "; ".join(dict.fromkeys(map(_hardware, starts)))


def _hardware(start: dict) -> str:
    on_cpu = start.get("device", "cuda") == "cpu"  # though there was a GPU
    processor = start["cpu"] if on_cpu else start["gpu"] or start["cpu"]
    return f"{processor}, torch {start['torch']}, {start['settings']['precision']}"


def _markdown(tables: list[Table], rows: list[ComparisonRow]) -> str:
    parts = [*(markdown_table(*table) + "\n" for table in tables), protocol_text(rows)]
    for row in rows:
        starts = row.starts[0]
        commands = ", then ".join(f"`{command}`" for command in commands_of(starts))
        parts.append(f"- {row.name}: {commands}; git {revisions_of(starts)}, {hardware_of(starts)}")
    parts += [f"- WARNING: {warning}" for warning in warnings_of(rows)]
    return "\n".join(parts) + "\n"


def _csv(rows: list[ComparisonRow], class_names: Sequence[str]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    iou_columns = [f"iou {name}" for name in class_names]
    writer.writerow(["row", "seed", *MEASURES, "averaged", "git", "command", *iou_columns])
    for row in rows:
        for score, starts in zip(row.scores, row.starts, strict=True):
            measures = [score[measure] for measure in MEASURES]
            origin = [score["averaged"], revisions_of(starts), "; ".join(commands_of(starts))]
            iou = score["iou"] if class_names else ()
            writer.writerow([row.name, starts[0]["seed"], *measures, *origin, *iou])
    return file.getvalue()


def _latex(table: Table) -> str:
    replacements = {sign: f"\\{sign}" for sign in "%&_#${}"} | {
        "±": r"$\pm$",
        "\\": r"\textbackslash{}",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
    }

    def row(cells: Sequence[str]) -> str:
        return " & ".join(cell.translate(str.maketrans(replacements)) for cell in cells) + r" \\"

    lines = [
        r"\begin{tabular}{l" + "r" * (len(table.header) - 1) + "}",
        r"\hline",
        row(table.header),
        r"\hline",
        *map(row, table.lines),
        r"\hline",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"
