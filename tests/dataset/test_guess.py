"""Laws of guessed layouts: trees of every usual kind, read by the patterns that are guessed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.data_files import find_data_files
from dataset.describe.groups import is_label_map
from dataset.describe.guess import guess_layout
from dataset.describe.suggest import suggested_layout
from dataset.layout_file import load_layout

IMAGE = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
LABEL = np.repeat(np.array([[0], [1], [2], [255]], np.uint8), 4, 0).repeat(24, 1)


def plant(root: Path, *paths: str) -> Path:
    """Writes a label map for each path with "mask", "label" or "annot" in it, else an image."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        is_label = any(word in path for word in ("mask", "label", "annot", "_gt"))
        if file.suffix in (".png", ".jpg"):
            Image.fromarray(LABEL if is_label else IMAGE).save(file)
        else:
            file.write_text("text")
    return root


def numbered(*patterns: str, count: int = 3) -> list[str]:
    return [pattern.replace("#", f"{n:04}") for pattern in patterns for n in range(count)]


TREES = {
    "two folders": (
        numbered("photos/#.jpg", "masks/#.png"),
        {"train": ("photos/{key}.jpg", "masks/{key}.png", 3)},
    ),
    "an ending": (
        numbered("photos/shot_#.jpg", "masks/shot_#_mask.png"),
        {"train": ("photos/{key}.jpg", "masks/{key}_mask.png", 3)},
    ),
    "names without digits": (
        [
            f"{p}{n}{e}"
            for n in ("lake", "road", "hill")
            for p, e in (("a/", ".jpg"), ("masks/", "_gt.png"))
        ],
        {"train": ("a/{key}.jpg", "masks/{key}_gt.png", 3)},
    ),
    "one folder": (
        numbered("#.png", "#_mask.png"),
        {"train": ("{key}.png", "{key}_mask.png", 3)},
    ),
    "one folder, two endings": (
        numbered("all/x#_rgb.png", "all/x#_label.png"),
        {"train": ("all/{key}_rgb.png", "all/{key}_label.png", 3)},
    ),
    "splits inside": (
        numbered("img/train/#.jpg", "masks/train/#.png", "img/val/#.jpg", "masks/val/#.png"),
        {
            "train": ("img/train/{key}.jpg", "masks/train/{key}.png", 3),
            "val": ("img/val/{key}.jpg", "masks/val/{key}.png", 3),
        },
    ),
    "splits outside": (
        numbered("training/img/#.jpg", "training/masks/#.png", "validation/img/#.jpg")
        + numbered("validation/masks/#.png"),
        {
            "train": ("training/img/{key}.jpg", "training/masks/{key}.png", 3),
            "val": ("validation/img/{key}.jpg", "validation/masks/{key}.png", 3),
        },
    ),
    "splits in the name": (
        numbered("train/#.png", "trainannot/#.png", "test/#.png", "testannot/#.png"),
        {
            "train": ("train/{key}.png", "trainannot/{key}.png", 3),
            "test": ("test/{key}.png", "testannot/{key}.png", 3),
        },
    ),
    "cities": (
        numbered("left/train/ulm/ulm_#_left8bit.png", "mask/train/ulm/ulm_#_gt_ids.png")
        + numbered("left/train/jena/jena_#_left8bit.png", "mask/train/jena/jena_#_gt_ids.png"),
        {"train": ("left/train/{key}_left8bit.png", "mask/train/{key}_gt_ids.png", 6)},
    ),
    "sequences": (
        numbered("drive1/rgb/#.jpg", "drive1/masks/#.png")
        + numbered("drive2/rgb/#.jpg", "drive2/masks/#.png", count=2),
        {"train": ("{folder1}/rgb/{key}.jpg", "{folder1}/masks/{key}.png", 5)},
    ),
    "a split behind another folder": (
        numbered("img/day/train/#.jpg", "masks/day/train/#.png", "img/night/train/#.jpg")
        + numbered("masks/night/train/#.png"),
        {"train": ("img/{part1}/train/{key}.jpg", "masks/{part1}/train/{key}.png", 6)},
    ),
    "a test split without labels": (
        numbered("img/train/#.jpg", "masks/train/#.png", "img/test/#.jpg"),
        {
            "train": ("img/train/{key}.jpg", "masks/train/{key}.png", 3),
            "test": ("img/test/{key}.jpg", None, 3),
        },
    ),
    "suffixes mixed in one folder": (
        numbered("img/a#.jpg", "img/b#.png", "masks/a#.png", "masks/b#.png", count=2)
        + ["img/c0001.jpg", "masks/c0001.png"],
        {"train": ("img/{key}.jpg", "masks/{key}.png", 5)},
    ),
    "another suffix in another folder": (
        numbered("img/x/#.jpg", "img/y/1#.png", "masks/x/#.png", "masks/y/1#.png"),
        {"train": ("img/{key}.jpg", "masks/{key}.png", 6)},
    ),
    "images alone": (
        numbered("monday/#.jpg", "tuesday/#.jpg"),
        {"train": ("{key}.jpg", None, 6)},
    ),
}


