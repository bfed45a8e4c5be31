"""Time of one training sample on one core, against decoding and transforming whole images.

Raw and prepared roots, with and without LAB. Every scale counts the same. The ways are measured in
turns, and the fastest round of each image counts: other load on the machine hits all ways alike,
and can only add time. All files come from the page cache; docs/scale.md says what happens
otherwise.
"""

import argparse
import math
import tempfile
from pathlib import Path
from statistics import mean

from dataset.loader import use_one_core
from scripts.benchmark.loader import loader_ms
from scripts.benchmark.samples import (
    CAN_MEASURE_COLD,
    SCALES,
    WAYS,
    BaselineProcess,
    build_dataset,
    measure,
    measure_cold,
    read_listings,
    sample_timer,
)
from utils.files import write_json
from utils.options.parser import positive_float, positive_int
from utils.report.tables import markdown_table
from utils.training.environment import environment

LOADED_WAYS = ("gta5_lab_prepared", "cityscapes_prepared")
"""Ways that are also read through a loader."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gta5", type=Path, metavar="ROOT", required=True, help="raw GTA5 root")
    parser.add_argument(
        "--cityscapes",
        type=Path,
        metavar="ROOT",
        required=True,
        help="raw Cityscapes root; its train split is read",
    )
    parser.add_argument(
        "--images",
        type=positive_int,
        default=6,
        help="evenly spaced images of each data set; each takes about 20 MB of --temporary",
    )
    parser.add_argument(
        "--rounds", type=positive_int, default=7, help="repetitions of every measurement"
    )
    parser.add_argument(
        "--crop-size",
        type=positive_int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        default=(512, 1024),
        help="in pixels",
    )
    parser.add_argument(
        "--temporary",
        type=Path,
        metavar="FOLDER",
        help="folder for prepared files during the run; default: the system's",
    )
    parser.add_argument(
        "--steps-per-second",
        type=positive_float,
        nargs="+",
        default=(1, 2, 5, 10, 20),
        help="GPU speeds to compute workers for: adaptation steps of 4 source and 4 target crops",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements")


def run(args: argparse.Namespace) -> None:
    crop = tuple(args.crop_size)
    with (
        BaselineProcess() as baseline,
        tempfile.TemporaryDirectory(dir=args.temporary, prefix="benchmark-data-") as folder,
    ):
        listings = read_listings(args.gta5, args.cityscapes, args.images, Path(folder))
        use_one_core()
        timers = {
            name: {scale: sample_timer(listings, name, scale, crop, baseline) for scale in SCALES}
            for name in WAYS
        }
        images = {name: len(listings[way.listing]) for name, way in WAYS.items()}
        times = measure(timers, images, args.rounds)
        cold = {}
        if CAN_MEASURE_COLD:
            prepared = [name for name in WAYS if name.endswith("prepared")]
            cold = {
                name: measure_cold(listings[WAYS[name].listing], timers[name]) for name in prepared
            }
        worker_ms = {
            name: loader_ms(build_dataset(listings, name, SCALES, crop)) for name in LOADED_WAYS
        }
    result = _result(times, worker_ms, args.steps_per_second)
    result |= {
        "cold": cold,
        "images": {name: len(listing) for name, listing in listings.items()},
        "rounds": args.rounds,
        "crop_size": crop,
    } | environment()
    _print(result)
    if args.json:
        write_json(args.json, result)


def _result(
    times: dict[str, dict[float, float]], worker_ms: dict[str, float], speeds: tuple[float, ...]
) -> dict:
    per_sample = {name: mean(by_scale.values()) for name, by_scale in times.items()}
    ratios = {
        f"ratio_{name}": per_sample[way.baseline] / per_sample[name]
        for name, way in WAYS.items()
        if way.baseline is not None
    }
    step_ms = 4 * (worker_ms["gta5_lab_prepared"] + worker_ms["cityscapes_prepared"])
    baseline_step_ms = 4 * (per_sample["gta5_lab_baseline"] + per_sample["cityscapes_baseline"])
    workers = {
        f"{speed:g}": {
            "prepared": math.ceil(speed * step_ms / 1000),
            "baseline": math.ceil(speed * baseline_step_ms / 1000),
        }
        for speed in speeds
    }
    return ratios | {
        "ms_per_sample": per_sample,
        "ms_by_scale": times,
        "loader_ms_per_sample": worker_ms,
        "workers_by_steps_per_second": workers,
    }


def _print(result: dict) -> None:
    rows = []
    for name, ms in result["ms_per_sample"].items():
        ratio = result.get(f"ratio_{name}")
        scales = (f"{value:.2f}" for value in result["ms_by_scale"][name].values())
        rows.append(
            [
                name,
                f"{ms:.2f}",
                *scales,
                f"{1000 / ms:.1f}",
                "" if ratio is None else f"{ratio:.1f}",
            ]
        )
    print(
        "\n"
        + markdown_table(
            [
                "",
                "ms a sample",
                *(f"at {scale}" for scale in SCALES),
                "samples/s and core",
                "times the baseline's speed",
            ],
            rows,
        )
    )
    print(
        "\nA worker's processor time for a sample, ms: ",
        ", ".join(f"{name} {ms:.2f}" for name, ms in result["loader_ms_per_sample"].items()),
    )
    for name, found in result["cold"].items():
        print(
            f"From disk, nothing in the page cache: {name} {found['ms_per_sample']:.1f} ms and"
            f" {found['mb_per_sample']:.1f} MB a sample"
        )
    need = result["workers_by_steps_per_second"]
    print(
        "\nWorkers for adaptation with LAB, 4 source and 4 target crops a step (worked out from the"
        " times above)"
    )
    rows = [[speed, *(str(count) for count in counts.values())] for speed, counts in need.items()]
    print(markdown_table(["steps/s of the GPU", *next(iter(need.values()))], rows))
