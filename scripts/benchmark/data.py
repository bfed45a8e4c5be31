"""Time of one training sample on one core: raw and prepared, with and without LAB, against decoding
and transforming whole images.

Every scale counts the same. What is compared is measured in turns, and the fastest of the rounds
counts, image by image: other load on the machine falls on all alike, and can only add. The baseline
runs in a process of its own, as it would: ours are set to keep freed memory (dataset/loader.py),
from which it would gain an eighth. All files come from the page cache: docs/scale.md says what
happens when they do not.
"""

import argparse
import json
import math
import multiprocessing
import os
import re
import resource
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import mean

import cv2
import numpy as np

from dataset.cityscapes import cityscapes, cityscapes_tree
from dataset.gta5 import gta5, gta5_tree
from dataset.listing import DatasetLayout, ImageList
from dataset.loader import Loading, training_loader, use_one_core
from dataset.prepared.build import PrepareJob, prepare
from dataset.segmentation import SampleOptions, SegmentationDataset
from dataset.style.lab import LabCopy, LabStatistics, LabTransfer
from dataset.transforms import RandomScaleCropFlip
from scripts.baselines import sample as baseline_sample
from utils.options.parser import positive_float, positive_int
from utils.report.tables import markdown_table
from utils.training.environment import environment

SCALES = (0.5, 0.75, 1.0, 1.5)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--gta5", type=Path, metavar="ROOT", required=True, help="a raw root of GTA5"
    )
    parser.add_argument(
        "--cityscapes",
        type=Path,
        metavar="ROOT",
        required=True,
        help="a raw root of Cityscapes; its train split is read",
    )
    parser.add_argument(
        "--images",
        type=positive_int,
        default=6,
        help="of each data set to measure, evenly spaced; each takes about 20 MB of --temporary",
    )
    parser.add_argument(
        "--rounds",
        type=positive_int,
        default=7,
        help="times that every image is read at every scale in every way",
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
        help="where to prepare into, for the time of the run; default: the system's place",
    )
    parser.add_argument(
        "--steps-per-second",
        type=positive_float,
        nargs="+",
        default=(1, 2, 5, 10, 20),
        help="GPU speeds to work out workers for: adaptation steps of 4 source and 4 target crops",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements")


def run(args: argparse.Namespace) -> None:
    crop = tuple(args.crop_size)
    with (
        _BaselineProcess() as baseline,
        tempfile.TemporaryDirectory(dir=args.temporary, prefix="benchmark-data-") as folder,
    ):
        listings = _listings(args.gta5, args.cityscapes, args.images, Path(folder))
        use_one_core()
        ways = {
            name: {scale: _way(listings, name, scale, crop, baseline) for scale in SCALES}
            for name in WAYS
        }
        times = _measure(ways, {name: len(listings[WAYS[name][1]]) for name in WAYS}, args.rounds)
        cold = (
            {
                name: _cold(listings[WAYS[name][1]], ways[name])
                for name in WAYS
                if "prepared" in name
            }
            if COLD
            else {}
        )
        loader_ms = {name: _loader_ms(_dataset(listings, name, SCALES, crop)) for name in LOADED}
    result = _result(times, loader_ms, args.steps_per_second)
    result |= {
        "cold": cold,
        "images": {name: len(listing) for name, listing in listings.items()},
        "rounds": args.rounds,
        "crop_size": crop,
    } | environment()
    _print(result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


LOADED = ("gta5_lab_prepared", "gta5_lab_prepared_lab_copies", "cityscapes_prepared")
"""What is also read through a loader."""

# name: (what it is compared with, listing, LAB)
WAYS = {
    "gta5_lab_baseline": (None, "gta5_raw", True),
    "gta5_lab_raw": ("gta5_lab_baseline", "gta5_raw", True),
    "gta5_lab_raw_first_epoch": ("gta5_lab_baseline", "gta5_raw", True),
    "gta5_lab_prepared": ("gta5_lab_baseline", "gta5_prepared", True),
    "gta5_lab_prepared_lab_copies": ("gta5_lab_baseline", "gta5_lab_copies", True),
    "gta5_baseline": (None, "gta5_raw", False),
    "gta5_raw": ("gta5_baseline", "gta5_raw", False),
    "gta5_prepared": ("gta5_baseline", "gta5_prepared", False),
    "cityscapes_baseline": (None, "cityscapes_raw", False),
    "cityscapes_raw": ("cityscapes_baseline", "cityscapes_raw", False),
    "cityscapes_prepared": ("cityscapes_baseline", "cityscapes_prepared", False),
}


def _listings(
    gta5_root: Path, cityscapes_root: Path, images: int, folder: Path
) -> dict[str, ImageList]:
    """The raw listings, a few evenly spaced images of them, and the same images prepared."""

    def some(tree: DatasetLayout) -> list[str]:
        names = [tree.name(key) for key in tree.images if key in tree.labels]
        return [
            names[i] for i in np.unique(np.linspace(0, len(names) - 1, images).round().astype(int))
        ]

    source, target = gta5_tree(gta5_root), cityscapes_tree(cityscapes_root, "train")
    sources, targets = some(source), some(target)
    for tree, data, names, lab_copies, name in (
        (source, "gta5", sources, False, "gta5"),
        (source, "gta5", sources, True, "gta5_lab"),
        (target, "cityscapes-train", targets, False, "cityscapes"),
    ):
        report = prepare(
            PrepareJob(tree, data, True, lab_copies, names),
            folder / name,
            "python -m scripts.benchmark data",
        )
        if report.problems:
            raise ValueError(
                f"{report.problems[0].text} Look for more with: python -m scripts.prepare --check"
            )
    return {
        "gta5_raw": source.listing(labels=True).subset(sources, gta5_root),
        "gta5_prepared": gta5(folder / "gta5"),
        "gta5_lab_copies": gta5(folder / "gta5_lab"),
        "cityscapes_raw": target.listing(labels=True).subset(targets, cityscapes_root),
        "cityscapes_prepared": cityscapes(folder / "cityscapes", "train"),
    }


def _dataset(
    listings: dict[str, ImageList], name: str, scales: tuple[float, ...], crop: tuple[int, int]
) -> SegmentationDataset:
    _, place, lab = WAYS[name]
    listing = listings[place]
    target = listings["cityscapes_raw" if place.endswith("raw") else "cityscapes_prepared"]
    styles = [LabTransfer(listing, target)] if lab else []
    return SegmentationDataset(
        listing,
        RandomScaleCropFlip(scales, crop),
        lambda position: position % len(listing),
        styles,
        SampleOptions(padding=(124, 116, 104)),
    )


class _BaselineProcess:
    """A process that makes baseline samples and says how long each took, started before this one
    changes how it keeps memory.
    """

    def __enter__(self) -> Callable[..., float]:
        self._connection, other = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=self._serve, args=(other,), daemon=True)
        self._process.start()
        other.close()
        return self._ask

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.terminate()
        self._process.join()

    def _ask(self, *arguments: object) -> float:
        self._connection.send(arguments)
        result = self._connection.recv()
        if isinstance(result, Exception):
            raise ValueError(
                f"The baseline could not make a sample of {arguments[0]} ({result}). Look for the"
                " fault with scripts.prepare --check."
            )
        return result

    @staticmethod
    def _serve(connection: Connection) -> None:
        cv2.setNumThreads(0)
        while True:
            try:
                arguments = connection.recv()
            except EOFError:
                return
            start = time.perf_counter()
            try:
                baseline_sample(*arguments)
            except (OSError, ValueError, cv2.error) as error:
                connection.send(ValueError(str(error)))
            else:
                connection.send(1000 * (time.perf_counter() - start))


def _timed(read: Callable[[int], object]) -> Callable[[int], float]:
    def milliseconds(position: int) -> float:
        start = time.perf_counter()
        read(position)
        return 1000 * (time.perf_counter() - start)

    return milliseconds


def _way(
    listings: dict[str, ImageList],
    name: str,
    scale: float,
    crop: tuple[int, int],
    baseline: Callable[..., float],
) -> Callable[[int], float]:
    """position -> the milliseconds that a sample at ``scale`` takes, in the way that ``name``
    says.
    """
    if name.endswith("baseline"):
        listing, targets = listings[WAYS[name][1]], listings["cityscapes_raw"]
        target_of = (
            (lambda i: targets[i % len(targets)].image) if WAYS[name][2] else (lambda i: None)
        )

        def ask(position: int) -> float:
            frame = listing[position % len(listing)]
            return baseline(frame.image, frame.label, scale, crop, target_of(position))

        return ask
    dataset = _dataset(listings, name, (scale,), crop)
    if WAYS[name][2] and WAYS[name][1].endswith("raw"):
        style = dataset.styles[0]
        for index in range(len(style.target)):  # measured once a run, not once a sample
            style.target.of(index)
        if name.endswith("first_epoch"):

            def read_anew(position: int) -> object:
                style.source = LabStatistics(dataset.listing)
                return dataset[position]

            return _timed(read_anew)
    return _timed(dataset.__getitem__)


def _measure(
    ways: dict[str, dict[float, Callable[[int], float]]], images: dict[str, int], rounds: int
) -> dict[str, dict[float, float]]:
    """Milliseconds: {way: {scale: mean over the images of the fastest round}}."""
    times = {name: {scale: np.full(images[name], np.inf) for scale in SCALES} for name in ways}
    for number in range(rounds):
        for scale in SCALES:
            for name, way in ways.items():
                for image in range(images[name]):
                    times[name][scale][image] = min(
                        times[name][scale][image], way[scale](number * images[name] + image)
                    )
    return {
        name: {scale: float(found.mean()) for scale, found in by_scale.items()}
        for name, by_scale in times.items()
    }


COLD = hasattr(os, "posix_fadvise") and Path("/proc/self/io").exists()
"""Whether this system can be asked to forget what it has of a file, and tells what it reads from
disk.
"""


def _cold(listing: ImageList, way: dict[float, Callable[[int], float]]) -> dict[str, float]:
    """The same samples read from disk: milliseconds of waiting included, and megabytes, which
    read-ahead makes more than are used.
    """

    def read_bytes() -> int:
        return int(re.search(r"read_bytes: (\d+)", Path("/proc/self/io").read_text())[1])

    milliseconds, megabytes = [], []
    for image in range(len(listing)):
        for read in way.values():
            for path in (*listing[image][1:], *_lab_copy(listing, image)):
                with open(path, "rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            before = read_bytes()
            milliseconds.append(read(image))
            megabytes.append((read_bytes() - before) / 1e6)
    return {"ms_per_sample": mean(milliseconds), "mb_per_sample": mean(megabytes)}


def _lab_copy(listing: ImageList, index: int) -> tuple[Path, ...]:
    path = listing.lab_copy(index)
    return () if path is None else (path, LabCopy.colors_path(path))


def _loader_ms(dataset: SegmentationDataset, batch_size: int = 4, batches: int = 40) -> float:
    """Milliseconds of processor time that a worker spends on a sample, with making batches and
    handing them over.
    """

    def of_children() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = of_children()
    loading = Loading(workers=1, pin_memory=False)
    loader = iter(training_loader(dataset, batch_size, range(batches), loading))
    for _ in loader:
        pass
    del loader  # waits for the worker, whose time counts only then
    return 1000 * (of_children() - before) / (batches * batch_size)


def _result(
    times: dict[str, dict[float, float]], loader_ms: dict[str, float], speeds: tuple[float, ...]
) -> dict:
    per_sample = {name: mean(by_scale.values()) for name, by_scale in times.items()}
    ratios = {
        f"ratio_{name}": per_sample[WAYS[name][0]] / ms
        for name, ms in per_sample.items()
        if WAYS[name][0] is not None
    }
    step_ms = 4 * (loader_ms["gta5_lab_prepared"] + loader_ms["cityscapes_prepared"])
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
        "loader_ms_per_sample": loader_ms,
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
