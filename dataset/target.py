"""Images without labels, wherever they lie: the target of those who have nothing but a camera."""

import glob
import os
from pathlib import Path

from dataset.image_io import IMAGE_SUFFIXES
from dataset.listing import ImageList, find_files

_LABEL_ENDINGS = (
    *("_gtFine_color.png", "_gtCoarse_color.png"),
    *("_labelIds.png", "_labelTrainIds.png", "_instanceIds.png", "_instanceTrainIds.png"),
)
_IMAGES_OF = {"labels": "images", "gtFine": "leftImg8bit", "gtCoarse": "leftImg8bit", "GT": "RGB"}
"""{folder of labels: the folder of images beside it} of GTA5, Cityscapes and SYNTHIA."""
_ENDING, _LABEL_ENDING = "_leftImg8bit", "_gtFine_labelIds"


def unlabelled_images(patterns: list[str]) -> ImageList:
    """The images that ``patterns`` name, sorted: files, folders (with all below them) or globs, in
    which ``**`` is any depth.

    A name is the path below the folder that all images have in common, without suffix. Other files,
    hidden ones and the label files of known data sets are left out. Raises FileNotFoundError where
    a pattern finds nothing, ValueError where it finds no image, or where two images would have one
    name.
    """
    paths = sorted({path for pattern in patterns for path in _images(os.path.expanduser(pattern))})
    root = Path(os.path.commonpath([path.parent for path in paths]))
    files: dict[str, str] = {}
    for path in paths:
        relative = path.relative_to(root)
        name = relative.with_suffix("").as_posix()
        if name in files:
            raise ValueError(
                f"{root / files[name]} and {path} differ in their suffix only: both would be called"
                f" {name!r}. Remove or rename one of them."
            )
        files[name] = relative.as_posix()
    return ImageList(root, list(files), list(files.values()))


def _images(pattern: str) -> list[Path]:
    """The images that one pattern names, as absolute paths."""
    if os.path.isdir(pattern):
        found = glob.glob(os.path.join(glob.escape(pattern), "**"), recursive=True)
    else:
        found = [pattern] if os.path.isfile(pattern) else glob.glob(pattern, recursive=True)
    if not found:
        raise FileNotFoundError(
            f"Nothing at {pattern}. Expected an image, a folder of images, or a pattern in quotes"
            " such as 'dashcam/**/*.jpg'."
        )
    files = [Path(os.path.abspath(path)) for path in found if os.path.isfile(path)]
    unlike_labels = [path for path in files if not _is_label(path)]
    images = [path for path in unlike_labels if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        others = ", ".join(sorted({path.suffix.lower() or path.name for path in unlike_labels})[:5])
        raise ValueError(
            f"No image at {pattern}: found {len(files) - len(unlike_labels)} label files,"
            f" {len(unlike_labels)} other files{f' ({others})' if others else ''} and"
            f" {len(found) - len(files)} folders. Expected files ending in"
            f" {', '.join(IMAGE_SUFFIXES)}. Give a folder itself to have all that is below it. Cut"
            " a video into images first: ffmpeg -i drive.mp4 -r 2 frames/%06d.jpg"
        )
    return images


def _is_label(path: Path) -> bool:
    """Whether a file belongs to the labels of a known data set, by its name and place: it is not
    opened.
    """
    return path.name.endswith(_LABEL_ENDINGS) or any(
        place.name in _IMAGES_OF and (place.parent / _IMAGES_OF[place.name]).is_dir()
        for place in path.parents
    )


def label_path(name: str, split: str) -> str:
    """Where the label of the image called ``name`` lies below a root:
    gtFine/SPLIT/CITY/*_gtFine_labelIds.png.
    """
    return f"gtFine/{split}/{name.removesuffix(_ENDING)}{_LABEL_ENDING}.png"


def with_labels(listing: ImageList, label_root: Path, split: str = "train") -> ImageList:
    """The images of any ``listing`` with the labels that lie at their ``label_path`` below
    ``label_root``: pseudo-labels, of whatever tool.

    Labels of other images are not looked at. Raises FileNotFoundError unless every image has one.
    """
    label_root = Path(label_root).absolute()
    present = find_files(label_root, f"gtFine/{split}", _LABEL_ENDING, suffixes=(".png",))
    keys = [name.removesuffix(_ENDING) for name in listing.names]
    unpaired = [key for key in keys if key not in present]
    if unpaired:
        raise FileNotFoundError(
            f"{len(unpaired)} of {len(keys)} images have no label under {label_root}, the first"
            f" {label_root / label_path(unpaired[0], split)}. Make the rest (python -m"
            " scripts.make_pseudo_labels goes on where it stopped), or name the labelled images in"
            " a list."
        )
    return listing.labelled([str(label_root / present[key]) for key in keys])
