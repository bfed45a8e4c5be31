import numpy as np
import pytest
import torch
from PIL import Image

from dataset.cityscapes import cityscapes
from dataset.gta5 import gta5
from dataset.image_io import read_image
from dataset.labels import TRAIN_ID_OF
from dataset.loader import LoaderOptions, evaluation_loader, training_loader
from dataset.sampling import CyclicIndex, ShuffledIndex
from dataset.segmentation import (
    SampleOptions,
    SegmentationDataset,
    common_size,
    largest_class_ratio,
)
from dataset.style.lab import LabTransfer
from dataset.transforms import RandomScaleCropFlip, resize_area
from dataset.unlabelled import unlabelled_images
from tests.conftest import scene

CROP = RandomScaleCropFlip((0.5, 0.75, 1.0, 1.5), (48, 64))


def training_set(root, cityscapes_root=None, seed=0):
    listing = gta5(root)
    styles = (
        [LabTransfer(listing, cityscapes(cityscapes_root, "train", labels=False))]
        if cityscapes_root
        else []
    )
    return SegmentationDataset(
        listing, CROP, ShuffledIndex(len(listing), seed, 0), styles, seed=seed
    )


def batches(dataset, first, last, workers, batch_size=4):
    loader = training_loader(dataset, batch_size, range(first, last), LoaderOptions(workers, False))
    return [tuple(part.clone() for part in batch if part is not None) for batch in loader]


