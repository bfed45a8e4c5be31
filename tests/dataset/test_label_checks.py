"""Labels that teach nothing, or nonsense, are refused before the first step, at every door."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import eval as eval_script
from dataset.cityscapes import cityscapes
from dataset.gta5 import gta5, gta5_tree
from dataset.label_io import label_size, read_label
from dataset.labels import (
    COLORS,
    LABEL_COLORS,
    LABEL_IDS,
    TRAIN_ID_OF,
    looks_like_idd_ids,
)
from dataset.listing_check import check_listing
from dataset.prepared.build import check
from dataset.prepared.job import PrepareJob
from dataset.pseudo_labels import label_path
from tests.conftest import scene, write_cityscapes, write_gta5
from tests.helpers.cli import run_train, run_train_da


def change_labels(root: Path, change) -> Path:
    for path in root.rglob("*.png"):
        with Image.open(path) as image:
            label = np.asarray(image)
        Image.fromarray(change(label).astype(np.uint8)).save(path)
    return root


CHANGES = {
    "void": (lambda label: 0 * label, "hold no class, only the values .0.,"),
    "no class": (lambda label: np.where(label < 20, 30, 0), r"no class, only the values \[0, 30\]"),
    "mask": (lambda label: np.where(label == 7, 255, 0), "look like masks of one class"),
    "trainIds": (lambda label: TRAIN_ID_OF[label], "these are trainIds"),
    "BDD100K": (lambda label: np.where(label % 7 == 3, 255, TRAIN_ID_OF[label]), "LABEL_ID_OF"),
}


def labels_of(door: str, gta5_root: Path, cityscapes_root: Path, pseudo: Path) -> Path:
    """The folder of the labels that are read at a door."""
    if door != "pseudo-labels":
        at_cityscapes = door in ("validation", "scoring")
        return cityscapes_root / "gtFine/val" if at_cityscapes else gta5_root / "labels"
    for seed, name in enumerate(cityscapes(cityscapes_root, "train", labels=False).names):
        path = pseudo / label_path(name, "train")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene(seed, (64, 128))[1]).save(path)
    return pseudo


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("door", ["source", "pseudo-labels", "validation", "scoring", "prepare"])
def test_labels_that_teach_nothing_are_refused(
    gta5_root, cityscapes_root, tmp_path, capsys, door, kind
):
    """Before the first step, with the values that were found and a remedy.

    Scored labels without any class are warned of: they change nothing in a training, and best.pt,
    which would claim a score, is not written.
    """
    change, words = CHANGES[kind]
    pseudo = tmp_path / "pseudo"
    change_labels(labels_of(door, gta5_root, cityscapes_root, pseudo), change)
    data = ["--gta5", gta5_root, "--cityscapes", cityscapes_root]
    doors = {
        "source": lambda: run_train(tmp_path, "--train-on", "source", *data[:2]),
        "pseudo-labels": lambda: run_train_da(
            tmp_path, *data, "--method", "pseudo-labels", "--pseudo-labels", pseudo
        ),
        "validation": lambda: run_train(
            tmp_path, "--train-on", "source", *data, "--validate-every", 1, "--max-steps", 1
        ),
        "scoring": lambda: eval_script.check_listing(cityscapes(cityscapes_root, "val")),
        "prepare": lambda: check(PrepareJob(gta5_tree(gta5_root), "gta5")),
    }
    if door == "prepare":  # a report of all problems; labels with 0 and 255 betray themselves
        expected = f"{words}|holds trainIds" if kind in ("BDD100K", "trainIds") else words
        assert all(re.search(expected, problem.text) for problem in doors[door]().problems)
        assert doors[door]().problems
        return
    if door == "validation" and kind in ("void", "no class"):
        doors[door]()
        assert re.search(f"WARNING: .*{words}", capsys.readouterr().out)
        assert not (tmp_path / "run/best.pt").exists()
        return
    with pytest.raises(ValueError, match=words):
        doors[door]()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "values", [(7,), (7, 8), (7, 8, 11, 12, 13, 17), (11,), (23,), (8, 26), (7, 4, 5, 6, 26)]
)
@pytest.mark.parametrize("ignored", [0, None, 255])
def test_labels_of_few_classes_are_legal(tmp_path, values, ignored):
    """Road and void alone are labelIds; 0 or 255 may mark what is ignored."""

    def change(label):
        chosen = np.isin(label, values)
        return np.where(chosen, label, values[0] if ignored is None else ignored)

    root = write_gta5(tmp_path, 3)
    change_labels(root / "labels", change)
    listing = gta5(root)
    check_listing(listing)


@pytest.mark.parametrize(
    ("values", "train_ids"),
    [
        ({0, 7}, False),
        ({7, 255}, False),
        ({0, 7, 255}, True),
        ({0, 1}, True),
        ({0, 1, 255}, True),
        ({1, 255}, True),
        ({*range(19)}, True),
        ({0, 10, 255}, True),
        ({0, 7, 8, 11, 12, 13, 17}, False),
        ({0, 7, 8, 11, 12, 13, 17, 255}, True),
        ({0, 7, 26, 255}, False),
    ],
)
def test_which_values_are_train_ids(tmp_path, values, train_ids):
    """TrainIds: 18 at most, and 255 beside 0, or an id that is no class as labelId."""
    root = write_gta5(tmp_path, 1, (20, 20))
    label = np.resize(sorted(values), (20, 20)).astype(np.uint8)
    Image.fromarray(label).save(root / "labels/00001.png")
    if not train_ids:
        check_listing(gta5(root))
        return
    with pytest.raises(ValueError, match="these are trainIds"):
        check_listing(gta5(root))


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        ({*range(26), 255}, True),  # a data set
        ({0, 2, 4, 6, 9, 14, 16, 18, 20, 22, 24, 25, 255}, True),  # one city
        ({*range(34)}, False),  # Cityscapes, GTA5
        ({*LABEL_IDS, 0, 255}, False),
        ({0, 7, 8, 11, 17, 20, 21, 23, 24, 26, 255}, False),
        ({0, 1, 3, 4, 7, 8, 11, 17, 20, 21, 23, 24, 26}, False),  # one image of Cityscapes
        ({0, 4, 7, 8, 11, 21, 23, 26, 33, 255}, False),
        ({0, 1, 3, 7, 8, 9, 10, 14, 15, 18, 23, 24, 26, 27, 32, 255}, False),  # csIds of IDD
    ],
)
def test_level3_ids_of_idd_are_not_label_ids(values, refused):
    """Renamed to *_labelIds.png they would pass for labelIds, with road as nothing."""
    assert looks_like_idd_ids(values) == refused


def test_renamed_labels_of_idd_are_refused(cityscapes_root):
    """With the tool and the option of IDD that make labelIds."""
    change_labels(cityscapes_root / "gtFine", lambda x: np.where(x > 26, 255, np.arange(128) % 26))
    with pytest.raises(ValueError, match="ids or level3Ids.*--id-type csId"):
        check_listing(cityscapes(cityscapes_root, "val"))


def test_ids_of_idd_show_in_their_shares():
    """Ids 0-34 without 255: much has no class, and the main classes are rare."""
    pixels = np.ones(20)
    assert looks_like_idd_ids({*range(35)}, np.array([*pixels[:-1], 40]) * (1 - 0.9 * MAIN))
    assert not looks_like_idd_ids({*range(35)}, np.array([*pixels[:-1], 40]))
    assert not looks_like_idd_ids({*range(35)}, pixels)
    assert not looks_like_idd_ids({0, 24, 25}, np.array([*0 * pixels[:-1], 40]))


MAIN = np.isin(np.arange(20), (0, 2, 8, 10, 13))  # road, building, vegetation, sky, car


def test_one_label_with_a_class_is_enough(tmp_path):
    """Void labels among others are legal: all are read before "no class" is said."""
    root = change_labels(write_gta5(tmp_path, 40, (24, 24)), lambda label: label)
    for path in (root / "labels").glob("*.png"):
        if path.stem != "00018":
            Image.fromarray(np.zeros((24, 24), np.uint8)).save(path)
    check_listing(gta5(root))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".JPEG"])
def test_lossy_labels_are_refused(tmp_path, suffix):
    """A JPEG, whatever its name, is no label: the pixels at its edges have other classes."""
    root = write_cityscapes(tmp_path, {"train": 2})
    for path in [*(root / "gtFine").rglob("*.png")]:
        label = Image.open(path)
        path.unlink()
        label.convert("L").save(path.with_suffix(suffix), format="JPEG", quality=95)
    listing = cityscapes(root, "train")
    for read in (lambda: check_listing(listing), lambda: read_label(listing[0].label)):
        with pytest.raises(ValueError, match="is a JPEG; expected a PNG.*original PNG labels"):
            read()


@pytest.mark.parametrize(
    ("kind", "is_lossy"),
    [("BMP", False), ("TIFF", False), ("GIF", False), ("PPM", False)]
    + [("WEBP", True), ("JPEG2000", True)],
)
def test_lossless_labels_can_be_saved_as_png(tmp_path, kind, is_lossy):
    """The remedy for a BMP is a conversion, which would keep the wrong classes of a WebP."""
    Image.fromarray(scene(0, (24, 32))[1]).save(tmp_path / "1.png", format=kind)
    for read in (read_label, label_size):
        with pytest.raises(ValueError, match=f"is a {kind}; expected a PNG") as error:
            read(tmp_path / "1.png")
        assert ("lossy" in str(error.value)) == is_lossy
        assert ("ave it as PNG" in str(error.value)) != is_lossy


def test_lossy_compression_in_a_tiff(tmp_path):
    """A TIFF can hold a JPEG: its wrong classes are named, too."""
    Image.fromarray(scene(0, (24, 32))[1]).save(tmp_path / "1.tif", compression="jpeg")
    with pytest.raises(ValueError, match="is a TIFF; expected a PNG.*lossy"):
        read_label(tmp_path / "1.tif")


# Palettes


def palette_label(label: np.ndarray, colors: np.ndarray) -> Image.Image:
    picture = Image.fromarray(label, "P")
    picture.putpalette(colors.astype(np.uint8).tobytes())
    return picture


def test_a_sorted_palette_is_read_by_its_colors(tmp_path):
    """A tool that orders the palette anew changes indices, not colors: the colors count."""
    label = scene(0, (72, 136))[1]
    shown = LABEL_COLORS[label]
    quantized = Image.fromarray(shown).quantize(64, dither=Image.Dither.NONE)
    assert np.array_equal(np.asarray(quantized.convert("RGB")), shown)
    quantized.save(tmp_path / "label.png")
    assert np.array_equal(TRAIN_ID_OF[read_label(tmp_path / "label.png")], TRAIN_ID_OF[label])


def test_a_palette_of_train_ids_is_read_by_its_colors(tmp_path):
    """Palette PNGs of trainIds in Cityscapes' colors, as published code writes them."""
    label = scene(0, (72, 136))[1]
    palette_label(TRAIN_ID_OF[label], COLORS).save(tmp_path / "label.png")
    assert np.array_equal(TRAIN_ID_OF[read_label(tmp_path / "label.png")], TRAIN_ID_OF[label])


