"""Rows of scores over several seeds, as tables: means and standard deviations, published values
beside, costs in columns of their own.
"""

import csv
import io
import json
import math
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.evaluation.published import TABLE_1, TABLE_2
from utils.report.tables import markdown_table

MEASURES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel acc.",
    "pixel_accuracy_with_void": "pixel acc. incl. void",
    "mean_class_accuracy": "mean class acc.",
}


@dataclass(frozen=True)
class ComparisonRow:
    """One method: what eval.py wrote for each seed, and how the runs came about (the last entry of
    their config.json).
    """

    name: str
    scores: tuple[dict, ...]
    records: tuple[dict, ...]

    def values(self, measure: str) -> list[float]:
        """The measure of every seed, in percent."""
        return [100 * row[measure] for row in self.scores]

    def class_values(self, train_id: int) -> list[float]:
        """The IoU of one class, of every seed for which it is defined, in percent."""
        return [
            100 * row["iou"][train_id]
            for row in self.scores
            if not math.isnan(row["iou"][train_id])
        ]


def read_rows(folder: Path, names: dict[str, str]) -> list[ComparisonRow]:
    """The rows under ``folder``/seed*/ROW.json, in the order of ``names`` ({folder of a row: its
    name}); rows not there are left out.

    Raises ValueError where rows were scored on different images or over different classes, which no
    table may put beside each other.
    """
    rows, protocols = [], {}
    for run, name in names.items():
        files = sorted(folder.glob(f"seed*/{run}.json"))
        contents = [json.loads(file.read_text()) for file in files]
        protocols |= {
            file: _protocol(content) for file, content in zip(files, contents, strict=True)
        }
        if files:
            scores = tuple(
                content["rows"][0] | {key: content[key] for key in ("images", "split")}
                for content in contents
            )
            records = tuple(
                json.loads((file.with_suffix("") / "config.json").read_text())[-1] for file in files
            )
            rows.append(ComparisonRow(name, scores, records))
    first = next(iter(protocols), None)
    for file, protocol in protocols.items():
        if protocol != protocols[first]:
            raise ValueError(
                f"{first} was scored on {protocols[first]}, {file} on {protocol}: their numbers"
                " cannot stand in one table. Delete the one that is not wanted, and run"
                " scripts.reproduce again."
            )
    return rows


def _protocol(content: dict) -> str:
    row = content["rows"][0]
    augmented = f", test-time augmentation {row['tta']}" if row["tta"] else ""
    return (
        f"{content['images']} images of {content['split']}, {len(content['classes'])} classes"
        f" ({', '.join(content['classes'])}){augmented}"
    )


def mean_and_deviation(values: list[float]) -> str:
    """ "31.20 ± 0.55", the sample standard deviation; of one value the value alone; "-" of none."""
    if not values:
        return "-"
    text = f"{statistics.mean(values):.2f}"
    return f"{text} ± {statistics.stdev(values):.2f}" if len(values) > 1 else text


SCORE_HEADER = (
    "%",
    *MEASURES.values(),
    "classes",
    "seeds",
    "discriminator",
    "its MACs",
    "deployed model",
    "its MACs ",
)


def score_line(row: ComparisonRow) -> list[str]:
    """A row's cells under SCORE_HEADER."""
    first = row.scores[0]
    costs = ["-", "-"]
    if "discriminator" in first:
        costs = [
            f"{first['discriminator_parameters'] / 1e6:.2f} M",
            f"{first['discriminator_gmac']:.2f} GMac",
        ]
    costs += [f"{first['model_parameters'] / 1e6:.2f} M", f"{first['model_gmac']:.2f} GMac"]
    return [
        row.name,
        *(mean_and_deviation(row.values(measure)) for measure in MEASURES),
        str(first["averaged"]),
        str(len(row.scores)),
        *costs,
    ]


def published_score_lines(classes: Sequence[int]) -> dict[str, list[str]]:
    """The paper's Table II: {name of the row: cells under SCORE_HEADER}; {} beside means over fewer
    ``classes`` than its 19.
    """
    lines = {}
    for row in TABLE_2 if len(classes) == len(TABLE_1["ADA"]) else ():
        accuracies = [
            "-" if value is None else f"{value:.2f}"
            for value in (row.pixel_accuracy_with_void, row.mean_class_accuracy)
        ]
        costs = [row.discriminator_parameters, row.discriminator_macs, "-", "-"]
        lines[row.name] = [
            f"{row.name} (published)",
            f"{row.miou:.2f}",
            "-",
            *accuracies,
            "19",
            "-",
            *costs,
        ]
    return lines


