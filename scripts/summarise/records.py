"""Reads what a comparison left: its plan, its missing scores, its training curves."""

from pathlib import Path
from typing import Any

from utils.files import read_json_object
from utils.report.curves import SeedRange, read_curves, seed_range
from utils.report.html import CHARTS


def read_comparison(folder: Path) -> dict[str, Any]:
    """Reads comparison.json of scripts.reproduce, with defaults for absent entries.

    Scored rows that it does not name are added under the names of their folders. Other JSON files
    beside the runs are left out, and named on the screen.
    """
    path = folder / "comparison.json"
    expected = "the record of scripts.reproduce"
    recorded = read_json_object(path, (), expected) if path.exists() else {}
    if "one_seed" in recorded:  # the word of older records
        recorded["single_seed"] = recorded.pop("one_seed")
    defaults = {
        "preset": folder.name,
        "published": False,
        "rows": {},
        "single_seed": [],
        "cityscapes": None,
        "list": None,
        "layout": None,
    }
    comparison = defaults | recorded
    scored = [f for f in folder.glob("seed*/*.json") if f.stem not in comparison["rows"]]
    others = [file for file in scored if not (file.with_suffix("") / "config.json").exists()]
    if others:
        print(
            "NOTE: left out, because no run folder of that name with config.json is beside them:"
            f" {', '.join(sorted(str(file.relative_to(folder)) for file in others))}"
        )
    unnamed = sorted({file.stem for file in scored if file not in others})
    return comparison | {"rows": comparison["rows"] | {name: name for name in unnamed}}


def missing_scores(folder: Path, names: dict[str, str], single_seed: list[str]) -> list[str]:
    """A note on rows, and on seeds of rows, without scores; [] if all are there.

    ``names``: {folder of a row: its name}; a row in ``single_seed`` needs one seed.
    """
    seeds = {seed.name for seed in folder.glob("seed*") if seed.is_dir()}
    incomplete = []
    for run, name in names.items():
        missing = sorted(
            seed.removeprefix("seed")
            for seed in seeds
            if not (folder / seed / f"{run}.json").exists()
        )
        if len(missing) == len(seeds):
            incomplete.append(name)
        elif missing and name not in single_seed:
            incomplete.append(f"{name} with seed {', '.join(missing)}")
    return [f"Not trained and scored yet: {'; '.join(incomplete)}."] if incomplete else []


def read_seed_ranges(
    folder: Path, names: dict[str, str]
) -> tuple[dict[str, dict[str, SeedRange]], list[str]]:
    """{scalar: {row: its range over the scored seeds}}, and notes on rows without curves.

    Of a row without scores: over all of its seeds.
    """
    ranges: dict[str, dict[str, SeedRange]] = {scalar: {} for scalar in CHARTS}
    without_events = []
    for run, name in names.items():
        runs = [path for path in sorted(folder.glob(f"seed*/{run}")) if path.is_dir()]
        # A seed that still trains would cut the curves of the others: they share few steps.
        scored = [path for path in runs if path.with_name(f"{run}.json").exists()]
        curves = [read_curves(path) for path in scored or runs]
        for scalar in CHARTS:
            found = seed_range([curve[scalar] for curve in curves if scalar in curve])
            if found is not None:
                ranges[scalar][name] = found
        if curves and not any(name in rows for rows in ranges.values()):
            without_events.append(name)
    notes = []
    if without_events:
        notes.append(
            f"No curves of {', '.join(without_events)}: no TensorBoard events in the run folders."
        )
    without_scores = [
        name for name in ranges["loss/segmentation"] if name not in ranges["val/miou"]
    ]
    if without_scores:
        notes.append(
            f"No scores during training of {', '.join(without_scores)}: trained without"
            " --validate-every."
        )
    return ranges, notes