@pytest.mark.parametrize(("paths", "expected"), TREES.values(), ids=TREES)
def test_the_patterns_of_a_tree_are_guessed(paths, expected, tmp_path):
    """The guess is as a reader would write it, and its layout file finds every pair."""
    root = plant(tmp_path / "data", *paths, "notes.txt", ".hidden.png")
    guess = guess_layout(root)
    assert {name: tuple(split) for name, split in guess.splits.items()} == expected
    (tmp_path / "layout.toml").write_text(suggested_layout(guess.splits, has_classes=False))
    layout = load_layout(tmp_path / "layout.toml")
    for name, (_, labels, count) in expected.items():
        tree = find_data_files(layout, root, name, labels=labels is not None)
        assert len(tree.images) == count
        assert labels is None or tree.labels.keys() == tree.images.keys()
    assert "1 files .txt are neither" in guess.notes


def test_what_does_not_fit_is_said(tmp_path):
    """Labels of no image, images of no label, and pairs of a second kind are notes of the guess."""
    paths = numbered("img/#.jpg", "masks/#.png", count=4) + numbered("other/pic_#.jpg")
    paths += numbered("scans/a/b#.png", "scans/masks/b#.png", count=2) + ["lost/masks/x1_z.png"]
    notes = " | ".join(guess_layout(plant(tmp_path, *paths)).notes)
    assert "1 files *_z.png, such as lost/masks/x1_z.png, look like labels" in notes
    assert "3 files *.jpg, such as other/pic_0000.jpg, have no labels" in notes
    assert "2 pairs of scans/a/{key}.png and scans/masks/{key}.png need a layout of their" in notes


@pytest.mark.parametrize("path", ["masks/#.jpg", "img/#_label.png"])
def test_blurred_labels_are_no_images(path, tmp_path):
    """Files that are named like labels, of many values, are left out of the guess, which is said.

    JPEG makes many values of few; so does resizing with interpolation.
    """
    root = plant(tmp_path, *numbered("img/#.jpg"))
    for name in numbered(path):
        (root / name).parent.mkdir(exist_ok=True)
        Image.fromarray(IMAGE).save(root / name)
    guess = guess_layout(root)
    assert guess.splits["train"] == ("img/{key}.jpg", None, 3)
    assert "named like labels" in guess.notes[0]


def test_indices_are_preferred_to_colors(tmp_path):
    """Of two kinds of labels those of one channel are taken; colors are mentioned."""
    root = plant(tmp_path, *numbered("img/#.jpg", "masks/#_ids.png"))
    for number in range(3):
        colors = np.stack([LABEL, LABEL // 2, LABEL // 3], -1)
        Image.fromarray(colors).save(root / f"masks/{number:04}_c.png")
    guess = guess_layout(root)
    assert guess.splits["train"].labels == "masks/{key}_ids.png"
    assert "3 files *_c.png" in guess.notes[0]


def test_many_classes_are_preferred_to_a_mask(tmp_path):
    """Of masks of several classes and of one the former are taken."""
    root = plant(tmp_path, *numbered("img/#.jpg", "labels/#.png", "a_masks/#.png"))
    for path in root.glob("a_masks/*"):
        Image.fromarray((LABEL > 0) * np.uint8(255)).save(path)
    guess = guess_layout(root)
    assert guess.splits["train"].labels == "labels/{key}.png"


def test_a_tree_without_images_is_refused(tmp_path):
    """The error names what was found, and what to do."""
    plant(tmp_path, "a.tif", "b/c.tif", "d.mp4")
    with pytest.raises(ValueError, match="found 2 files .tif, 1 files .mp4. Expected files ending"):
        guess_layout(tmp_path)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (LABEL, True),
        (np.stack([LABEL] * 3, -1), True),
        (LABEL.astype(np.uint16) * 100, True),
        (LABEL > 0, True),
        (IMAGE, False),
        (IMAGE[..., 0], False),
        (np.arange(16 * 24, dtype=np.uint16).reshape(16, 24), False),
        (LABEL[:4], False),
    ],
    ids=["ids", "grey", "16 bits", "mask", "photo", "grey photo", "depth", "tiny"],
)
def test_label_maps_are_told_from_images(pixels, expected, tmp_path):
    """A label map has few values, in large areas."""
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert is_label_map(tmp_path / "x.png") is expected


def test_no_file_is_no_label_map(tmp_path):
    (tmp_path / "x.png").write_text("<html>")
    assert not is_label_map(tmp_path / "x.png")
