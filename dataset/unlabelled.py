"""Images without labels, wherever they lie: the target of those who have nothing but a camera."""

import glob
import os
from pathlib import Path

from dataset.files import IMAGE_SUFFIXES
from dataset.listing import Listing

_LABEL_ENDINGS = (
    *("_gtFine_color.png", "_gtCoarse_color.png"),
    *("_labelIds.png", "_labelTrainIds.png", "_instanceIds.png", "_instanceTrainIds.png"),
)
_IMAGES_OF = {"labels": "images", "gtFine": "leftImg8bit", "gtCoarse": "leftImg8bit", "GT": "RGB"}
"""{folder of labels: the folder of images beside it} of GTA5, Cityscapes and SYNTHIA."""


def unlabelled(patterns: list[str]) -> Listing:
    """The images that ``patterns`` name, sorted: files, folders (with all below them) or globs, in which ``**`` is any depth.

    A name is the path below the folder that all images have in common, without suffix. Other files, hidden ones and the label files of
    known data sets are left out. Raises FileNotFoundError where a pattern finds nothing, ValueError where it finds no image, or where two
    images would have one name.
    """
    paths = sorted({path for pattern in patterns for path in _images(os.path.expanduser(pattern))})
    root = Path(os.path.commonpath([path.parent for path in paths]))
    files: dict[str, str] = {}
    for path in paths:
        relative = path.relative_to(root)
        name = relative.with_suffix("").as_posix()
        if name in files:
            raise ValueError(
                f"{root / files[name]} and {path} differ in their suffix only: both would be called {name!r}. Remove or rename one of them."
            )
        files[name] = relative.as_posix()
    return Listing(root, list(files), list(files.values()))


def _images(pattern: str) -> list[Path]:
    """The images that one pattern names, as absolute paths."""
    if os.path.isdir(pattern):
        found = glob.glob(os.path.join(glob.escape(pattern), "**"), recursive=True)
    else:
        found = [pattern] if os.path.isfile(pattern) else glob.glob(pattern, recursive=True)
    if not found:
        raise FileNotFoundError(f"Nothing at {pattern}. Expected an image, a folder of images, or a pattern in quotes such as 'dashcam/**/*.jpg'.")
    files = [Path(os.path.abspath(path)) for path in found if os.path.isfile(path)]
    unlike_labels = [path for path in files if not _is_label(path)]
    images = [path for path in unlike_labels if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        others = ", ".join(sorted({path.suffix.lower() or path.name for path in unlike_labels})[:5])
        raise ValueError(
            f"No image at {pattern}: found {len(files) - len(unlike_labels)} label files, {len(unlike_labels)} other files"
            f"{f' ({others})' if others else ''} and {len(found) - len(files)} folders. Expected files ending in {', '.join(IMAGE_SUFFIXES)}. "
            "Give a folder itself to have all that is below it. Cut a video into images first: ffmpeg -i drive.mp4 -r 2 frames/%06d.jpg"
        )
    return images


def _is_label(path: Path) -> bool:
    """Whether a file belongs to the labels of a known data set, by its name and place: it is not opened."""
    return path.name.endswith(_LABEL_ENDINGS) or any(
        place.name in _IMAGES_OF and (place.parent / _IMAGES_OF[place.name]).is_dir() for place in path.parents
    )
