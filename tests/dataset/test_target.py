"""Target images from anywhere: which files are found, their names, and the errors."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.cityscapes import cityscapes, cityscapes_tree
from dataset.gta5 import gta5
from dataset.image_io import read_image
from dataset.listing import ImageList, select_by_list
from dataset.listing_check import check_listing
from dataset.loader import LoaderOptions, evaluation_loader
from dataset.prepared.build import prepare
from dataset.prepared.job import PrepareJob
from dataset.segmentation import SegmentationDataset
from dataset.style.lab import LabTransfer, lab_statistics
from dataset.target import layout_with_splits, scored_images, target_images, target_layout
from dataset.transforms import RandomScaleCropFlip
from dataset.unlabelled import unlabelled_images
from tests.conftest import scene
from tests.helpers.trees import write_tree
from utils.training.resume_changes import is_named


def write_images(root: Path, *names: str, size: tuple[int, int] = (48, 96)) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene(number, size)[0]).save(root / name)
    return root


@pytest.fixture
def dashcam(tmp_path):
    root = write_images(
        tmp_path / "dashcam",
        "monday/0002.jpg",
        "monday/0001.jpg",
        "tuesday/night/0001.JPG",
        "0.png",
    )
    (root / "monday/notes.txt").write_text("rain")
    (root / "monday/.0001.jpg").write_bytes(b"what some systems leave beside an image")
    return root


ALL = ["0", "monday/0001", "monday/0002", "tuesday/night/0001"]


def test_a_folder_gives_all_images_below_it_sorted(dashcam):
    listing = unlabelled_images([str(dashcam)])
    assert listing.names == ALL
    assert not listing.has_labels
    assert listing[0].label is None
    assert listing[3].image == dashcam / "tuesday/night/0001.JPG"
    assert read_image(listing[3].image).shape == (48, 96, 3)


def test_patterns_files_and_folders_agree(dashcam):
    everything = unlabelled_images([str(dashcam)])
    for patterns in (
        ["**"],
        ["**/*.jpg", "**/*.JPG", "*.png"],
        ["monday", "tuesday", "0.png"],
        ["tuesday/night/0001.JPG", "0.png", "monday/*"],
    ):
        listing = unlabelled_images([str(dashcam / pattern) for pattern in patterns])
        assert listing.names == everything.names
        assert listing.fingerprint() == everything.fingerprint()


def test_names_begin_below_what_all_have_in_common(dashcam, monkeypatch):
    assert unlabelled_images([str(dashcam / "**/*.jpg")]).names == ["0001", "0002"]
    monkeypatch.chdir(dashcam)
    assert unlabelled_images(["monday"]).names_of([1]) == ["0002"]
    assert unlabelled_images(["monday", "tuesday"]).names == ALL[1:]


def test_a_name_with_dots_keeps_them(tmp_path):
    root = write_images(tmp_path, "2024-05-01 12.30.00.jpg", "2024-05-01 12.30.01.jpg")
    listing = unlabelled_images([str(root)])
    assert listing.names == ["2024-05-01 12.30.00", "2024-05-01 12.30.01"]
    for line in ("2024-05-01 12.30.01", "2024-05-01 12.30.01.jpg"):
        (tmp_path / "list.txt").write_text(line)
        assert select_by_list(listing, tmp_path / "list.txt").names == ["2024-05-01 12.30.01"]


def test_a_folder_whose_name_looks_like_a_pattern(tmp_path):
    root = write_images(tmp_path / "cam [1]", "a.jpg", "b/c.jpg")
    assert unlabelled_images([str(root)]).names == ["a", "b/c"]
    assert unlabelled_images([str(root / "a.jpg")]).names == ["a"]


@pytest.mark.parametrize(
    ("word", "left"),
    [
        ("drive1/0001.png", ["drive1/0001"]),
        ("drive1/0001", ["drive1/0001"]),
        ("/data/car/drive1/0001.png", ["drive1/0001"]),
        ("./drive2/0001.png", ["drive2/0001"]),
        ("0001.png", ["drive1/0001", "drive2/0001"]),
        ("0001", ["drive1/0001", "drive2/0001"]),
        ("drive3/0001.png", []),
        ("drive1", []),
    ],
)
def test_a_word_with_a_folder_names_one_image(tmp_path, word, left):
    """Equal names in other folders stay; data and checkpoints agree on who is named."""
    names = ["drive1/0001", "drive1/0002", "drive2/0001"]
    images = ImageList(tmp_path, names, [f"{name}.png" for name in names])
    assert list(images.without([word]).left_out) == left
    assert [name for name in names if is_named(name, [word])] == left


def test_labels_of_known_data_sets_are_left_out(gta5_root, cityscapes_root, tmp_path):
    assert unlabelled_images([str(cityscapes_root / "leftImg8bit/val")]).names == [
        "lindau_000000_000019_leftImg8bit",
        *LINDAU,
    ]
    assert len(unlabelled_images([str(cityscapes_root)])) == 8
    assert len(unlabelled_images([str(gta5_root)])) == 6
    # The labels alone, copied beside nothing, betray themselves by their names.
    shutil.copytree(cityscapes_root / "gtFine/val/lindau", tmp_path / "alone")
    with pytest.raises(ValueError, match="found 3 label files, 0 other files and 0 folders"):
        unlabelled_images([str(tmp_path / "alone/*")])
    with pytest.raises(ValueError, match="found 6 label files"):
        unlabelled_images([str(gta5_root / "labels/*.png")])


LINDAU = ["lindau_000001_000019_leftImg8bit", "lindau_000002_000019_leftImg8bit"]


def test_a_split_of_cityscapes_has_the_names_of_the_listing(cityscapes_root):
    shutil.copytree(
        cityscapes_root / "leftImg8bit/train/aachen", cityscapes_root / "leftImg8bit/train/zurich"
    )
    assert (
        unlabelled_images([str(cityscapes_root / "leftImg8bit/train")]).names
        == cityscapes(cityscapes_root, "train", labels=False).names
    )


def test_scored_images_of_any_layout(cityscapes_root, gta5_root, tmp_path):
    """val where a root has it, else its only split; a layout of one's own by its file."""
    assert scored_images(cityscapes_root).names == cityscapes(cityscapes_root, "val").names
    assert scored_images(gta5_root).names == gta5(gta5_root).names
    root = write_tree(tmp_path / "own", "folders")
    assert scored_images(root, layout="folders").names == ["drive/0001", "drive/0002"]


