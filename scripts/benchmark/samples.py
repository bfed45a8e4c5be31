"""Ways to make a training sample, and their times on one core.

The baseline runs in a process of its own, since ours keep freed memory (dataset/loader.py), from
which it would gain an eighth.
"""

import multiprocessing
import os
import re
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import cv2
import numpy as np

from dataset.cityscapes import cityscapes, cityscapes_tree
from dataset.evenly import evenly
from dataset.gta5 import gta5, gta5_tree
from dataset.listing import DataFiles, ImageList
from dataset.prepared.build import prepare
from dataset.prepared.job import PrepareJob
from dataset.segmentation import SampleOptions, SegmentationDataset
from dataset.style.lab import LabStatistics, LabTransfer
from dataset.transforms import RandomScaleCropFlip
from scripts.baselines import sample as baseline_sample
from utils.locks import FileLock

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


def read_listings(
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


def _evenly_spaced(tree: DataFiles, count: int) -> list[str]:
    names = [tree.name(key) for key in tree.images if key in tree.labels]
    return evenly(names, count)


def build_dataset(
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


class BaselineProcess:
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


def sample_timer(
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

    dataset = build_dataset(listings, name, (scale,), crop)
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


def measure(
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


def measure_cold(
    listing: ImageList, timer: dict[float, Callable[[int], float]]
) -> dict[str, float]:
    """Milliseconds and megabytes of samples read from disk, nothing in the page cache.

    The time includes waiting; read-ahead reads more than is used.
    """

    def read_bytes() -> int:
        return int(
            re.search(r"read_bytes: (\d+)", Path("/proc/self/io").read_text(encoding="utf-8"))[1]
        )

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
