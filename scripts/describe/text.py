"""What is printed about a folder, line by line."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from dataset.describe.labels import Labels
from dataset.describe.splits import Sizes, SplitFiles
from dataset.describe.suggest import CLASS_SET_FILE, LAYOUT_FILE, suggested_layout
from dataset.labels import IGNORE_INDEX
from dataset.layout_file import builtin_layouts
from dataset.recognition import Nearness
from scripts.describe.layouts import Found
from utils.report.tables import markdown_table

MOST_VALUES = 40
"""Rows of the table of values."""
MOST_FITS = 4
"""Built-in encodings that are named."""


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
            str(len(values.files[value])),
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
