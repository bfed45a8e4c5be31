"""Says what a folder of images is taken for: layout, splits, pairs, sizes, classes.

This is the first thing to run with new data. For a tree that is not known it guesses where images
and labels lie, and prints a layout and a class set to edit. No file is changed.
"""

if not __package__:  # started by its path: nothing of the project can be imported
    raise SystemExit("error: start it in the project's folder: python -m scripts.describe")

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from dataset.class_set import ClassSet
from dataset.class_set_file import load_class_set
from dataset.describe.labels import Labels, describe_labels, describe_prepared_labels
from dataset.describe.splits import measure_sizes, split_files
from dataset.find import printable
from dataset.listing import ImageList
from dataset.prepared.journal import is_prepared
from scripts.describe.layouts import Found, find_layout, near_layouts
from scripts.describe.picture import PICTURES, picture_of, picture_rows
from scripts.describe.text import (
    labels_text,
    layout_text,
    sizes_text,
    splits_text,
    suggestion_text,
)
from utils.files import output_file, write_png
from utils.options.checks import require_suffix
from utils.options.parser import new_parser, positive_int, user_errors_without_traceback

EPILOG = """examples:
  python -m scripts.describe $GTA5
  your own folders, with a picture of four pairs:
    python -m scripts.describe photos --picture pairs.png
  does my class set name all values?
    python -m scripts.describe photos --layout layout.toml --class-set classes.toml
"""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, EPILOG)
    parser.prog = "python -m scripts.describe"
    parser.add_argument("root", type=Path, metavar="ROOT", help="the folder to describe")
    parser.add_argument(
        "--layout",
        metavar="NAME|FILE",
        help="where images and labels lie: a name such as bdd100k, or a TOML file",
    )
    parser.add_argument(
        "--class-set",
        metavar="NAME|FILE",
        help="the classes: a name such as camvid11, or a TOML file; default: that of the layout",
    )
    parser.add_argument(
        "--picture",
        type=Path,
        metavar="FILE.png",
        help=f"draw {PICTURES} images beside their labels, in the colors of the classes",
    )
    parser.add_argument(
        "--samples",
        type=positive_int,
        default=50,
        metavar="N",
        help="labels to read, evenly spaced, and at most twenty times as many sizes of images",
    )
    args = parser.parse_args(argv)
    if args.picture:
        require_suffix(parser, "--picture", args.picture, ".png")
    return args


def describe(
    root: Path,
    found: Found,
    class_set: ClassSet | None,
    samples: int,
    given: Mapping[str, str | None],
) -> tuple[ImageList, Labels | None]:
    """Prints all about a folder; returns the listing and labels that a picture needs.

    ``given``: see ``suggestion_text``.
    """
    near = [] if is_prepared(root) else near_layouts(root, found)
    layout = found.layout
    splits = [split_files(layout, root, name, class_set) for name in layout.splits]
    listings = [split.pairs or split.images for split in splits]
    listings = [listing for listing in listings if listing is not None]
    lines = [*layout_text(root, found, near), *splits_text(splits, found)]
    if not listings:
        print(printable("\n".join(lines)))
        raise FileNotFoundError(f"{root} holds no image of the layout {layout.name}: see above.")
    lines += sizes_text([measure_sizes(listing, 20 * samples) for listing in listings])
    labelled = [split.pairs for split in splits if split.pairs is not None]
    labels = labels_of(root, found, labelled, class_set, samples) if labelled else None
    lines += (
        labels_text(labels)
        if labels
        else ["", "Labels: none. Images alone are enough for --target."]
    )
    print(printable("\n".join(lines + suggestion_text(root, found, labels, given))))
    return (labelled or listings)[0], labels


def labels_of(
    root: Path,
    found: Found,
    labelled: Sequence[ImageList],
    class_set: ClassSet | None,
    samples: int,
) -> Labels:
    """What the labels of all splits hold."""
    if is_prepared(root):
        return describe_prepared_labels(labelled[0], samples)
    paths = [frame.label for pairs in labelled for frame in pairs]
    if class_set is None and found.guess is None:
        class_set = load_class_set(found.layout.class_set)
    return describe_labels(paths, samples, root, found.layout, class_set)


def main(args: argparse.Namespace) -> None:
    class_set = None if args.class_set is None else load_class_set(args.class_set)
    found = find_layout(args.root, args.layout)
    if args.picture:
        output_file(args.picture, [args.root])
    given = {"--layout": args.layout, "--class-set": args.class_set}
    listing, labels = describe(args.root, found, class_set, args.samples, given)
    if args.picture:
        rows = picture_rows(listing, labels)
        write_png(args.picture, picture_of(rows, labels))
        print(f"\nDrew {len(rows)} of {len(listing)} images into {args.picture}")


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