def test_a_palette_that_agrees_or_says_nothing(tmp_path):
    """GTA5's own palette, black, random and Pascal VOC's colors: the indices count."""
    label = scene(0, (72, 136))[1]
    gta5_colors = LABEL_COLORS.copy()
    gta5_colors[4] = 20  # as in the real files
    voc = [
        [sum((i >> (3 * b + c) & 1) << (7 - b) for b in range(3)) for c in range(3)]
        for i in range(256)
    ]
    random = np.random.default_rng(0).integers(0, 256, (256, 3))
    for colors in (gta5_colors, np.zeros((256, 3)), random, np.array(voc)):
        palette_label(label, colors).save(tmp_path / "label.png")
        assert np.array_equal(read_label(tmp_path / "label.png"), label)


def test_a_palette_of_colors_without_class_is_refused(tmp_path):
    """Cityscapes' colors at wrong places beside colors of no class: nobody can say."""
    colors = LABEL_COLORS[::-1].copy()
    colors[:35] = LABEL_COLORS[34::-1]
    colors[23] = (1, 2, 3)
    label = np.resize([7, 8, 11, 23], (8, 8)).astype(np.uint8)
    palette_label(label, colors).save(tmp_path / "label.png")
    with pytest.raises(ValueError, match="label.png has a palette that contradicts its indices"):
        read_label(tmp_path / "label.png")


