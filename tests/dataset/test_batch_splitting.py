"""A batch in parts: of one process, and among several."""

import pytest
import torch

from dataset.cityscapes import cityscapes
from dataset.loader import LoaderOptions, evaluation_loader
from dataset.sampling import StepBatches
from dataset.segmentation import Sample


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_the_parts_of_all_processes_are_the_whole_batch(world):
    whole = list(StepBatches(6, range(2, 5)))
    parts_of_ranks = [list(StepBatches(6, range(2, 5), (rank, world))) for rank in range(world)]
    assert [sum(parts, []) for parts in zip(*parts_of_ranks, strict=True)] == whole  # noqa: RUF017
    assert {len(part) for one_rank in parts_of_ranks for part in one_rank} == {6 // world}


def test_split_keeps_every_image_with_its_label():
    batch = Sample(
        torch.arange(4).view(4, 1, 1, 1).expand(4, 2, 2, 3),
        torch.arange(4).view(4, 1, 1),
        torch.arange(4),
        torch.arange(4),
    )
    batch = batch._replace(
        full_image=batch.image + 1, affine_theta=torch.arange(24.0).view(4, 2, 3)
    )
    parts = list(batch.split(2))
    assert len(parts) == 2
    for field in range(len(batch)):
        assert torch.equal(torch.cat([part[field] for part in parts]), batch[field])
    assert [part.label for part in batch._replace(label=None).split(2)] == [None, None]
    with pytest.raises(ValueError, match="4 images cannot be split into 3"):
        batch.split(3)


@pytest.mark.parametrize("world", [2, 5])
def test_every_image_is_scored_by_one_process(cityscapes_root, world):
    listing = cityscapes(cityscapes_root, "val")
    seen = [
        int(batch.index)
        for rank in range(world)
        for batch in evaluation_loader(listing, LoaderOptions(0, False), (rank, world))
    ]
    assert sorted(seen) == list(range(len(listing)))
