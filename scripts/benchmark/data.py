"""Time of one training sample on one core, against decoding and transforming whole images.

Raw and prepared roots, with and without LAB. Every scale counts the same. The ways are measured in
turns, and the fastest round of each image counts: other load on the machine hits all ways alike,
and can only add time. The baseline runs in a process of its own, since ours keep freed memory
(dataset/loader.py), from which it would gain an eighth. All files come from the page cache;
docs/scale.md says what happens when they do not.
"""

import argparse
import math
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import cv2
import numpy as np

from dataset.cityscapes import cityscapes, cityscapes_tree
from dataset.gta5 import gta5, gta5_tree
from dataset.listing import DatasetLayout, ImageList
from dataset.loader import LoaderOptions, training_loader, use_one_core
from dataset.prepared.build import PrepareJob, prepare
from dataset.segmentation import SampleOptions, SegmentationDataset
from dataset.style.lab import LabStatistics, LabTransfer
from dataset.transforms import RandomScaleCropFlip
from scripts.baselines import sample as baseline_sample
from utils.files import write_json
from utils.locks import FileLock
from utils.options.parser import positive_float, positive_int
from utils.report.tables import markdown_table
from utils.training.environment import environment

SCALES = (0.5, 0.75, 1.0, 1.5)


class Way(NamedTuple):
    """A way to make samples: the listing that is read, LAB or not, and the way to compare with."""

    listing: str
    lab: bool
    baseline: str | None


WAYS = {
    "gta5_lab_baseline": Way("gta5_raw", True, None),
    "gta5_lab_raw": Way("gta5_raw", True, "gta5_lab_baseline"),
    "gta5_lab_raw_first_epoch": Way("gta5_raw", True, "gta5_lab_baseline"),
    "gta5_lab_prepared": Way("gta5_prepared", True, "gta5_lab_baseline"),
    "gta5_baseline": Way("gta5_raw", False, None),
    "gta5_raw": Way("gta5_raw", False, "gta5_baseline"),
    "gta5_prepared": Way("gta5_prepared", False, "gta5_baseline"),
    "cityscapes_baseline": Way("cityscapes_raw", False, None),
    "cityscapes_raw": Way("cityscapes_raw", False, "cityscapes_baseline"),
    "cityscapes_prepared": Way("cityscapes_prepared", False, "cityscapes_baseline"),
}
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
        _BaselineProcess() as baseline,
        tempfile.TemporaryDirectory(dir=args.temporary, prefix="benchmark-data-") as folder,
    ):
        listings = _listings(args.gta5, args.cityscapes, args.images, Path(folder))
        use_one_core()
        timers = {
            name: {scale: _timer(listings, name, scale, crop, baseline) for scale in SCALES}
            for name in WAYS
        }
        images = {name: len(listings[way.listing]) for name, way in WAYS.items()}
        times = _measure(timers, images, args.rounds)
        cold = {}
        if CAN_MEASURE_COLD:
            prepared = [name for name in WAYS if name.endswith("prepared")]
            cold = {name: _cold(listings[WAYS[name].listing], timers[name]) for name in prepared}
        loader_ms = {
            name: _loader_ms(_dataset(listings, name, SCALES, crop)) for name in LOADED_WAYS
        }
    result = _result(times, loader_ms, args.steps_per_second)
    result |= {
        "cold": cold,
        "images": {name: len(listing) for name, listing in listings.items()},
        "rounds": args.rounds,
        "crop_size": crop,
    } | environment()
    _print(result)
    if args.json:
        write_json(args.json, result)


def _listings(
    gta5_root: Path, cityscapes_root: Path, images: int, folder: Path
) -> dict[str, ImageList]:
    """Listings of evenly spaced images, raw and prepared below ``folder``."""
    source, target = gta5_tree(gta5_root), cityscapes_tree(cityscapes_root, "train")
    source_names, target_names = _evenly_spaced(source, images), _evenly_spaced(target, images)
    for tree, data, names, name in (
        (source, "gta5", source_names, "gta5"),
        (target, "cityscapes-train", target_names, "cityscapes"),
    ):
        job = PrepareJob(tree, data, wanted=names)
        report = prepare(job, folder / name, "python -m scripts.benchmark data", FileLock)
        if report.problems:
            raise ValueError(
                f"{report.problems[0].text} Look for more with: python -m scripts.prepare --check"
            )
    return {
        "gta5_raw": source.listing(labels=True).select(source_names, gta5_root),
        "gta5_prepared": gta5(folder / "gta5"),
        "cityscapes_raw": target.listing(labels=True).select(target_names, cityscapes_root),
        "cityscapes_prepared": cityscapes(folder / "cityscapes", "train"),
    }


def _evenly_spaced(tree: DatasetLayout, count: int) -> list[str]:
    names = [tree.name(key) for key in tree.images if key in tree.labels]
    return [names[i] for i in np.unique(np.linspace(0, len(names) - 1, count).round().astype(int))]