def test_real_labels_agree_with_their_palettes(real_data):
    """Real GTA5 labels are read by their indices."""
    paths = sorted((real_data / "frames/gta5/labels").glob("*.png"))
    assert paths
    for path in paths:
        assert np.array_equal(read_label(path), np.asarray(Image.open(path)))


def as_colors(label: np.ndarray) -> np.ndarray:
    return LABEL_COLORS[label]


def with_alpha(label: np.ndarray) -> np.ndarray:
    return np.dstack([as_colors(label), np.full_like(label, 255)])


ENCODINGS = {
    "ACDC labelIds": (lambda label: label, None),
    "ACDC invIds": (lambda label: np.where(label == 4, 255, label), None),
    "ACDC labelColor": (with_alpha, None),
    "ACDC invGray": (lambda label: np.where(label == 7, 255, 0), "look like masks of one class"),
    "BDD100K color_labels": (with_alpha, None),
    "BDD100K drivable": (lambda label: label % 3, "these are trainIds"),
    "BDD100K bitmasks": (lambda label: np.dstack([label, 0 * label, 0 * label, label]), "colors"),
    "IDD csIds": (lambda label: np.where(label == 9, 255, label), None),
    "IDD Lite": (lambda label: np.where(label > 30, 255, label % 7), "these are trainIds"),
    "IDD ids": (lambda label: np.where(label > 30, label + 5, label), "label values .36, 37, 38"),
    "Mapillary 1.2": (lambda label: label * 2, "neither labelIds"),
    "KITTI semantic": (lambda label: label, None),
    "KITTI semantic_rgb": (as_colors, None),
    "KITTI instance": (lambda label: label.astype(np.uint16) * 256 + 1, "pixel format"),
    "KITTI road": (
        lambda label: np.dstack([label * 0 + 255, 0 * label, label // 20 * 255]),
        "colors",
    ),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings_of_the_owners(tmp_path, encoding):
    """Those that have Cityscapes' ids or colors are read, all others refused with the reason."""
    change, refused = ENCODINGS[encoding]
    root = write_gta5(tmp_path, 2)
    for seed in (1, 2):
        label = scene(seed, (72, 136))[1]
        changed = change(label)
        changed = changed if changed.dtype == np.uint16 else changed.astype(np.uint8)
        Image.fromarray(changed).save(root / f"labels/{seed:05}.png")
    if refused:
        with pytest.raises(ValueError, match=refused):
            check_listing(gta5(root))
        return
    check_listing(gta5(root))
    found = TRAIN_ID_OF[read_label(root / "labels/00001.png")]
    expected = TRAIN_ID_OF[scene(1, (72, 136))[1]]
    assert (found == expected).all()