def class_line(row: ComparisonRow) -> list[str]:
    """A row's name and the IoU of each class that its means are taken over."""
    return [row.name, *(mean_and_deviation(row.class_values(c)) for c in row.scores[0]["classes"])]


def published_class_lines(classes: Sequence[int]) -> dict[str, list[str]]:
    """The paper's Table I: {name of the row: name and IoU of each of ``classes``}."""
    return {
        name: [f"{name} (published)", *(f"{iou[c]:.2f}" for c in classes)]
        for name, iou in TABLE_1.items()
    }


def comparison_tables(
    rows: list[ComparisonRow], published: bool, class_names: Sequence[str] = ()
) -> dict[str, str]:
    """The comparison as {"md": ..., "csv": ..., "tex": ...}: scores and costs (Table II), and the
    IoU of each class (Table I).

    ``rows``: at least one; ``published``: with the paper's rows beside, marked as published;
    ``class_names`` by trainId: without them Table I is left out.
    """
    classes = rows[0].scores[0]["classes"]
    lines = [
        *(published_score_lines(classes).values() if published else ()),
        *map(score_line, rows),
    ]
    tables = [(SCORE_HEADER, lines)]
    if class_names:
        iou_lines = [
            *(published_class_lines(classes).values() if published else ()),
            *map(class_line, rows),
        ]
        tables.append((("IoU, %", *(class_names[c] for c in classes)), iou_lines))
    latex = [
        _latex(SCORE_HEADER[:7], [line[:7] for line in lines]),
        *(_latex(*table) for table in tables[1:]),
    ]
    return {"md": _markdown(tables, rows), "csv": _csv(rows, class_names), "tex": "\n".join(latex)}


def protocol_text(rows: list[ComparisonRow]) -> str:
    """How all rows were scored, in a sentence or two."""
    first = rows[0].scores[0]
    where = (
        f"{first['images']} images of {first['split']}, last checkpoint"
        if "images" in first
        else "Last checkpoint"
    )
    precisions = ", ".join(
        sorted({score["precision"] for row in rows for score in row.scores if "precision" in score})
    )
    return (
        f"{', '.join(filter(None, (where, 'full resolution', precisions)))}, one confusion matrix"
        " over the split; several seeds: mean ± sample standard deviation. The discriminator is"
        " absent at inference; MACs at 512x1024 by ptflops."
    )


def _markdown(
    tables: list[tuple[Sequence[str], list[list[str]]]], rows: list[ComparisonRow]
) -> str:
    text = "\n\n".join(markdown_table(*table) for table in tables)
    text += f"\n\n{protocol_text(rows)}\n"
    text += "\n".join(
        f"- {row.name}: `{command_of(row.records[0])}`; git {row.records[0]['git']},"
        f" {hardware_of(row.records[0])}"
        for row in rows
    )
    return text + "".join(f"\n- WARNING: {warning}" for warning in warnings_of(rows)) + "\n"


def warnings_of(rows: list[ComparisonRow]) -> list[str]:
    """What would make scores mislead, as eval.py found it."""
    return sorted(
        {warning for row in rows for score in row.scores for warning in score["warnings"]}
    )


def command_of(record: dict) -> str:
    """The command of a run, as it can be given to a shell."""
    return f"python {shlex.join(record['argv'])}"


def hardware_of(record: dict) -> str:
    """What a run was computed on, and with."""
    return (
        f"{record['gpu'] or record['cpu']}, torch {record['torch']},"
        f" {record['settings']['precision']}"
    )


def _csv(rows: list[ComparisonRow], class_names: Sequence[str]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        [
            "row",
            "seed",
            *MEASURES,
            "averaged",
            "git",
            "command",
            *(f"iou {name}" for name in class_names),
        ]
    )
    for row in rows:
        for score, record in zip(row.scores, row.records, strict=True):
            metadata = [score["averaged"], record["git"], command_of(record)]
            writer.writerow(
                [
                    row.name,
                    record["seed"],
                    *(score[measure] for measure in MEASURES),
                    *metadata,
                    *(score["iou"] if class_names else ()),
                ]
            )
    return file.getvalue()


def _latex(header: Sequence[str], lines: list[list[str]]) -> str:
    def cell(text: str) -> str:
        return (
            text.replace("%", r"\%").replace("±", r"$\pm$").replace("&", r"\&").replace("_", r"\_")
        )

    def row(cells: Sequence[str]) -> str:
        return " & ".join(map(cell, cells)) + r" \\"

    columns = "l" + "r" * (len(header) - 1)
    body = [
        r"\begin{tabular}{" + columns + "}",
        r"\hline",
        row(header),
        r"\hline",
        *map(row, lines),
        r"\hline",
        r"\end{tabular}",
    ]
    return "\n".join(body) + "\n"
