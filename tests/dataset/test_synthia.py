"""SYNTHIA's tree and labels, as cv2 would write the original files; and any source by its tree."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dataset.image_io import read_image
from dataset.label_io import LabelValuesError, is_synthia_label, read_label
from dataset.labels import CLASS_NAMES, LABEL_ID_OF_SYNTHIA, LABEL_IDS, TRAIN_ID_OF
from dataset.listing_check import check_listing
from dataset.segmentation import SegmentationDataset
from dataset.source import labelled_images
from dataset.style.lab import LabTransfer
from dataset.synthia import synthia
from dataset.transforms import RandomScaleCropFlip
from scripts.prepare import main as prepare
from scripts.prepare import parse_arguments as prepare_arguments
from tests.conftest import scene, write_cityscapes, write_gta5
from tests.dataset.test_image_io import SIGNATURE, chunk

# Of the README, again, and by hand: name of the class in Cityscapes -> SYNTHIA's id.
IDS = dict(
    zip(
        ["sky", "building", "road", "sidewalk", "fence", "vegetation", "pole", "car"],
        range(1, 9),
        strict=True,
    )
)
IDS |= {
    "traffic sign": 9,
    "person": 10,
    "bicycle": 11,
    "motorcycle": 12,
    "traffic light": 15,
    "terrain": 16,
    "rider": 17,
    "truck": 18,
}
IDS |= {"bus": 19, "train": 20, "wall": 21}


def write_label(path: Path, ids: np.ndarray) -> None:
    """As the original files are: 16-bit RGB, the class in red, an instance in green."""
    instances = np.random.default_rng(0).integers(0, 2000, ids.shape).astype(np.uint16)
    cv2.imwrite(
        str(path), np.stack([np.zeros_like(instances), instances, ids.astype(np.uint16)], -1)
    )


def write_synthia(root: Path, count: int, size: tuple[int, int] = (72, 136)) -> Path:
    for folder in ("RGB", "GT/LABELS"):
        (root / folder).mkdir(parents=True)
    ids = np.zeros(256, np.uint16)
    ids[list(LABEL_IDS)] = [IDS[name] for name in CLASS_NAMES]
    for number in range(count):
        image, label = scene(number, size)
        Image.fromarray(image).save(root / f"RGB/{number:07}.png")
        write_label(root / f"GT/LABELS/{number:07}.png", ids[label])
    return root


@pytest.fixture
def synthia_root(tmp_path):
    return write_synthia(tmp_path / "RAND_CITYSCAPES", 5)


def test_the_table():
    assert {
        CLASS_NAMES[train_id]: i
        for i in range(256)
        if (train_id := TRAIN_ID_OF[LABEL_ID_OF_SYNTHIA[i]]) != 255
    } == IDS
    assert LABEL_ID_OF_SYNTHIA[[0, 14, 22]].tolist() == [0, 0, 0]
    assert LABEL_ID_OF_SYNTHIA[13] == 9  # parking, which Cityscapes does not score either


def test_the_listing(synthia_root):
    listing = synthia(synthia_root)
    assert listing.names == [f"{number:07}" for number in range(5)]
    check_listing(listing)
    for number in range(5):
        image, label = scene(number, (72, 136))
        assert np.array_equal(read_image(listing[number].image), image)
        found = read_label(listing[number].label)
        assert found.dtype == np.uint8
        assert np.array_equal(found, label)
    sample = SegmentationDataset(
        listing, RandomScaleCropFlip((0.5,), (32, 64)), styles=[LabTransfer(listing, listing)]
    )[0]
    assert set(np.unique(sample.label)) <= {*range(19), 255}


@pytest.mark.parametrize("color_type", [2, 4, 6])
def test_the_first_of_two_three_or_four_channels_counts(tmp_path, color_type):
    _, label = scene(2, (10, 14))
    ids = np.zeros(256, np.uint16)
    ids[list(LABEL_IDS)] = [IDS[name] for name in CLASS_NAMES]
    channels = (
        np.random.default_rng(1)
        .integers(0, 900, (10, 14, {2: 3, 4: 2, 6: 4}[color_type]))
        .astype(">u2")
    )
    channels[..., 0] = ids[label]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 14, 10, 16, color_type, 0, 0, 0))
    lines = zlib.compress(b"".join(b"\0" + line.tobytes() for line in channels))
    (tmp_path / "x.png").write_bytes(
        SIGNATURE + header + chunk(b"IDAT", lines) + chunk(b"IEND", b"")
    )
    assert np.array_equal(read_label(tmp_path / "x.png"), label)


def test_other_labels_are_no_synthia(gta5_root, cityscapes_root):
    assert not any(
        map(is_synthia_label, [*gta5_root.rglob("*.png"), *cityscapes_root.rglob("*.png")])
    )


def test_files_of_converters_are_not_read(synthia_root):
    """*_labelTrainIds.png beside the original labels are left out."""
    Image.fromarray(np.zeros((72, 136), np.uint8)).save(
        synthia_root / "GT/LABELS/0000000_labelTrainIds.png"
    )
    assert len(synthia(synthia_root)) == 5


def test_a_prepared_root_gives_the_same(synthia_root, tmp_path, capsys):
    prepare(
        prepare_arguments(
            [
                "--synthia",
                str(synthia_root),
                "--output",
                str(tmp_path / "p"),
                "--workers",
                "1",
            ]
        )
    )
    assert "5 good images, 0 problems" in capsys.readouterr().out
    raw, prepared = synthia(synthia_root), synthia(tmp_path / "p")
    assert (
        prepared.fingerprint() == raw.fingerprint() == labelled_images(tmp_path / "p").fingerprint()
    )
    check_listing(prepared)
    for one, other in zip(
        map(raw.__getitem__, range(5)), map(prepared.__getitem__, range(5)), strict=True
    ):
        assert other.label.suffix == ".npy"
        assert np.array_equal(read_image(one.image), read_image(other.image))
        assert np.array_equal(read_label(one.label), read_label(other.label))
    crops = RandomScaleCropFlip((0.5, 1.5), (48, 64))
    for position in range(5):
        samples = [
            SegmentationDataset(listing, crops, styles=[LabTransfer(listing, raw)])[position]
            for listing in (raw, prepared)
        ]
        assert np.array_equal(samples[0].image, samples[1].image)
        assert np.array_equal(samples[0].label, samples[1].label)


def test_the_check_names_what_is_wrong(synthia_root, capsys):
    write_label(synthia_root / "GT/LABELS/0000001.png", np.full((72, 136), 23))
    whole = (synthia_root / "GT/LABELS/0000002.png").read_bytes()
    (synthia_root / "GT/LABELS/0000002.png").write_bytes(whole[: len(whole) // 2])
    (synthia_root / "RGB/0000003.png").unlink()
    with pytest.raises(SystemExit):
        prepare(prepare_arguments(["--synthia", str(synthia_root), "--check", "--workers", "1"]))
    output = capsys.readouterr().out
    assert "2 good images, 3 problems" in output
    for line in (
        "unknown label values: 1",
        "values [23] in its first channel",
        "unreadable: 1",
        "missing: 1",
    ):
        assert line in output


class TestBadInput:
    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="No folder .*GT/LABELS"):
            synthia(tmp_path / "absent")
        with pytest.raises(
            FileNotFoundError, match="No files under .*RGB.*SYNTHIA_RAND_CITYSCAPES"
        ):
            synthia(tmp_path)

    def test_values_that_no_class_has(self, synthia_root):
        write_label(synthia_root / "GT/LABELS/0000000.png", np.full((72, 136), 300))
        with pytest.raises(LabelValuesError, match=r"values \[300\] in its first channel"):
            read_label(synthia_root / "GT/LABELS/0000000.png")

    def test_a_converted_copy(self, synthia_root):
        for path in (synthia_root / "GT/LABELS").iterdir():
            Image.fromarray(np.full((72, 136), 3, np.uint8)).save(path)
        with pytest.raises(ValueError, match="no label of SYNTHIA: .*use the original files"):
            synthia(synthia_root)

    def test_a_truncated_label(self, synthia_root):
        path = synthia_root / "GT/LABELS/0000004.png"
        path.write_bytes(path.read_bytes()[:200])
        with pytest.raises(ValueError, match="damaged or cut short"):
            read_label(path)
        path.write_bytes(b"")
        assert not is_synthia_label(path)


class TestAnySource:
    def test_each_tree_is_told_from_the_others(self, gta5_root, cityscapes_root, synthia_root):
        assert labelled_images(gta5_root).names[0] == "00001"
        assert (
            labelled_images(cityscapes_root).names[0] == "aachen/aachen_000000_000019_leftImg8bit"
        )
        assert labelled_images(synthia_root).names[0] == "0000000"
        for root in (gta5_root, cityscapes_root, synthia_root):
            assert labelled_images(root).has_labels
            check_listing(labelled_images(root))

    @pytest.mark.parametrize("data", ["gta5", "cityscapes"])
    def test_prepared_roots(self, gta5_root, cityscapes_root, tmp_path, data):
        raw = {"gta5": gta5_root, "cityscapes": cityscapes_root}[data]
        prepare(
            prepare_arguments(
                [f"--{data}", str(raw), "--output", str(tmp_path / "p"), "--workers", "1"]
            )
        )
        assert labelled_images(tmp_path / "p").fingerprint() == labelled_images(raw).fingerprint()

    def test_none_and_several(self, gta5_root, tmp_path):
        with pytest.raises(FileNotFoundError, match="No folder .*absent"):
            labelled_images(tmp_path / "absent")
        with pytest.raises(
            FileNotFoundError,
            match=r"no labelled data set .*\(GTA5\); .*\(Cityscapes\); .*\(SYNTHIA\); or",
        ):
            labelled_images(tmp_path)
        write_synthia(gta5_root, 1)
        with pytest.raises(ValueError, match="several data sets, gta5 and synthia"):
            labelled_images(gta5_root)

    def test_both_in_one_prepared_root(self, gta5_root, synthia_root, tmp_path):
        for data, root in (("gta5", gta5_root), ("synthia", synthia_root)):
            prepare(
                prepare_arguments(
                    [f"--{data}", str(root), "--output", str(tmp_path / "p"), "--workers", "1"]
                )
            )
        with pytest.raises(ValueError, match="several data sets"):
            labelled_images(tmp_path / "p")

    def test_an_incomplete_one_says_what_it_lacks(self, tmp_path):
        root = write_cityscapes(tmp_path / "c", {"train": 2}, labels=False)
        with pytest.raises(FileNotFoundError, match="gtFine_trainvaltest.zip"):
            labelled_images(root)
        root = write_gta5(tmp_path / "g", 2)
        (root / "labels/00001.png").unlink()
        with pytest.raises(FileNotFoundError, match="1 of 2 images"):
            labelled_images(root)