def assert_equal(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_samples_are_uint8_and_paired(gta5_root):
    sample = training_set(gta5_root)[0]
    assert sample.image.shape == (48, 64, 3)
    assert sample.label.shape == (48, 64)
    assert sample.image.dtype == sample.label.dtype == torch.uint8
    # In these scenes the green channel tells the class: 3 * labelId + 40, and noise of 20.
    label_id = (sample.image[..., 1].float() - 40) / 3
    road_or_car = {0: 7, 13: 26}
    for train_id, expected in road_or_car.items():
        chosen = label_id[sample.label == train_id]
        assert chosen.numel() == 0 or abs(chosen.median().item() - expected) < 3


@pytest.mark.parametrize("lab", [False, True])
def test_batches_do_not_depend_on_workers_or_on_where_one_starts(gta5_root, cityscapes_root, lab):
    target = cityscapes_root if lab else None
    alone = batches(training_set(gta5_root, target), 0, 6, workers=0)
    assert_equal(alone, batches(training_set(gta5_root, target), 0, 6, workers=3))
    assert_equal(alone[4:], batches(training_set(gta5_root, target), 4, 6, workers=2))


def test_seeds_and_streams_differ(gta5_root):
    listing = gta5(gta5_root)
    first = SegmentationDataset(listing, CROP, seed=0, rng_stream=0)
    for seed, rng_stream in ((1, 0), (0, 1)):
        other = SegmentationDataset(listing, CROP, seed=seed, rng_stream=rng_stream)
        assert not all(torch.equal(first[i].image, other[i].image) for i in range(4))


def test_crops_of_one_class_are_drawn_anew(gta5_root):
    listing = gta5(gta5_root)
    crop = RandomScaleCropFlip((1.5,), (24, 32))  # about the size of a block of these scenes
    usual, varied, hopeless = (
        SegmentationDataset(listing, crop, options=SampleOptions(max_class_ratio=limit))
        for limit in (1.0, 0.6, 0.01)
    )

    def share(sample):
        counts = torch.bincount(sample.label[sample.label != 255].int())
        return (counts.max() / counts.sum()).item() if len(counts) else 1.0

    shares = {
        name: [share(data[i % len(data)]) for i in range(len(data))]
        for name, data in (("usual", usual), ("varied", varied))
    }
    assert np.mean([ratio >= 0.65 for ratio in shares["usual"]]) > 0.2
    # The limit is 0.6, measured on a part of the pixels.
    assert np.mean([ratio >= 0.65 for ratio in shares["varied"]]) < 0.05
    assert hopeless[0].label.shape == (24, 32)  # the tenth is taken
    kept = [i for i in range(len(usual)) if torch.equal(usual[i].label, varied[i].label)]
    assert kept
    assert all(torch.equal(usual[i].image, varied[i].image) for i in kept)


def test_the_largest_class_ratio():
    label_ids = np.zeros((8, 8), np.uint8)  # void
    assert largest_class_ratio(label_ids) == 1
    label_ids[:4] = 7
    assert largest_class_ratio(label_ids) == 1
    label_ids[4:, 4:] = 26
    assert largest_class_ratio(label_ids) == pytest.approx(2 / 3)


def test_an_epoch_sees_every_image_once_in_a_new_order():
    order = ShuffledIndex(7, seed=3, rng_stream=0)
    epochs = [[order(position) for position in range(7 * e, 7 * e + 7)] for e in range(3)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert [order(position) for position in range(7)] == epochs[0]  # going back is the same
    assert [CyclicIndex(3)(position) for position in range(5)] == [0, 1, 2, 0, 1]


def test_batches_are_full_and_go_on_past_the_end_of_an_epoch(gta5_root):
    found = batches(training_set(gta5_root), 0, 5, workers=0)
    assert [len(batch[0]) for batch in found] == [4] * 5
    indices = torch.cat([batch[2] for batch in found])
    assert sorted(indices[:6].tolist()) == sorted(indices[6:12].tolist()) == list(range(6))


def test_evaluation_reads_everything_whole_and_once(cityscapes_root):
    found = list(evaluation_loader(cityscapes(cityscapes_root, "val"), LoaderOptions(2, False)))
    assert [batch.index.tolist() for batch in found] == [[0], [1], [2]]
    image, label = scene(101, (64, 128))
    assert np.array_equal(found[1].image[0].numpy(), image)
    assert np.array_equal(found[1].label[0].numpy(), TRAIN_ID_OF[label])


def test_target_samples_have_no_label(cityscapes_root):
    listing = cityscapes(cityscapes_root, "train", labels=False)
    batch = next(
        iter(
            training_loader(
                SegmentationDataset(listing, CROP), 2, range(1), LoaderOptions(0, False)
            )
        )
    )
    assert batch.label is None
    assert batch.image.shape == (2, 48, 64, 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_bring_the_whole_frame_and_where_they_lie_in_it(cityscapes_root, workers):
    listing = cityscapes(cityscapes_root, "train", labels=False)
    dataset, plain = (
        SegmentationDataset(listing, CROP, options=SampleOptions(context_size=size))
        for size in ((32, 64), None)
    )
    batch = next(iter(training_loader(dataset, 2, range(1), LoaderOptions(workers, False))))
    for number in range(2):
        frame = read_image(listing[number].image)
        assert np.array_equal(batch.full_image[number].numpy(), resize_area(frame, (32, 64)))
        window = CROP.choose_window(np.random.default_rng((0, 0, number)), frame.shape[:2])
        assert np.array_equal(batch.affine_theta[number].numpy(), window.affine_theta())
        assert torch.equal(batch.image[number], plain[number].image)  # nothing else differs
        assert plain[number].full_image is None


def test_the_common_size_has_the_shape_of_the_first_frame(tmp_path):
    for number, size in enumerate([(192, 384), (100, 333)]):
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / f"{number}.png")
    listing = unlabelled_images([str(tmp_path)])
    assert common_size(listing, 128 * 256) == (128, 256)
    assert common_size(listing, 1.5**2 * 128 * 256) == (192, 384)
    height, width = common_size(unlabelled_images([str(tmp_path / "1.png")]), 5000)
    assert abs(height * width - 5000) < 200
    assert abs(width / height - 3.33) < 0.1


def test_a_pair_of_different_sizes_is_refused(gta5_root):
    Image.fromarray(np.full((70, 136), 7, np.uint8)).save(gta5_root / "labels/00001.png")
    with pytest.raises(ValueError, match=r"00001.png is \(72, 136\) and .*\(70, 136\)"):
        SegmentationDataset(gta5(gta5_root), CROP)[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_file_is_named_also_from_a_worker(gta5_root, workers):
    path = gta5_root / "images/00003.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"00003\.png cannot be decoded"):
        batches(training_set(gta5_root), 0, 3, workers)
