"""What eval.py reports: a row of scores for each checkpoint, the tables, and the JSON file."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from utils.evaluation.comparability import score_warnings
from utils.evaluation.evaluate import Evaluation
from utils.evaluation.metrics import scores
from utils.files import told_apart, write_json
from utils.report.comparison import table_1, table_2
from utils.report.scored_rows import ComparisonRow
from utils.report.tables import markdown_table


class Predict(Protocol):
    """Images (N, H, W, 3) uint8 -> class maps (N, H, W) uint8, by the engine of that name."""

    engine: str

    def __call__(self, images: Tensor) -> Tensor: ...

    def expect(self, images: int) -> None:
        """Tells how many images will come."""


@dataclass(frozen=True)
class ScoredModel:
    """A checkpoint to score: its content without the weights, and its predictor.

    ``tta``: name of the test-time augmentation, or None.
    """

    path: Path
    metadata: dict[str, Any]
    predict: Predict
    precision: str
    tta: str | None

    @property
    def name(self) -> str:
        """The name in tables, which tells the test-time augmentation."""
        return self.metadata["name"] + (f" ({self.tta})" if self.tta else "")

    @property
    def folder(self) -> str:
        """The name of a folder for its files."""
        return f"{self.metadata['name']}-{self.path.stem}"

    def row(
        self,
        evaluation: Evaluation,
        classes: Sequence[int],
        image_names: Sequence[str],
        costs: dict[str, float],
    ) -> dict[str, Any]:
        """Its row in the JSON file. ``classes``: trainIds of the means; ``costs``: of Table II."""
        return {
            "name": self.name,
            "checkpoint": str(self.path),
            "step": self.metadata["step"],
            "precision": self.precision,
            "engine": self.predict.engine,
            "tta": self.tta,
            "warnings": score_warnings(self.metadata, self.path.name, image_names, self.tta),
            **costs,
            **asdict(scores(evaluation.matrix, evaluation.ignored, classes)),
            "ignored": evaluation.ignored,
            "matrix": evaluation.matrix.tolist(),
        }


class ScoredData(NamedTuple):
    """The images that checkpoints are scored on, and their classes.

    ``description``: root and split. ``fingerprint``: of the names. ``class_set``: plain values,
    with "name" and "classes". ``published``: whether these are the classes of the paper. ``merge``:
    how the classes of the network became these, as plain values with "name", "from" and "text".
    """

    description: str
    split: str
    names: Sequence[str]
    fingerprint: str
    class_set: dict[str, Any]
    published: bool
    merge: dict[str, Any] | None = None


def print_tables(rows: Sequence[dict[str, Any]], data: ScoredData) -> None:
    """Prints Tables I and II of the ``rows``, and their warnings."""
    tta = rows[0]["tta"]
    augmented = f", test-time augmentation {tta}" if tta else ""
    names = [row["name"] for row in rows]
    names = told_apart(names, [Path(row["checkpoint"]) for row in rows])  # seeds, best.pt
    table_rows = [ComparisonRow(name, (row,)) for name, row in zip(names, rows, strict=True)]
    note = (
        " Rows marked (published) are the paper's, not ours."
        if data.published
        else f" Classes: {data.class_set['name']}."
    )
    used = (f"{row['precision']} ({row['engine']})" for row in rows)
    precisions = ", ".join(dict.fromkeys(used))
    if data.merge:
        note += (
            f"\nMerge {data.merge['name']}: probabilities of the {data.merge['from']} network are"
            f" summed before the argmax ({data.merge['text']})."
        )
    print(
        f"\n{len(data.names)} images of {data.description}, full resolution,"
        f" {precisions}{augmented}.{note}"
    )
    classes = data.class_set["classes"]
    print("\nTable I", markdown_table(*table_1(table_rows, classes, data.published)), sep="\n")
    print("\nTable II (MACs at 512x1024 by ptflops)")
    print(markdown_table(*table_2(table_rows, data.published, seeds=False)))
    without_truth = [classes[c] for c in rows[0]["classes"] if not any(rows[0]["matrix"][c])]
    if without_truth:
        print(
            f"NOTE: no pixel of {', '.join(without_truth)} in the labels. Such a class counts with"
            " IoU 0 where it is predicted, else not at all: name the others by --classes to leave"
            " it out of the means."
        )
    for warning in (warning for row in rows for warning in row["warnings"]):
        print(f"WARNING: {warning}")


def write_rows(
    path: Path, rows: Sequence[dict[str, Any]], data: ScoredData, averaged: Sequence[int]
) -> None:
    """Writes the JSON file. ``averaged``: trainIds of the classes of the means."""
    content = {
        "images": len(data.names),
        "split": data.split,
        "classes": [data.class_set["classes"][train_id] for train_id in averaged],
        "class_set": data.class_set,
        **({"merge": data.merge} if data.merge else {}),
        "rows": rows,
        "fingerprint": data.fingerprint,
        "argv": sys.argv,
    }
    write_json(path, content)
