"""Tells label files of known data sets from images, by their names, folders and contents."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dataset.evenly import evenly
from dataset.labels import IGNORE_INDEX, LABEL_COLORS, color_keys

_LABEL_NAME = re.compile(
    r"_gt(fine|coarse)_\w+$|_gt_(label|inv|instance|color|semantic|panoptic)\w*$"
    r"|_(label|instance)(level\d)?(_?train)?_?ids$|_(labelcolor|invids|invgray|panoptic)$"
    r"|_(train_id|train_color|drivable_(id|color)|instance_?color|semantic_?rgb)$"
    r"|_(disparity|depth)$|^umm?_(lane|road)_\d{6}$|^uu_road_\d{6}$",
    re.IGNORECASE,
)
"""Names, without suffix, that only labels and other maps have."""

_LABEL_FOLDERS = {
    # Cityscapes, ACDC, Dark Zurich, IDD
    *("gtfine", "gtcoarse", "gt", "gtpanoptic", "gtbbox3d", "disparity", "panoptic"),
    # GTA5, BDD100K, Mapillary, WildDash
    *("labels", "label", "color_labels", "instances", "masks", "colormaps", "bitmasks"),
    *("v1.2", "v2.0", "annotations", "annotation", "polygons"),
    # KITTI, Virtual KITTI
    *("semantic", "semantic_rgb", "instance", "gt_image_2", "disp_occ_0", "disp_noc_0"),
    *("disp_occ_1", "disp_noc_1", "flow_occ", "flow_noc", "classsegmentation"),
    *("instancesegmentation", "depth", "disp_occ", "disp_noc"),
    # CARLA, CamVid, Pascal VOC, A2D2, Cityscapes' derivatives
    *("cameraseg", "cameradepth", "labeledapproved_full", "trainannot", "valannot", "testannot"),
    *("segmentationclass", "segmentationobject", "segmentationclassraw"),
}
_IMAGE_FOLDERS = {
    *("leftimg8bit", "rightimg8bit", "rgb_anon", "rgb", "images", "image", "img", "imgs"),
    *("image_2", "image_3", "image_0", "image_1", "camera", "camerargb", "frames", "color"),
    *("701_stillsraw_full", "jpegimages", "train", "val", "test", "leftimg8bit_foggy"),
    *("leftimg8bit_rain", "leftimg8bit_trainvaltest", "rgb_anon_trainvaltest"),
}
"""Folders of images, in lower case: beside one, a folder of _LABEL_FOLDERS holds labels."""
_ONLY_LABEL_FOLDERS = {
    *("gtfine", "gtcoarse", "semantic_rgb", "color_labels", "colormaps", "bitmasks", "gt_image_2"),
    *("segmentationclass", "segmentationobject", "labeledapproved_full", "cameraseg"),
    *("data_2d_semantics", "proj_depth"),  # KITTI-360, KITTI
    *("classsegmentation", "instancesegmentation", "trainannot", "valannot", "testannot"),
}
"""Names of folders that nobody gives to images, whatever lies beside them."""
_IMAGE_NAME = re.compile(r"(_leftImg8bit|_rgb_anon|_rgb)$", re.IGNORECASE)
_MOST_DECODED = 8
"""Files of a folder that are decoded to see that it holds labels."""
_MOST_VALUES, _LEAST_FLAT = 124, 0.9
"""Values that a label map of indices holds at most (Mapillary Vistas 2.0: 0-123), 255 aside.

