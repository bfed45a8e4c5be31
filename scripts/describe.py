"""Says what a folder of images is taken for: layout, splits, pairs, sizes, classes.

This is the first thing to run with new data. For a tree that is not known it guesses where images
and labels lie, and prints a layout and a class set to edit. No file is changed.
"""

if not __package__:  # started by its path: nothing of the project can be imported
    raise SystemExit("error: start it in the project's folder: python -m scripts.describe")

import argparse
import itertools
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.class_set import UNKNOWN, ClassSet
from dataset.class_set_file import load_class_set
from dataset.describe.folder import (
    Labels,
    Sizes,
    SplitFiles,
    describe_labels,
    describe_prepared_labels,
    measure_sizes,
    split_files,
)
from dataset.describe.guess import Guess, guess_layout
from dataset.describe.suggest import CLASS_SET_FILE, LAYOUT_FILE, suggested_layout
from dataset.describe.values import evenly
from dataset.find import is_system_name, printable
from dataset.image_io import LabelValuesError, read_image
from dataset.label_format import LabelFormat
from dataset.labels import IGNORE_INDEX
from dataset.layout_file import Layout, builtin_layouts, load_layout
from dataset.listing import Frame, ImageList
from dataset.prepared.journal import FOLDER as PREPARED
from dataset.recognition import Nearness, detect, nearness
from utils.files import output_file, write_png
from utils.options.checks import require_suffix
from utils.options.parser import new_parser, positive_int, user_errors_without_traceback
from utils.report.pictures import image_grid, with_legend
from utils.report.tables import markdown_table

EPILOG = """examples:
  python -m scripts.describe $GTA5
  your own folders, with a picture of four pairs:
    python -m scripts.describe photos --picture pairs.png
  does my class set name all values?
    python -m scripts.describe photos --layout layout.toml --class-set classes.toml
"""
PICTURES, PICTURE_WIDTH = 4, 480
MOST_VALUES = 40
"""Rows of the table of values."""
MOST_FITS = 4
"""Built-in encodings that are named."""
MOST_FOLDERS = 100
"""Folders in which known data sets are looked for."""
UNNAMED_COLOR = (255, 0, 255)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, EPILOG)
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


@dataclass(frozen=True)
class Found:
    """The layout of a folder: why it is this one, or the guess that it was made from."""

    layout: Layout
    reason: str
    guess: Guess | None = None


def find_layout(root: Path, word: str | None) -> Found:
    """The layout that is named, recognized, or guessed.

    Raises FileNotFoundError for a root that does not exist, ValueError for one of several data
    sets and for one without images.
    """
    if not root.is_dir():
        kind = "is a file" if root.exists() else "does not exist"
        raise FileNotFoundError(f"{root} {kind}. Expected a folder with images.")
    if word is not None:
        return Found(load_layout(word), "named by --layout")
    try:
        layout = detect(root)
    except FileNotFoundError:
        if (root / PREPARED).is_dir():
            raise
        guess = guess_layout(root)
        guess.notes.extend(data_sets_inside(root))
        return Found(layout_of(guess), "guessed from names and contents of the files", guess)
    except ValueError as error:
        raise ValueError(f"{error} Or name one of them here: --layout NAME.") from error
    if (root / PREPARED).is_dir():
        return Found(layout, f"a root prepared by scripts.prepare ({PREPARED}/)")
    patterns = (p for split in layout.splits.values() for p in (*split.images, *split.labels))
    folders = sorted({p.folder for p in patterns if p.folder and (root / p.folder).is_dir()})
    return Found(layout, f"recognized by {', '.join(f'{folder}/' for folder in folders)}")


