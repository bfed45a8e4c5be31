"""Shared by all tests: small data sets in the official layouts; real frames if there are any."""

import functools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.labels import LABEL_IDS

torch.set_num_threads(1)  # the suite runs one process a core


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Licensed frames that are no part of the project; REAL_DATA says where they lie."""
    if "REAL_DATA" not in os.environ:
        pytest.skip("REAL_DATA does not name the folder with real frames")
    return Path(os.environ["REAL_DATA"])


@pytest.fixture(scope="session", autouse=True)
def _macs_are_counted_once() -> Iterator[None]:
    """ptflops computes a whole forward pass at 512x1024: once for each architecture is enough."""
    try:
        import ptflops
    except ModuleNotFoundError:  # optional
        yield
        return
    count, known = ptflops.get_model_complexity_info, {}

    @functools.wraps(count)
    def count_once(network: torch.nn.Module, input_shape: tuple[int, int, int], **options):
        key = repr(network), input_shape
        if key not in known:
            known[key] = count(network, input_shape, **options)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ptflops, "get_model_complexity_info", count_once)
        yield


@pytest.fixture(scope="module")
def narrow_networks() -> Iterator[None]:
    """The networks of a module's tests have few channels: for laws that any network shows."""
    from tests.helpers.narrow import narrow_backbones  # torchvision is slow to import

    with narrow_backbones():
        yield


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    """A handler that a test leaves behind would go on in the processes that later tests fork."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def scene(seed: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) uint8 of 4 x 5 blocks, a class in each, and its labelIds (H, W) uint8.

    One block is void. Red and green depend on the class, blue on the seed: a network can learn the
    classes, and color statistics differ between images.
    """
    rng = np.random.default_rng(seed)
    ids = np.array([*rng.permutation(LABEL_IDS), 0], np.uint8).reshape(4, 5)
    rows, columns = (
        np.arange(length) * parts // length for length, parts in zip(size, ids.shape, strict=True)
    )
    label = ids[rows][:, columns]
    image = np.stack([label * 7, label * 3 + 40, 255 - label * 5 - 12 * (seed % 6)], -1).astype(
        np.int16
    ) + rng.integers(-20, 21, (*size, 3))
    return image.clip(0, 255).astype(np.uint8), label


def write_gta5(root: Path, count: int, size: tuple[int, int] = (72, 136)) -> Path:
    """Scenes in the layout of GTA5, 00001.png to ``count``, labels as palette images."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number in range(1, count + 1):
        image, label = scene(number, size)
        Image.fromarray(image).save(root / f"images/{number:05}.png")
        palette = Image.fromarray(label, mode="P")
        palette.putpalette(
            np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes()
        )
        palette.save(root / f"labels/{number:05}.png")
    return root


def write_cityscapes(
    root: Path, counts: dict[str, int], size: tuple[int, int] = (64, 128), labels: bool = True
) -> Path:
    """Scenes in the layout of Cityscapes: {split: number of images}, one city a split."""
    for split, count in counts.items():
        city = {"train": "aachen", "val": "lindau"}[split]
        for folder in (
            f"leftImg8bit/{split}/{city}",
            *([f"gtFine/{split}/{city}"] if labels else []),
        ):
            (root / folder).mkdir(parents=True)
        for number in range(count):
            image, label = scene(100 + number, size)
            stem = f"{city}_{number:06}_000019"
            Image.fromarray(image).save(root / f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png")
            if labels:
                Image.fromarray(label).save(
                    root / f"gtFine/{split}/{city}/{stem}_gtFine_labelIds.png"
                )
    return root


@pytest.fixture
def gta5_root(tmp_path: Path) -> Path:
    return write_gta5(tmp_path / "gta5", 6)


@pytest.fixture
def cityscapes_root(tmp_path: Path) -> Path:
    return write_cityscapes(tmp_path / "cityscapes", {"train": 5, "val": 3})
