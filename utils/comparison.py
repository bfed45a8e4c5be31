"""Rows of scores over several seeds, as tables: means and standard deviations, published values beside, costs in columns of their own."""

import csv
import io
import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from utils.published import TABLE_2
from utils.tables import markdown_table

MEASURES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel acc.",
    "pixel_accuracy_with_void": "pixel acc. incl. void",
    "mean_class_accuracy": "mean class acc.",
}


@dataclass(frozen=True)
class ComparisonRow:
    """One method: what eval.py wrote for each seed, and how the runs came about (the last entry of their config.json)."""

    name: str
    scores: tuple[dict, ...]
    records: tuple[dict, ...]

    def values(self, measure: str) -> list[float]:
        """The measure of every seed, in percent."""
        return [100 * row[measure] for row in self.scores]


def read_rows(folder: Path, names: dict[str, str]) -> list[ComparisonRow]:
    """The rows under ``folder``/seed*/ROW.json, in the order of ``names`` ({folder of a row: its name}); rows not there are left out."""
    rows = []
    for run, name in names.items():
        files = sorted(folder.glob(f"seed*/{run}.json"))
        if files:
            scores = tuple(json.loads(file.read_text())["rows"][0] for file in files)
            records = tuple(json.loads((file.with_suffix("") / "config.json").read_text())[-1] for file in files)
            rows.append(ComparisonRow(name, scores, records))
    return rows


def mean_and_deviation(values: list[float]) -> str:
    """ "31.20 ± 0.55", the sample standard deviation; of one value the value alone."""
    text = f"{statistics.mean(values):.2f}"
    return f"{text} ± {statistics.stdev(values):.2f}" if len(values) > 1 else text


def comparison_tables(rows: list[ComparisonRow], published: bool) -> dict[str, str]:
    """The comparison as {"md": ..., "csv": ..., "tex": ...}. ``published``: with the paper's Table II beside, marked as published."""
    header = ["%", *MEASURES.values(), "classes", "seeds", "discriminator", "its MACs", "deployed model", "its MACs "]
    lines = [_published_line(row) for row in TABLE_2] if published else []
    lines += [_measured_line(row) for row in rows]
    return {"md": _markdown(header, lines, rows), "csv": _csv(rows), "tex": _latex(header[:7], [line[:7] for line in lines])}


def _published_line(row) -> list[str]:
    accuracies = ["-" if value is None else f"{value:.2f}" for value in (row.pixel_accuracy_with_void, row.mean_class_accuracy)]
    return [f"{row.name} (published)", f"{row.miou:.2f}", "-", *accuracies, "19", "-", row.discriminator_parameters, row.discriminator_macs, "-", "-"]


def _measured_line(row: ComparisonRow) -> list[str]:
    first = row.scores[0]
    costs = ["-", "-"]
    if "discriminator" in first:
        costs = [f"{first['discriminator_parameters'] / 1e6:.2f} M", f"{first['discriminator_gmac']:.2f} GMac"]
    costs += [f"{first['model_parameters'] / 1e6:.2f} M", f"{first['model_gmac']:.2f} GMac"]
    return [row.name, *(mean_and_deviation(row.values(measure)) for measure in MEASURES), str(first["averaged"]), str(len(row.scores)), *costs]


def _markdown(header: list[str], lines: list[list[str]], rows: list[ComparisonRow]) -> str:
    text = markdown_table(header, lines)
    text += "\n\nLast checkpoint, full resolution, one confusion matrix over the split; several seeds: mean ± sample standard deviation. "
    text += "The discriminator is absent at inference; MACs at 512x1024 by ptflops.\n"
    text += "\n".join(f"- {row.name}: `{_command(row.records[0])}`; git {row.records[0]['git']}, {_hardware(row.records[0])}" for row in rows)
    warnings = sorted({warning for row in rows for score in row.scores for warning in score["warnings"]})
    return text + "".join(f"\n- WARNING: {warning}" for warning in warnings) + "\n"


def _command(record: dict) -> str:
    return "python " + " ".join(record["argv"])


def _hardware(record: dict) -> str:
    return f"{record['gpu'] or record['cpu']}, torch {record['torch']}, {record['settings']['precision']}"


def _csv(rows: list[ComparisonRow]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["row", "seed", *MEASURES, "averaged", "git", "command"])
    for row in rows:
        for score, record in zip(row.scores, row.records, strict=True):
            writer.writerow([row.name, record["seed"], *(score[measure] for measure in MEASURES), score["averaged"], record["git"], _command(record)])
    return file.getvalue()


def _latex(header: list[str], lines: list[list[str]]) -> str:
    def cell(text: str) -> str:
        return text.replace("%", r"\%").replace("±", r"$\pm$").replace("&", r"\&")

    def row(cells: list[str]) -> str:
        return " & ".join(map(cell, cells)) + r" \\"

    columns = "l" + "r" * (len(header) - 1)
    body = [r"\begin{tabular}{" + columns + "}", r"\hline", row(header), r"\hline", *map(row, lines), r"\hline", r"\end{tabular}"]
    return "\n".join(body) + "\n"
