"""Recognizes which known data set lies in a folder, raw or prepared."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dataset.data_files import CONVERTED_LABELS, find_first, pair_by_pattern
from dataset.find import printable
from dataset.image_io import IMAGE_SUFFIXES
from dataset.layout_file import Layout, all_layouts
from dataset.listing import matched_keys
from dataset.path_pattern import PathPattern, first_files
from dataset.prepared.journal import FOLDER as PREPARED
from dataset.prepared.journal import find_parts, is_prepared, read_part


class Nearness(NamedTuple):
    """How much of a layout a folder holds: numbers of files, and of images with a label."""

    layout: Layout
    images: int = 0
    labels: int = 0
    pairs: int = 0

    def text(self) -> str:
        found = "nothing"
        if self.images or self.labels:
            found = f"{self.images} images, {self.labels} labels, {self.pairs} pairs"
        return f"{self.layout.described()}: {found}"


def detect(root: Path) -> Layout:
    """The built-in layout of a raw or prepared root.

    Raises FileNotFoundError for a root of no known data set, with what was looked for and how near
    each came; ValueError for a root of several.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"No folder {root}. Expected the root of a labelled data set.")
    found = recognized_layouts(root)
    if not found:
        raise FileNotFoundError(_unknown_root(root))
    if len(found) > 1:
        raise several_data_sets(root, found)
    return found[0]


def recognized_layouts(root: Path) -> list[Layout]:
    """The layouts that fit a root best: by journals of a prepared root, by folders of a raw one.

    Where the folders fit several layouts, the first files in these decide.
    """
    if is_prepared(root):
        return prepared_layouts(root)
    candidates = [
        layout
        for layout in all_layouts()
        if not layout.only_by_name
        and any((root / folder).is_dir() for folder in _signs(layout))
        and not any((root / folder).is_dir() for folder in layout.not_with)
    ]
    if len(candidates) < 2:
        return candidates
    evidence = {layout.name: first_pairs(layout, root) for layout in candidates}
    with_pairs = [layout for layout in candidates if evidence[layout.name][1]]
    if with_pairs:
        return with_pairs
    with_images = [layout for layout in candidates if evidence[layout.name][0]]
    typical = [layout for layout in with_images if _is_typical(layout, root)]
    return _most_special(typical or with_images or candidates)


def prepared_layouts(root: Path) -> list[Layout]:
    """The built-in layouts of the journals of a prepared root."""
    return [
        layout
        for layout in all_layouts()
        if any(find_parts(Path(root), layout.data_name(split)) for split in layout.splits)
    ]


def several_data_sets(root: Path, layouts: Sequence[Layout]) -> ValueError:
    """The error for a root of several data sets."""
    return ValueError(
        f"{root} holds several data sets, {' and '.join(layout.name for layout in layouts)}: it"
        " is unclear which one to read. Give each a root of its own."
    )


def first_pairs(layout: Layout, root: Path) -> tuple[bool, bool]:
    """Whether the first images are there, and whether one of them has a label."""
    has_images = False
    for split in layout.splits.values():
        for pattern in split.images:
            files = first_files(root, pattern, IMAGE_SUFFIXES)
            has_images = has_images or bool(files)
            for file in files[:50]:
                paths = [labels.path_of(file.values) for labels in split.labels]
                if any(path is not None and (root / path).is_file() for path in paths):
                    return True, True
    return has_images, False


def nearness(layout: Layout, root: Path) -> Nearness:
    """How many images, labels and pairs of all labelled splits of ``layout`` a raw root holds."""
    images = labels = pairs = 0
    for split in layout.splits.values():
        image_pattern, found = find_first(root, split.images, IMAGE_SUFFIXES, (), False, [])
        image_paths = {key: file.path for key, file in found.items()}
        label_paths: dict[str, str] = {}
        if split.labels:
            endings = (*layout.other_labels, CONVERTED_LABELS)
            pattern, files = find_first(root, split.labels, (".png",), endings, False, [])
            label_paths = pair_by_pattern(root, image_pattern, found, pattern, files)
        if layout.by_name_alone:
            image_paths, label_paths = matched_keys(image_paths, label_paths)
        images += len(image_paths)
        labels += len(set(label_paths.values()))
        pairs += len(image_paths.keys() & label_paths.keys())
    return Nearness(layout, images, labels, pairs)


def _is_typical(layout: Layout, root: Path) -> bool:
    """Whether the first images are called as only those of this data set are, if it says how."""
    patterns = map(PathPattern, layout.typical)
    return not layout.typical or any(first_files(root, p, IMAGE_SUFFIXES) for p in patterns)


def _most_special(layouts: Sequence[Layout]) -> list[Layout]:
    """Without labels: leaves out layouts whose images lie in, or around, those of an earlier one.

    images/10k/train is more special than images; of equal folders the first layout is meant.
    """
    chosen: list[Layout] = []
    for layout in sorted(layouts, key=lambda layout: -max(map(len, _image_folders(layout)))):
        taken = {folder for other in chosen for folder in _image_folders(other)}
        if not any(
            other == folder or other.startswith(f"{folder}/")
            for folder in _image_folders(layout)
            for other in taken
        ):
            chosen.append(layout)
    return [layout for layout in layouts if layout in chosen]


def _signs(layout: Layout) -> tuple[str, ...]:
    """Folders one of which shows a data set."""
    return layout.recognized_by or _image_folders(layout)


def _image_folders(layout: Layout) -> tuple[str, ...]:
    return tuple(p.folder for split in layout.splits.values() for p in split.images if p.folder)


def unknown_prepared_root(root: Path) -> str | None:
    """What to say about a prepared root whose layout is not built in; None: it has no journal."""
    journal = min((root / PREPARED).glob("*-of-*.jsonl"), default=None)
    if journal is None:
        return None
    header = next(read_part(journal), None)
    command = f" It was prepared with: {header.command}" if header else ""
    return (
        f"{root} is a prepared root of {journal.name.rsplit('-', 3)[0]}, whose layout is not built"
        " in. Name it: --source-layout FILE.toml of a source, --target-layout of a target, --layout"
        f" of scripts that have this flag.{command}"
    )


def _unknown_root(root: Path) -> str:
    """What to say about a root of no known data set."""
    if prepared := unknown_prepared_root(root):
        return prepared
    looked_for = [layout for layout in all_layouts() if not layout.only_by_name]
    first = "; ".join(layout.described() for layout in looked_for[:3])
    near = "".join(f"\n  {nearness(layout, root).text()}" for layout in looked_for)
    return (
        f"{root} is no labelled data set of a known kind. Expected one of: {first}; or such a root"
        f" prepared by scripts.prepare; or one of those below. {_data_sets_inside(root)}Describe"
        " another tree in a file of ten lines, see docs/data.md: --source-layout FILE.toml"
        f" (scripts.prepare: --layout). Looked for, and found in all splits together:{near}"
    )


def _data_sets_inside(root: Path) -> str:
    """The first folder in ``root``, or above it, that is a data set, as a sentence, or ""."""
    inside = sorted(Path(entry.path) for entry in os.scandir(root) if entry.is_dir())[:50]
    for folder in (*inside, root.parent, root.parent.parent):
        for layout in all_layouts():
            for split in layout.splits.values():
                folders = [
                    patterns[0].folder for patterns in (split.images, split.labels) if patterns
                ]
                if len(folders) == 2 and all(f and (folder / f).is_dir() for f in folders):
                    return f"{printable(folder)} looks like {layout.title}: give that folder. "
    return ""