def data_sets_inside(root: Path) -> list[str]:
    """Notes about folders of ``root``, one or two levels down, that are known data sets."""
    folders = [path for pattern in ("*", "*/*") for path in sorted(root.glob(pattern))]
    folders = [path for path in folders if path.is_dir() and not is_system_name(path.name)]
    found = []
    for folder in folders[:MOST_FOLDERS]:
        try:
            found.append(f"{folder.relative_to(root)}/ alone is {detect(folder).title}")
        except (FileNotFoundError, ValueError):
            continue
    return [f"{'; '.join(found)}: describe such a folder by itself"] if found else []


def layout_of(guess: Guess) -> Layout:
    """The layout of guessed patterns."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "guessed.toml"
        file.write_text(suggested_layout(guess.splits, False), encoding="utf-8")
        return load_layout(file)


def near_layouts(root: Path, found: Found) -> list[Nearness]:
    """What a root holds of every other layout, where it holds anything."""
    layouts = [load_layout(name) for name in builtin_layouts() if name != found.layout.name]
    near = []
    for layout in layouts:
        try:
            near.append(nearness(layout, root))
        except ValueError:  # two labels of an image, by these patterns: it is not this layout
            continue
    return [part for part in near if part.pairs or (found.guess and (part.images or part.labels))]


def layout_text(root: Path, found: Found, near: Sequence[Nearness]) -> list[str]:
    """Lines: what the tree is taken for, and what else was looked for."""
    names = ", ".join(builtin_layouts())
    lines = [f"Folder: {root}"]
    if found.guess is None:
        lines += [f"Layout: {found.layout.name} ({found.layout.title}), {found.reason}"]
        if near:
            fits = "; ".join(f"--layout {part.layout.name} ({part.pairs} pairs)" for part in near)
            lines += [f"These fit, too, when they are named: {fits}"]
        return lines
    lines += [f"Layout: none of the built-in ones ({names})"]
    lines += [
        "How near each came: " + ("; ".join(part.text() for part in near) or "no file of any"),
        f"{found.reason[0].upper()}{found.reason[1:]}:",
    ]
    for name, split in found.guess.splits.items():
        labels = f" with {split.labels}" if split.labels else ", no labels"
        lines.append(f"  {name}: {split.images}{labels} ({split.count})")
    return lines + [f"NOTE: {note}" for note in found.guess.notes]


def splits_text(splits: Sequence[SplitFiles], found: Found) -> list[str]:
    """The table of splits, and what is wrong with each."""
    rows = []
    for split in splits:
        expected = None if found.guess else found.layout.splits[split.name].count
        counts = (len(split.images or ()), split.labels, len(split.pairs or ()), expected or "-")
        rows.append([split.name, *map(str, counts)])
    lines = ["", markdown_table(["split", "images", "labels", "pairs", "a whole copy has"], rows)]
    for split in splits:
        if split.fault:
            lines.append(f"{split.name}: {split.fault}")
        if split.twins:
            lines.append(
                f"{split.name}: {len(split.twins)} files are there twice, with another suffix, such"
                f" as {' and '.join(split.twins[0])}. Training refuses them: remove one of each."
            )
        for paths, kind, partner in zip(
            split.alone, ("images", "labels"), ("label", "image"), strict=True
        ):
            if paths:
                lines.append(
                    f"{split.name}: {len(paths)} {kind} without {partner}, such as {paths[0]}."
                    " Training needs complete pairs: remove them, or name the pairs in a list."
                )
    return lines


def sizes_text(sizes: Sequence[Sizes]) -> list[str]:
    """Lines about the sizes of all splits together."""
    total = sum((part.sizes for part in sizes), start=type(sizes[0].sizes)())
    count = sum(part.count for part in sizes)
    shown = ", ".join(f"{h}x{w}: {number}" for (h, w), number in total.most_common(5))
    more = f", and {len(total) - 5} others" if len(total) > 5 else ""
    lines = ["", f"Sizes (height x width) of {count} images: {shown}{more}"]
    unequal = [text for part in sizes for text in part.unequal]
    if unequal:
        lines.append(
            f"{len(unequal)} of these pairs have an image and a label of different sizes, such as"
            f" {unequal[0]} (height, width): scripts.prepare leaves them out."
        )
    faults = [text for part in sizes for text in part.faults]
    if faults:
        lines.append(f"{len(faults)} of these files cannot be read, such as: {faults[0]}")
    return lines


def labels_text(labels: Labels) -> list[str]:
    """Lines about what the labels hold: encoding, classes, values that no class names."""
    read = f"{len(labels.files)} of {labels.total} labels were read"
    lines = ["", f"Labels: {read}; {len(labels.values.pixels)} different values"]
    if labels.broken:
        lines.append(f"{len(labels.broken)} labels cannot be read, such as: {labels.broken[0]}")
    name = labels.class_set.name if labels.class_set else ""
    if labels.label_format is not None:
        encoding = labels.label_format.encoding
        lines.append(f"Class set: {name}, read as [encodings.{encoding}]")
    else:
        lines.append(f"Class set: none{f'; {name} does not fit' if name else ''}")
    if labels.others:
        lines.append(f"Other encodings of {name} that fit: {', '.join(labels.others)}")
    if labels.fault:
        lines.append(f"PROBLEM: {labels.fault}")
    if labels.builtin and (labels.label_format is None or labels.fault):
        fits = "; ".join(labels.builtin[:MOST_FITS])
        lines.append(f"Built-in class sets name all values: {fits}")
    lines += classes_text(labels) if labels.label_format is not None else values_text(labels)
    return lines


def classes_text(labels: Labels) -> list[str]:
    """The table of classes, and the values that none names."""
    pixels, files = labels.per_class()
    names = dict(enumerate(labels.class_set.names)) | {IGNORE_INDEX: "(ignored)"}
    total, rows = max(1, int(pixels.sum())), []
    for train_id, name in names.items():
        share = f"{100 * pixels[train_id] / total:.3f}"
        found = [v for v in sorted(labels.values.pixels) if labels.class_of(v) == train_id]
        rows.append([name, share, str(files[train_id]), _value_names(found, labels)])
    lines = ["", markdown_table(["class", "% of pixels", "labels", "values found"], rows)]
    unnamed = labels.unnamed()
    if unnamed:
        share = 100 * sum(map(labels.values.share, unnamed))
        lines.append(
            f"No class names the values {_value_names(unnamed, labels)}, on {share:.3g} % of the"
            f" pixels, first in {labels.values.first[unnamed[0]]}"
        )
    absent = [name for train_id, name in names.items() if not pixels[train_id]]
    absent = [name for name in absent if name != "(ignored)"]
    return lines + ([f"No pixel of: {', '.join(absent)}"] if absent else [])


def values_text(labels: Labels) -> list[str]:
    """The table of values where no class set names them."""
    values = labels.values
    order = sorted(values.pixels, key=lambda value: -values.pixels[value])
    kind = {"color": "color", "first-channel": "value of red"}.get(values.read, "value")
    rows = [
        [
            _value_names([value], labels),
            f"{100 * values.share(value):.3f}",
            str(values.files[value]),
        ]
        for value in order[:MOST_VALUES]
    ]
    lines = ["", markdown_table([kind, "% of pixels", "labels"], rows)]
    if len(order) > MOST_VALUES:
        lines.append(
            f"... and {len(order) - MOST_VALUES} more. Were the labels saved as JPEG or resized, or"
            " do they hold instances or distances?"
        )
    return lines


def _value_names(found: Sequence[int], labels: Labels) -> str:
    names = [labels.values.name(value) for value in found[:6]]
    return ", ".join(names) + (", ..." if len(found) > 6 else "")


def suggestion_text(
    root: Path, found: Found, labels: Labels | None, given: Mapping[str, str | None]
) -> list[str]:
    """Files to start from, where no layout or no encoding fits.

    ``given``: the values of --layout and --class-set, which the next command keeps.
    """
    lines, flags = [], dict(given)
    has_classes = labels is not None and labels.label_format is None and labels.suggestion
    if has_classes:
        lines += ["", f"A class set to start from ({CLASS_SET_FILE}):", "", labels.suggestion]
        flags["--class-set"] = CLASS_SET_FILE
    if found.guess is not None and found.guess.has_labels:
        text = suggested_layout(found.guess.splits, bool(has_classes))
        lines += ["", f"A layout to start from ({LAYOUT_FILE}):", "", text]
        flags["--layout"] = LAYOUT_FILE
    if lines:
        words = [word for flag, value in flags.items() if value for word in (flag, value)]
        command = shlex.join(["python", "-m", "scripts.describe", str(root), *words])
        lines += ["", f"Save and edit what is above; then check it: {command}"]
    return lines


Row = tuple[str, list[np.ndarray]]
"""The name of an image; the image, and its label if there are any, as pictures."""


def picture_rows(listing: ImageList, labels: Labels | None) -> list[Row]:
    """Images and labels of four pairs that can be read, evenly spaced if possible.

    Pictures are (h, w, 3) uint8 RGB; without labels there are images alone. Raises ValueError where
    nothing can be read.
    """
    chosen = evenly(range(len(listing)), PICTURES)
    others = (index for index in range(len(listing)) if index not in chosen)
    rows: dict[int, list[np.ndarray]] = {}
    faults: list[str] = []
    for index in itertools.chain(chosen, others):
        if len(rows) == min(PICTURES, len(listing)):
            break
        try:
            rows[index] = _pictures(listing[index], labels)
        except (OSError, ValueError) as error:
            faults.append(str(error))
    if not rows:
        raise ValueError(f"None of {len(listing)} images can be drawn. The first: {faults[0]}")
    return [(printable(listing[index].name), rows[index]) for index in sorted(rows)]


def _pictures(frame: Frame, labels: Labels | None) -> list[np.ndarray]:
    """An image, and its label in the colors of the classes if there are any."""
    image = read_image(frame.image)
    if labels is None or labels.shown is None:
        return [image]
    return [image, _colors(labels)[shown_classes(frame, labels)]]


def _colors(labels: Labels) -> np.ndarray:
    """(256, 3) uint8 RGB: the color of each trainId, and that of UNKNOWN."""
    colors = labels.shown.class_set.color_table.copy()
    colors[UNKNOWN] = UNNAMED_COLOR
    return colors


def picture_of(rows: Sequence[Row], labels: Labels | None) -> np.ndarray:
    """The ``picture_rows`` below one another, with a legend: (h, w, 3) uint8 RGB."""
    titles, pictures = zip(*rows, strict=True)
    if labels is None or labels.shown is None:
        return image_grid(pictures, ["image"], titles, PICTURE_WIDTH)
    grid = image_grid(pictures, ["image", "label"], titles, PICTURE_WIDTH)
    names, colors = list(labels.shown.class_set.names), _colors(labels)
    legend_colors = colors[: len(names)]
    if labels.unnamed():
        names.append("(no class)")
        legend_colors = np.concatenate([legend_colors, colors[UNKNOWN][None]])
    return with_legend(grid, names, legend_colors)


def shown_classes(frame: Frame, labels: Labels) -> np.ndarray:
    """(H, W) uint8 trainIds of a label; UNKNOWN for values that no class names."""
    label_format: LabelFormat = labels.shown
    try:
        return label_format.read_train_ids(frame.label)
    except LabelValuesError:
        values = label_format.values(frame.label)
        found, inverse = np.unique(values, return_inverse=True)
        classes = np.array([labels.class_of(value) for value in found.tolist()], np.uint8)
        return classes[inverse].reshape(values.shape)


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
    near = [] if (root / PREPARED).is_dir() else near_layouts(root, found)
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
    if (root / PREPARED).is_dir():
        return describe_prepared_labels(labelled[0], samples)
    paths = [pairs[index].label for pairs in labelled for index in range(len(pairs))]
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
