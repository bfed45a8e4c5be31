"""Tiny trees of known data sets, after the documentation of their owners."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dataset.class_set_file import load_class_set
from dataset.layout_file import load_layout
from tests.conftest import scene

SIZE = (16, 24)
"""(height, width) of the images."""

TREES = {
    "gta5": {"train": [(f"images/{n}.png", f"labels/{n}.png") for n in ("00001", "00002")]},
    "synthia": {"train": [(f"RGB/{n}.png", f"GT/LABELS/{n}.png") for n in ("0000000", "0000001")]},
    "cityscapes": {
        split: [
            (
                f"leftImg8bit/{split}/{city}/{city}_{n}_000019_leftImg8bit.png",
                f"gtFine/{split}/{city}/{city}_{n}_000019_gtFine_labelIds.png",
            )
            for n in ("000000", "000001")
        ]
        for split, city in (("train", "aachen"), ("val", "lindau"))
    },
    "cityscapes-coarse": {
        split: [
            (
                f"leftImg8bit/{split}/{city}/{city}_000000_{n}_leftImg8bit.png",
                f"gtCoarse/{split}/{city}/{city}_000000_{n}_gtCoarse_labelIds.png",
            )
            for n in ("000019", "000030")
        ]
        for split, city in (("train", "aachen"), ("train_extra", "bayreuth"), ("val", "lindau"))
    },
    "cityscapes-foggy": {
        split: [
            (
                f"leftImg8bit_foggy/{split}/{city}/{city}_000000_000019_leftImg8bit_foggy_beta_{b}"
                ".png",
                f"gtFine/{split}/{city}/{city}_000000_000019_gtFine_labelIds.png",
            )
            for b in ("0.01", "0.02")
        ]
        for split, city in (("train", "aachen"), ("val", "lindau"))
    },
    "cityscapes-rain": {
        split: [
            (
                f"leftImg8bit_rain/{split}/{city}/{city}_000003_000019_leftImg8bit_rain_alpha_0.01"
                f"_beta_0.005_dropsize_0.01_pattern_{n}.png",
                f"gtFine/{split}/{city}/{city}_000003_000019_gtFine_labelIds.png",
            )
            for n in (1, 12)
        ]
        for split, city in (("train", "aachen"), ("val", "lindau"))
    },
    "acdc": {
        split: [
            (
                f"rgb_anon/{weather}/{split}/GOPR0475/GOPR0475_frame_000041_rgb_anon.png",
                f"gt/{weather}/{split}/GOPR0475/GOPR0475_frame_000041_gt_labelIds.png",
            )
            for weather in ("fog", "snow")
        ]
        for split in ("train", "val")
    },
    "dark-zurich": {
        "train": [
            (f"rgb_anon/train/night/GOPR0351/GOPR0351_frame_00000{n}_rgb_anon.png", None)
            for n in (1, 2)
        ],
        "train_day": [
            (f"rgb_anon/train/day/GOPR0345/GOPR0345_frame_00000{n}_rgb_anon.png", None)
            for n in (1, 2)
        ],
        "val": [
            (
                f"rgb_anon/val/night/GOPR0356/GOPR0356_frame_00032{n}_rgb_anon.png",
                f"gt/val/night/GOPR0356/GOPR0356_frame_00032{n}_gt_labelTrainIds.png",
            )
            for n in (1, 4)
        ],
    },
    "bdd100k": {
        split: [
            (f"images/10k/{split}/{n}.jpg", f"labels/sem_seg/masks/{split}/{n}.png")
            for n in ("0a0a0b1a-7c39d841", "0a0b16e1-93f7c456")
        ]
        for split in ("train", "val")
    },
    "mapillary": {
        split: [
            (f"{folder}/images/{n}.jpg", f"{folder}/labels/{n}.png")
            for n in ("0035fkbjWljhaftpVM37-g", "-0AY2h7kW")
        ]
        for split, folder in (("train", "training"), ("val", "validation"))
    },
    "idd": {
        split: [
            (
                f"leftImg8bit/{split}/{drive}/frame0000_leftImg8bit.png",
                f"gtFine/{split}/{drive}/frame0000_gtFine_labelids.png",
            )
            for drive in (0, 117)
        ]
        for split in ("train", "val")
    },
    "idd-lite": {
        split: [
            (f"leftImg8bit/{split}/{n}_image.jpg", f"gtFine/{split}/{n}_label.png")
            for n in ("0/024541", "135/330189")
        ]
        for split in ("train", "val")
    },
    "kitti": {
        "train": [
            (f"training/image_2/{n}_10.png", f"training/semantic/{n}_10.png")
            for n in ("000000", "000001")
        ],
        "test": [(f"testing/image_2/{n}_10.png", None) for n in ("000000", "000001")],
    },
    "camvid": {
        split: [(f"{split}/0016E5_0{n}.png", f"{split}annot/0016E5_0{n}.png") for n in (7959, 7961)]
        for split in ("train", "val", "test")
    },
    "camvid-original": {
        "train": [
            (f"701_StillsRaw_full/0001TP_00{n}.png", f"LabeledApproved_full/0001TP_00{n}_L.png")
            for n in (6690, 6720)
        ]
    },
    "synscapes": {"train": [(f"img/rgb/{n}.png", f"img/class/{n}.png") for n in (1, 2)]},
    "folders": {
        "train": [(f"images/drive/{n}.jpg", f"labels/drive/{n}.png") for n in ("0001", "0002")]
    },
}
"""{layout: {split: (image, label) paths}}."""

BESIDE = {
    "gta5": ["labels/00001_labelTrainIds.png"],
    "cityscapes": [
        "gtFine/train/aachen/aachen_000000_000019_gtFine_color.png",
        "gtFine/train/aachen/aachen_000000_000019_gtFine_polygons.json",
        "leftImg8bit/test/bonn/bonn_000000_000019_leftImg8bit.png",
        "gtCoarse/train/aachen/aachen_000000_000019_gtCoarse_labelIds.png",
        "disparity/train/aachen/aachen_000000_000019_disparity.png",
    ],
    "cityscapes-rain": ["gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png"],
    "acdc": [
        "gt/fog/train/GOPR0475/GOPR0475_frame_000041_gt_labelTrainIds.png",
        "gt/fog/train/GOPR0475/GOPR0475_frame_000041_gt_invIds.png",
        "rgb_anon/fog/train_ref/GOPR0475/GOPR0475_frame_000041_rgb_ref_anon.png",
        "rgb_anon/rain/test/GOPR0572/GOPR0572_frame_000145_rgb_anon.png",
    ],
    "dark-zurich": ["gt/val/night/GOPR0356/GOPR0356_frame_000321_gt_invGray.png"],
    "bdd100k": [
        "images/10k/test/ac6d4f42-00000000.jpg",
        "images/100k/train/0000f77c-6257be58.jpg",
        "labels/sem_seg/colormaps/train/0a0a0b1a-7c39d841.png",
        "labels/pan_seg/bitmasks/train/0a0a0b1a-7c39d841.png",
    ],
    "mapillary": ["training/instances/-0AY2h7kW.png", "testing/images/a.jpg"],
    "idd": [
        "gtFine/train/0/frame0000_gtFine_polygons.json",
        "gtFine/train/0/frame0000_gtFine_labellevel3Ids.png",
    ],
    "idd-lite": ["gtFine/train/0/024541_inst_label.png", "leftImg8bit/test/1/9_image.jpg"],
    "kitti": ["training/image_2/000000_11.png", "training/instance/000000_10.png"],
    "synscapes": ["img/instance/1.png", "img/rgb-2k/1.png", "meta/1.json"],
}
"""{layout: files that lie beside those of TREES and are no part of it}."""


def write_label(path: Path, layout_name: str) -> np.ndarray:
    """A label in stripes of the first values of each class; returns the trainIds, (H, W) uint8."""
    layout = load_layout(layout_name)
    class_set = load_class_set(layout.class_set)
    rule = class_set.encodings[layout.encoding or "labelIds"]
    train_ids = np.arange(SIZE[1])[None].repeat(SIZE[0], 0) % len(class_set)
    values = np.array([rule.classes[name][0] for name in class_set.names])[train_ids]
    path.parent.mkdir(parents=True, exist_ok=True)
    if layout_name == "synthia":
        sky = np.where(train_ids % 2 == 0, 1, 3).astype(np.uint16)  # sky, road
        empty = np.zeros_like(sky)
        cv2.imwrite(str(path), np.stack([empty, empty, sky], -1))
        return np.where(sky == 1, 10, 0).astype(np.uint8)
    if rule.read == "color":
        rgb = np.stack([values >> 16, values >> 8 & 255, values & 255], -1)
        Image.fromarray(rgb.astype(np.uint8)).save(path)
    else:
        Image.fromarray(values.astype(np.uint8)).save(path)
    return train_ids.astype(np.uint8)


def write_tree(root: Path, name: str) -> Path:
    """The tree of TREES[name] with images of noise, and the files of BESIDE."""
    rng = np.random.default_rng(0)
    for pairs in TREES[name].values():
        for image, label in pairs:
            (root / image).parent.mkdir(parents=True, exist_ok=True)
            noise = rng.integers(0, 256, (*SIZE, 3), np.uint8)
            Image.fromarray(noise).save(root / image)
            if label is not None:
                write_label(root / label, name)
    for other in BESIDE.get(name, ()):
        (root / other).parent.mkdir(parents=True, exist_ok=True)
        if other.endswith("json"):
            (root / other).write_text("{}")
        else:
            Image.fromarray(np.zeros(SIZE, np.uint8)).save(root / other)
    return root


def write_camvid(root: Path, count: int, size: tuple[int, int] = (64, 96)) -> Path:
    """Scenes in the tree and with the ids of SegNet's CamVid, all in val."""
    table = load_class_set("camvid11").table("labelIds")
    for number in range(count):
        image, label_ids = scene(number, size)
        ids = table[label_ids]
        for folder, pixels in (("val", image), ("valannot", np.where(ids == 255, 11, ids))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(root / folder / f"{number:06}.png")
    return root
