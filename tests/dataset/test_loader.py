"""Laws of the loaders: batches in order, without end, and errors that name the file."""

import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset.cityscapes import cityscapes
from dataset.gta5 import gta5
from dataset.image_io import read_image
from dataset.loader import LoaderOptions, evaluation_loader, training_loader
from dataset.sampling import ShuffledIndex
from dataset.segmentation import SampleOptions, SegmentationDataset
from dataset.style.lab import LabTransfer, lab_statistics
from dataset.transforms import RandomScaleCropFlip
from tests.helpers.forked import run_forked

REPOSITORY = Path(__file__).parents[2]
CROP = RandomScaleCropFlip((0.5, 1.0), (32, 48))
ALONE = LoaderOptions(workers=0, pin_memory=False)


def dataset(listing, rng_stream: int = 0, styles=(), **more) -> SegmentationDataset:
    return SegmentationDataset(
        listing,
        CROP,
        ShuffledIndex(len(listing), 0, rng_stream),
        styles,
        seed=0,
        rng_stream=rng_stream,
        **more,
    )


def test_source_and_target_never_stop_at_the_shorter_one(gta5_root, cityscapes_root):
    source, target = (
        dataset(gta5(gta5_root)),
        dataset(cityscapes(cityscapes_root, "val", labels=False), rng_stream=1),
    )
    assert (len(source), len(target)) == (6, 3)
    pairs = list(
        zip(
            training_loader(source, 2, range(10), ALONE),
            training_loader(target, 3, range(10), ALONE),
            strict=True,
        )
    )
    assert len(pairs) == 10
    assert all((len(one.image), len(other.image)) == (2, 3) for one, other in pairs)


def test_batches_are_uint8_and_contiguous(gta5_root):
    batch = next(iter(training_loader(dataset(gta5(gta5_root)), 4, range(1), ALONE)))
    for part in (batch.image, batch.label):
        assert part.dtype == torch.uint8
        assert part.is_contiguous()


def test_a_resumed_run_reads_the_same_batches(gta5_root, cityscapes_root):
    """Batches from step k equal those of an uninterrupted run, with any number of workers."""

    def batches(first: int, workers: int) -> list[torch.Tensor]:
        source, target = gta5(gta5_root), cityscapes(cityscapes_root, "train", labels=False)
        loader = training_loader(
            dataset(
                source,
                styles=[LabTransfer(source, target)],
                options=SampleOptions(context_size=(40, 80)),
            ),
            4,
            range(first, 9),
            LoaderOptions(workers, False),
        )
        return [part.clone() for batch in loader for part in batch]

    whole = batches(0, 0)
    for first, workers in ((1, 0), (5, 2), (8, 1)):
        resumed = batches(first, workers)
        assert len(resumed) == 6 * (9 - first)
        assert all(torch.equal(a, b) for a, b in zip(whole[6 * first :], resumed, strict=True))


def test_the_workers_of_an_evaluation_loader_stay(cityscapes_root):
    loader = evaluation_loader(cityscapes(cityscapes_root, "val"), LoaderOptions(1, False))
    first, workers = list(loader), {worker.pid for worker in loader._iterator._workers}
    second = list(loader)
    assert {worker.pid for worker in loader._iterator._workers} == workers
    assert (
        [batch.index.item() for batch in first]
        == [batch.index.item() for batch in second]
        == [0, 1, 2]
    )


def test_a_statistic_is_measured_once_for_all_workers(gta5_root, monkeypatch):
    listing = gta5(gta5_root)
    style = LabTransfer(listing, listing)
    expected = [
        lab_statistics(read_image(frame.image))
        for frame in (listing[index] for index in range(len(listing)))
    ]
    list(training_loader(dataset(listing, styles=[style]), 4, range(30), LoaderOptions(2, False)))
    monkeypatch.setattr(
        "dataset.style.lab.read_image", lambda path: pytest.fail(f"{path} was read again")
    )
    for index, statistics in enumerate(expected):
        for found in (style.source.of(index), style.target.of(index)):
            assert np.array_equal(found, statistics)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_one_line_with_the_file_name(gta5_root, tmp_path, workers):
    """An error in a worker reaches the user as one line that names the file."""
    path = gta5_root / "images/00003.png"
    path.write_bytes(path.read_bytes()[:400])
    program = f"""
        from dataset.gta5 import gta5
        from dataset.loader import LoaderOptions, training_loader
        from dataset.segmentation import SegmentationDataset
        from dataset.transforms import RandomScaleCropFlip
        from utils.options.parser import user_errors_without_traceback
        with user_errors_without_traceback():
            crops = RandomScaleCropFlip((1.0,), (32, 32))
            dataset = SegmentationDataset(gta5({str(gta5_root)!r}), crops)
            list(training_loader(dataset, 2, range(3), LoaderOptions({workers}, False)))
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    result = run_forked(str(tmp_path / "program.py"))
    assert result.returncode == 1
    lines = [
        line
        for line in result.stderr.splitlines()
        if "Warning" not in line and not line.startswith("  ")
    ]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith(f"error: {path} cannot be decoded")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory needs CUDA")
def test_batches_are_pinned_and_arrive(gta5_root):
    for batch in training_loader(dataset(gta5(gta5_root)), 4, range(4), LoaderOptions(2, True)):
        assert batch.image.is_pinned()
        assert batch.label.is_pinned()
        assert torch.equal(batch.image.to("cuda", non_blocking=True).cpu(), batch.image)
