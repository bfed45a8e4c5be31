"""Target images: a split of a known data set, or any unlabelled images."""

from collections.abc import Sequence
from pathlib import Path

from dataset.class_set import ClassSet
from dataset.find import print_once, printable
from dataset.layout import classes_of_labels, data_images
from dataset.layout_file import Layout, load_layout
from dataset.listing import ImageList
from dataset.listing_check import check_listing
from dataset.prepared.journal import is_prepared
from dataset.recognition import (
    first_pairs,
    recognized_layouts,
    several_data_sets,
    unknown_prepared_root,
)
from dataset.unlabelled import unlabelled_images


def target_images(
    words: Sequence[str], split: str = "train", layout: str | Path | None = None
) -> ImageList:
    """Target images without labels: ``split`` of a known data set, or any images.

    ``words``: one root, raw or prepared, of a known data set with splits (see ``target_layout``),
    or patterns for ``unlabelled_images``. ``layout``: name or TOML file; by default the root is
    recognized. Prints what a root is taken for, so that images of other
    splits are never used unnoticed. No label is opened. Raises what ``data_images`` and
    ``unlabelled_images`` raise, ValueError for a layout and several words.
    """
    if len(words) > 1:
        if layout is not None:
            raise ValueError(
                f"--target-layout {layout} describes one root, --target names {len(words)}. Give"
                " the root alone, or leave the layout out."
            )
        return unlabelled_images(words)
    root = Path(words[0]).expanduser()
    found = target_layout(root) if layout is None else load_layout(layout)
    if found is None:
        return unlabelled_images(words)
    images = data_images(root, split, labels=False, layout=found)
    print_once(
        f"{printable(root)}: taken for {found.title}, split {found.split(split)[0]},"
        f" {len(images)} images."
    )
    return images


def target_layout(root: str | Path) -> Layout | None:
    """The layout of the root of a known data set that has splits; None for other images.

    A raw root must hold images that the layout's patterns match; leftImg8bit/ alone is enough for
    Cityscapes. Raises ValueError for a root of several data sets, FileNotFoundError for a prepared
    one of a layout that is not built in.
    """
    root = Path(root)
    if not root.is_dir():
        return None
    found = recognized_layouts(root)
    if not found and (unknown := unknown_prepared_root(root)):
        raise FileNotFoundError(unknown)
    if not is_prepared(root):
        found = [
            layout
            for layout in found
            if len(layout.splits) > 1
            and (layout.name == "cityscapes" or first_pairs(layout, root)[0])
        ]
    if len(found) > 1:
        raise several_data_sets(root, found)
    return found[0] if found else None


def images_of_split(
    root: Path,
    split: str,
    layout: str | Path | None,
    class_set: ClassSet,
    list_file: Path | None,
) -> ImageList:
    """The labelled images of ``split`` of a data set, such as val, or those of a list.

    ``layout``: see ``layout_with_splits``. ``class_set``: of the networks. Raises what
    ``layout_with_splits``, ``classes_of_labels`` and ``data_images`` raise.
    """
    found = layout_with_splits(root, layout)
    classes = classes_of_labels(found, Path(root), class_set)
    return data_images(root, split, True, found, classes, list_file)


def layout_with_splits(root: Path, layout: str | Path | None = None) -> Layout:
    """The layout of a data set with splits: a name or TOML file, or by default recognized.

    A root of no known kind gets that of Cityscapes, whose message says what is missing. Raises what
    ``target_layout`` and ``load_layout`` raise, ValueError for a data set that has one split.
    """
    found = target_layout(root) if layout is None else load_layout(layout)
    if found is None and Path(root).is_dir():
        for other in recognized_layouts(Path(root)):
            if list(other.splits) == ["train"] and first_pairs(other, root)[0]:
                raise ValueError(
                    f"{root} is {other.title}, which has one split, train, and no"
                    f" val. Score it as source images (--source {root}), or name its layout"
                    f" (--layout {other.name})."
                )
    return found or load_layout("cityscapes")


def scored_images(
    root: Path, class_set: ClassSet | None = None, layout: str | Path | None = None
) -> ImageList:
    """The labelled images of a root to score a network on: the split val, or the only one.

    ``layout``: name or TOML file; by default the root is recognized. Raises what ``data_images``,
    ``classes_of_labels`` and ``check_listing`` raise.
    """
    root = Path(root).expanduser()
    found = target_layout(root) if layout is None else load_layout(layout)
    if found is not None and class_set is not None:
        class_set = classes_of_labels(found, root, class_set)
    images = data_images(root, "val", layout=found, class_set=class_set)
    check_listing(images)
    return images