def _dataset(
    listings: dict[str, ImageList], name: str, scales: tuple[float, ...], crop: tuple[int, int]
) -> SegmentationDataset:
    way = WAYS[name]
    listing = listings[way.listing]
    is_raw = way.listing.endswith("raw")
    target = listings["cityscapes_raw" if is_raw else "cityscapes_prepared"]
    return SegmentationDataset(
        listing,
        RandomScaleCropFlip(scales, crop),
        partial(_wrapped, len(listing)),
        [LabTransfer(listing, target)] if way.lab else [],
        SampleOptions(padding=(124, 116, 104)),
    )


def _wrapped(count: int, position: int) -> int:
    """The image at ``position`` when ``count`` images are read over and over."""
    return position % count


class _BaselineProcess:
    """A process that makes baseline samples and returns the time of each in milliseconds.

    It is started before this process changes how it keeps memory.
    """

    def __enter__(self) -> Callable[..., float]:
        self._connection, child = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=self._serve, args=(child,), daemon=True)
        self._process.start()
        child.close()
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
                f"The baseline could not make a sample of {arguments[0]} ({result}). Find the fault"
                " with scripts.prepare --check."
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


def _timer(
    listings: dict[str, ImageList],
    name: str,
    scale: float,
    crop: tuple[int, int],
    baseline: Callable[..., float],
) -> Callable[[int], float]:
    """position -> milliseconds for the sample at ``scale``, made in the way ``name``."""
    way = WAYS[name]
    if name.endswith("baseline"):
        listing, targets = listings[way.listing], listings["cityscapes_raw"]

        def ask_baseline(position: int) -> float:
            frame = listing[position % len(listing)]
            target = targets[position % len(targets)].image if way.lab else None
            return baseline(frame.image, frame.label, scale, crop, target)

        return ask_baseline

    dataset = _dataset(listings, name, (scale,), crop)
    if not way.lab or not way.listing.endswith("raw"):
        return _timed(dataset.__getitem__)
    style = dataset.styles[0]
    for index in range(len(style.target)):  # measured once a run, not once a sample
        style.target.of(index)
    if not name.endswith("first_epoch"):
        return _timed(dataset.__getitem__)

    def read_as_in_first_epoch(position: int) -> object:
        style.source = LabStatistics(dataset.listing)
        return dataset[position]

    return _timed(read_as_in_first_epoch)


def _measure(
    timers: dict[str, dict[float, Callable[[int], float]]], images: dict[str, int], rounds: int
) -> dict[str, dict[float, float]]:
    """{way: {scale: milliseconds}}: the fastest round of each image, mean over the images."""
    times = {name: {scale: np.full(images[name], np.inf) for scale in SCALES} for name in timers}
    for number in range(rounds):
        for scale in SCALES:
            for name, timer in timers.items():
                fastest = times[name][scale]  # (images,)
                for image in range(images[name]):
                    ms = timer[scale](number * images[name] + image)
                    fastest[image] = min(fastest[image], ms)
    return {
        name: {scale: float(fastest.mean()) for scale, fastest in by_scale.items()}
        for name, by_scale in times.items()
    }


CAN_MEASURE_COLD = hasattr(os, "posix_fadvise") and Path("/proc/self/io").exists()
"""Whether this system can drop a file from the page cache, and counts bytes read from disk."""


def _cold(listing: ImageList, timer: dict[float, Callable[[int], float]]) -> dict[str, float]:
    """Milliseconds and megabytes of samples read from disk, nothing in the page cache.

    The time includes waiting; read-ahead reads more than is used.
    """

    def read_bytes() -> int:
        return int(re.search(r"read_bytes: (\d+)", Path("/proc/self/io").read_text())[1])

    milliseconds, megabytes = [], []
    for image in range(len(listing)):
        for time_sample in timer.values():
            for path in (listing[image].image, listing[image].label):
                with open(path, "rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            before = read_bytes()
            milliseconds.append(time_sample(image))
            megabytes.append((read_bytes() - before) / 1e6)
    return {"ms_per_sample": mean(milliseconds), "mb_per_sample": mean(megabytes)}


@contextmanager
def _forked_workers() -> Iterator[None]:
    """Workers are children of this process, which counts their time, and import nothing again.

    Raises OSError where the system cannot fork.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        raise OSError(
            "scripts.benchmark data measures forked processes, which this system does not have. Run"
            " it on Linux, or on Windows in WSL."
        )
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("fork", force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(before, force=True)


def _loader_ms(dataset: SegmentationDataset, batch_size: int = 4, batches: int = 40) -> float:
    """CPU milliseconds of a worker per sample, with making batches and handing them over."""

    def cpu_seconds_of_children() -> float:
        return os.times().children_user + os.times().children_system

    before = cpu_seconds_of_children()
    loading = LoaderOptions(workers=1, pin_memory=False)
    with _forked_workers():
        loader = iter(training_loader(dataset, batch_size, range(batches), loading))
        for _ in loader:
            pass
        del loader  # waits for the worker, whose time counts only then
    return 1000 * (cpu_seconds_of_children() - before) / (batches * batch_size)


def _result(
    times: dict[str, dict[float, float]], loader_ms: dict[str, float], speeds: tuple[float, ...]
) -> dict:
    per_sample = {name: mean(by_scale.values()) for name, by_scale in times.items()}
    ratios = {
        f"ratio_{name}": per_sample[way.baseline] / per_sample[name]
        for name, way in WAYS.items()
        if way.baseline is not None
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