def test_a_cityscapes_root_is_read_by_split(cityscapes_root, dashcam, tmp_path):
    """``--target`` takes a raw or prepared Cityscapes root, or patterns of images; no labels."""
    tree = cityscapes_tree(cityscapes_root, "val")
    prepare(PrepareJob(tree, "cityscapes-val"), tmp_path / "p", "")
    shutil.rmtree(cityscapes_root / "gtFine")
    expected = cityscapes(cityscapes_root, "val", labels=False).names
    for root in (cityscapes_root, tmp_path / "p"):
        assert target_layout(root).name == "cityscapes"
        listing = target_images([str(root)], "val")
        assert listing.names == expected
        assert not listing.has_labels
    assert len(target_images([str(cityscapes_root)])) == 5
    assert target_layout(dashcam) is None
    assert target_layout(cityscapes_root / "leftImg8bit") is None
    assert target_images([str(dashcam)]).names == ALL
    folders = [str(cityscapes_root), str(dashcam)]
    assert target_images(folders).names == unlabelled_images(folders).names


def test_it_is_a_target_like_any_other(dashcam, gta5_root):
    source, target = gta5(gta5_root), unlabelled_images([str(dashcam)])
    check_listing(target)
    batch = next(iter(evaluation_loader(target, LoaderOptions(0, False))))
    assert batch.label is None
    assert np.array_equal(batch.image[0].numpy(), read_image(dashcam / "0.png"))
    crops = RandomScaleCropFlip((0.5, 1.0), (32, 64))
    sample = SegmentationDataset(source, crops, styles=[LabTransfer(source, target)])[0]
    assert sample.image.shape == (32, 64, 3)
    statistics = LabTransfer(source, target).target.of(2)
    assert np.array_equal(statistics.mean, lab_statistics(read_image(target[2].image)).mean)


class TestBadInput:
    def test_a_root_of_one_split_has_no_val(self, tmp_path):
        """It is named as what it is, with the flag by which it is scored."""
        root = write_tree(tmp_path, "gta5")
        with pytest.raises(ValueError, match=r"is GTA5, which has one split.*--source"):
            layout_with_splits(root)
        assert layout_with_splits(root, "gta5").name == "gta5"  # named: meant as it is
        assert layout_with_splits(tmp_path / "absent").name == "cityscapes"

    def test_a_prepared_root_of_an_own_layout_needs_it(self, tmp_path):
        """It is neither taken for Cityscapes nor searched for image files."""
        journal = tmp_path / "prepared" / "own-val-1-of-1.jsonl"
        journal.parent.mkdir()
        journal.touch()
        with pytest.raises(FileNotFoundError, match=r"of own-val, .*--target-layout.*--layout"):
            layout_with_splits(tmp_path)
        with pytest.raises(FileNotFoundError, match=r"whose layout is not built in"):
            target_images([str(tmp_path)])

    def test_nothing_there(self, dashcam):
        for pattern in ("absent", "absent.jpg", "*.jpeg"):
            with pytest.raises(FileNotFoundError, match="Nothing at .*'dashcam/\\*\\*/\\*.jpg'"):
                unlabelled_images([str(dashcam), str(dashcam / pattern)])

    def test_no_image(self, tmp_path):
        with pytest.raises(
            ValueError, match="No image at .*0 label files, 0 other files and 1 folders"
        ):
            unlabelled_images([str(tmp_path)])
        (tmp_path / "drive.mp4").write_bytes(b"")
        (tmp_path / "notes").write_text("")
        with pytest.raises(ValueError, match=r"2 other files \(.mp4, notes\).*ffmpeg"):
            unlabelled_images([str(tmp_path)])

    def test_folders_only(self, dashcam):
        with pytest.raises(ValueError, match="and 1 folders.*Give a folder itself"):
            unlabelled_images([str(dashcam / "tues*")])

    def test_two_images_of_one_name(self, dashcam):
        write_images(dashcam, "monday/0002.png")
        with pytest.raises(
            ValueError, match=r"0002.jpg and .*0002.png .*both would be called 'monday/0002'"
        ):
            unlabelled_images([str(dashcam)])
