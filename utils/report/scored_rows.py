"""Rows of a comparison, read from the JSON files of eval.py and the records of runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.files import json_kind, read_json, read_json_object

SCORED = {"checkpoint": str, "step": int, "miou": float | int | None}
"""What identifies a scored checkpoint in eval.py's JSON, and its score; None: not defined."""
DEFAULT_CLASS_SET = "cityscapes19"
"""Older files do not name theirs."""


@dataclass(frozen=True)
class ComparisonRow:
    """A method: its scores for each seed, as eval.py writes them, and the starts of its runs.

    ``starts``: of each seed, the entries of config.json that ``starts_of`` keeps.
    """

    name: str
    scores: tuple[dict, ...]
    starts: tuple[tuple[dict, ...], ...] = ()

    def values(self, measure: str) -> list[float]:
        """A measure in percent, one value for each seed for which it is defined."""
        return [100 * score[measure] for score in self.scores if not math.isnan(score[measure])]

    def class_values(self, train_id: int) -> list[float]:
        """The IoU of a class in percent, one value for each seed for which it is defined."""
        values = (score["iou"][train_id] for score in self.scores)
        return [100 * value for value in values if not math.isnan(value)]

    @property
    def classes(self) -> list[int]:
        """The trainIds that the means are taken over."""
        return self.scores[0]["classes"]


def _nan_for_none(value: Any) -> Any:
    """Undefined numbers of a JSON file, which has no NaN."""
    if isinstance(value, list):
        return [_nan_for_none(item) for item in value]
    return math.nan if value is None else value


def read_scores(
    path: Path, keys: Sequence[str] = (), fields: Mapping[str, Any] = SCORED
) -> dict[str, Any]:
    """The content of a file of eval.py --json. Raises ValueError for another, or without ``keys``.

    ``fields``: {name: type} of what each of its "rows" needs.
    """
    expected = "a file of scores: eval.py --json writes it"
    content = read_json_object(path, ("rows", *keys), expected)
    rows = content["rows"]

    def is_scored(row: Any) -> bool:
        return isinstance(row, dict) and all(
            key in row and isinstance(row[key], kind) for key, kind in fields.items()
        )

    if not isinstance(rows, list) or not rows or not all(map(is_scored, rows)):
        needed = f", each with {', '.join(fields)}" if fields else ""
        raise ValueError(
            f"{path}: its rows are not those of scored checkpoints{needed}. Expected {expected}."
        )
    return content


def read_rows(folder: Path, names: dict[str, str]) -> list[ComparisonRow]:
    """Reads ``folder``/seed*/ROW.json and the config.json of the runs.

    ``names``: {folder of a row: its name}, in the order of the result; absent rows are left out.
    Raises ValueError where rows were scored on different images or over different classes, and for
    damaged files.
    """
    rows, protocols = [], {}
    for run, name in names.items():
        scores, starts = [], []
        for file in sorted(folder.glob(f"seed*/{run}.json")):
            content = read_scores(file, ("images", "split", "classes"), fields={})
            protocols[file] = _protocol(content)
            row = {
                key: value if key == "tta" else _nan_for_none(value)
                for key, value in content["rows"][0].items()
            }
            known = ("images", "split", "class_set", "merge")
            data = {key: content[key] for key in known if key in content}
            scores.append(row | data)
            records = read_run_records(file.with_suffix(""))
            starts.append(starts_of(records, row.get("step", math.inf)))
        if scores:
            rows.append(ComparisonRow(name, tuple(scores), tuple(starts)))
    first = next(iter(protocols), None)
    for file, protocol in protocols.items():
        if protocol != protocols[first]:
            raise ValueError(
                f"{first} was scored on {protocols[first]}, {file} on {protocol}: their numbers"
                " cannot stand in one table. Delete the file that is not wanted, and run"
                " scripts.reproduce again."
            )
    return rows


def read_run_records(folder: Path) -> list[dict[str, Any]]:
    """The entries of a run's config.json, one for each start. Raises what read_json raises."""
    path, expected = folder / "config.json", "the record of a run: a list of objects"
    records = read_json(path, expected)
    if not isinstance(records, list) or not records or not isinstance(records[-1], dict):
        raise ValueError(f"{path} holds {json_kind(records)}. Expected {expected}.")
    return records


def starts_of(records: Sequence[dict[str, Any]], step: float) -> tuple[dict[str, Any], ...]:
    """The starts of a run, entries of its config.json, that the network after ``step`` steps is of.

    Not those that were scored before, or ended without a saved step; the last where none is left.
    """
    ends = [*(entry.get("first_step", step) for entry in records[1:]), step]
    return tuple(
        entry
        for entry, end in zip(records, ends, strict=True)
        if entry.get("first_step", 0) < min(end, step)
    ) or (records[-1],)


def _protocol(content: dict) -> str:
    tta = content["rows"][0]["tta"]
    augmented = f", test-time augmentation {tta}" if tta else ""
    names = content.get("fingerprint", "").split(", ")[-1]  # a hash of the names
    known = content.get("class_set", {"name": DEFAULT_CLASS_SET})["name"]
    classes = "" if known == DEFAULT_CLASS_SET else f", class set {known}"
    classes += f", merge {content['merge']['name']}" if "merge" in content else ""
    return (
        f"{content['images']} images of {content['split']}{names and f' (names {names})'},"
        f" {len(content['classes'])} classes"
        f" ({', '.join(content['classes'])}){classes}{augmented}"
    )