In a label map nearly every pixel has the value of its right neighbor.
"""
_LABEL_COLORS = np.unique(color_keys(LABEL_COLORS))


def is_label_file(path: Path, top: Path, siblings: dict[Path, set[str]] | None = None) -> bool:
    """Whether a file is a label, or another map, of a known data set; it is not opened.

    ``top``, ``siblings``: see ``label_folder``.
    """
    if _LABEL_NAME.search(path.stem) and not _IMAGE_NAME.search(path.stem):
        return True
    return label_folder(path, top, siblings) is not None


def label_folder(
    path: Path, top: Path, siblings: dict[Path, set[str]] | None = None
) -> Path | None:
    """The folder by whose name a file is a label of a known data set; None where none says so.

    ``top``: the folder that the user gave: above it only names count that nobody gives to images.
    ``siblings``: a memory of folders' contents, for many calls.
    """
    siblings = {} if siblings is None else siblings
    for folder in path.parents:
        is_given = folder == top or top in folder.parents
        if folder.name.lower() in _ONLY_LABEL_FOLDERS:
            return folder
        if is_given and _is_label_folder(folder, siblings):
            return folder
    return None


def _is_label_folder(folder: Path, siblings: dict[Path, set[str]]) -> bool:
    name = folder.name.lower()
    if name not in _LABEL_FOLDERS:
        return False
    if folder.parent not in siblings:
        siblings[folder.parent] = _folder_names(folder.parent)
    beside = siblings[folder.parent] - _LABEL_FOLDERS
    if name in ("labels", "label", "masks", "gt", "semantic", "instance", "instances", "depth"):
        return bool(beside & (_IMAGE_FOLDERS - {"train", "val", "test"}))
    return bool(beside & _IMAGE_FOLDERS)


def _folder_names(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name.lower() for entry in entries if entry.is_dir()}
    except PermissionError:  # a parent that may be entered and not listed tells nothing
        return set()


def label_maps(paths: Sequence[Path]) -> set[Path]:
    """Files among ``paths`` that are label maps by their content.

    They are judged in groups: the files of a folder, those apart whose names add the same to the
    name of another file there (a_mask.png to a.png). Of a group, PNGs are decoded up to the first
    that is none, at most ``_MOST_DECODED``. One file tells little: a camera without signal writes
    black frames, which are as flat as a label. JPEGs, which no label map is, are not opened.
    """
    stems: dict[Path, set[str]] = defaultdict(set)
    for path in paths:
        stems[path.parent].add(path.stem)
    groups: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in paths:
        if path.suffix.lower() == ".png" and not _IMAGE_NAME.search(path.stem):
            groups[path.parent, _added_name(path.stem, stems[path.parent])].append(path)
    return {
        path
        for (_, added), files in groups.items()
        if all(looks_like_label_map(file, bool(added)) for file in evenly(files, _MOST_DECODED))
        for path in files
    }


def _added_name(stem: str, stems: set[str]) -> str:
    """What ``stem`` adds to the longest of ``stems`` that it begins with, a word; "" for none."""
    for match in reversed(list(re.finditer(r"[_.-](?=\w*[A-Za-z])", stem))):
        if stem[: match.start()] in stems:
            return stem[match.start() :]
    return ""


def pixels_of(path: Path) -> np.ndarray | None:
    """(H, W) or (H, W, C): the pixels of a file that may be a label map, of a palette the indices.

    None for a file that is no image, or a huge one: reading it later says what is wrong.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:
                return None
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def flatness(pixels: np.ndarray) -> float:
    """Fraction of the pixels (H, W) that have the value of their right neighbor."""
    return (pixels[:, 1:] == pixels[:, :-1]).mean()


def looks_like_label_map(path: Path, any_colors: bool = False) -> bool:
    """Whether the pixels of a file are those of a label map; False for a file that is no image.

    ``any_colors``: few colors of any kind are those of classes, too, not Cityscapes' alone.
    """
    pixels = pixels_of(path)
    if pixels is None or pixels.shape[1] < 16:
        return False
    if pixels.dtype == bool:
        return True
    if (pixels.ndim == 3 and pixels.shape[2] < 3) or pixels.dtype != np.uint8:
        return False
    if pixels.ndim == 3:
        pixels = color_keys(pixels[..., :3])
        known = _LABEL_COLORS
    else:
        known = np.array([*range(_MOST_VALUES), IGNORE_INDEX])
    if flatness(pixels) < _LEAST_FLAT:
        return False
    values = np.unique(pixels)
    is_known = (any_colors and len(values) <= _MOST_VALUES) or bool(np.isin(values, known).all())
    return len(values) >= 2 and is_known
