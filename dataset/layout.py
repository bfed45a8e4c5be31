"""The images of a data set by its layout, raw or prepared, and how its labels are read."""

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dataset.class_set import REST, ClassSet, value_text
from dataset.class_set_file import builtin_names, load_class_set
from dataset.data_files import find_data_files
from dataset.find import say_joined_splits
from dataset.label_format import CITYSCAPES_LABELS, LabelFormat, fitting_format
from dataset.label_io import is_synthia_label
from dataset.labels import IGNORE_INDEX
from dataset.layout_file import Layout
from dataset.listing import DataFiles, ImageList, select_by_list
from dataset.prepared.journal import StoredLabels, is_prepared, stored_labels
from dataset.prepared.listing import prepared_listing
from dataset.recognition import detect

_SAMPLED_LABELS = 20
"""Labels that are read to find the encoding, where neither layout nor class set says it."""
_LABEL_CHECKS = {"16-bit color": is_synthia_label}


def data_images(
    root: Path,
    split: str,
    labels: bool = True,
    layout: Layout | None = None,
    class_set: ClassSet | None = None,
    list_file: Path | None = None,
) -> ImageList:
    """The images of ``split`` of a raw or prepared root, sorted by name, or those of a list.

    ``layout``: by default the one that the root is recognized by; ``class_set``: by default that of
    the layout. Without ``labels`` no label file is opened. Raises what ``detect``,
    ``find_pairs`` and ``select_by_list`` raise, FileNotFoundError unless these images have labels,
    ValueError for a prepared root that is incomplete, stale or of other classes.
    """
    root = Path(root)
    layout = detect(root) if layout is None else layout
    split, files = layout.split(split)
    if is_prepared(root):
        label_format = CITYSCAPES_LABELS
        if labels:
            label_format = _prepared_format(layout, root, split, class_set)
        ending = files.images[0].ending
        images = prepared_listing(root, layout.data_name(split), labels, ending, label_format)
        images = select_by_list(images, list_file)
    else:
        images = find_pairs(layout, root, split, labels, class_set).listing(labels, list_file)
    images.data_set = layout.images_of or layout.data_name(split)
    if labels:
        say_joined_splits(images.names, root)
    return images


def find_pairs(
    layout: Layout,
    root: Path,
    split: str,
    labels: bool = True,
    class_set: ClassSet | None = None,
    twins: list[tuple[str, str]] | None = None,
) -> DataFiles:
    """The files of ``split`` of a raw root, before images and labels are paired.

    ``class_set``: by default that of the layout. ``twins``: receives files that differ in their
    suffix only; None: they are an error. Raises FileNotFoundError when there is no image, or no
    label though ``labels`` are needed; ValueError for an image with two labels, for files
    that differ in their suffix only, for labels of another kind, and for a split that the data set
    does not have.
    """
    tree = find_data_files(layout, root, split, labels, twins)
    if not labels:
        return tree
    _require_label_kind(layout, tree)
    paths = [tree.root / path for path in tree.labels.values()]
    label_format = raw_label_format(layout, paths, tree.root, class_set)
    return tree._replace(label_format=label_format)


def raw_label_format(
    layout: Layout, paths: Sequence[Path], root: Path, class_set: ClassSet | None = None
) -> LabelFormat:
    """How the labels ``paths`` of a raw root are read.

    By the layout's encoding, else by the one that fits. ``class_set``: by default that of the
    layout. Raises ValueError when no encoding of the class set fits the labels, and for an encoding
    that the layout's own class set lacks.
    """
    classes = class_set or load_class_set(layout.class_set)
    refuse_unknown_encoding(layout, classes)
    encoding = _encoding(layout, classes)
    if encoding is not None:
        return LabelFormat(classes, encoding)
    sampled = paths[:: max(1, len(paths) // _SAMPLED_LABELS)][:_SAMPLED_LABELS]
    fitting: Counter[str] = Counter()
    for path in sampled:  # one damaged label must not hide what the others are
        fitting.update(name for name in classes.encodings if _fits(classes, name, path))
    best = [name for name, count in fitting.items() if count == max(fitting.values())]
    if len(best) == 1 and 2 * fitting[best[0]] >= len(sampled):
        return LabelFormat(classes, best[0])
    return fitting_format(classes, sampled, root)


def classes_of_labels(layout: Layout, root: Path, class_set: ClassSet) -> ClassSet:
    """The class set with which labels are read in a run or table of ``class_set``.

    ``class_set``, extended by the values that only the layout's own class set names: a checkpoint
    has the values of its training, and a user may have added some since. The labels of a prepared
    root need none of them. Raises ValueError for a value that is another class there.
    """
    if layout.class_set in builtin_names() or is_prepared(root):
        return class_set
    try:
        own = load_class_set(layout.class_set)
    except FileNotFoundError:  # the file of the classes is needed for training only
        return class_set
    mine, encoding = _encoding(layout, own), _encoding(layout, class_set)
    if sorted(own.names) != sorted(class_set.names) or mine is None or encoding is None:
        return class_set
    _refuse_other_meaning(layout, LabelFormat(own, mine), LabelFormat(class_set, encoding))
    rules = class_set.encodings[encoding], own.encodings[mine]
    both = replace(
        rules[0],
        classes={
            name: tuple(dict.fromkeys(v for rule in rules for v in rule.classes.get(name, ())))
            for name in class_set.names
        },
        ignored=REST
        if REST in (rules[0].ignored, rules[1].ignored)
        else tuple(dict.fromkeys([*rules[0].ignored, *rules[1].ignored])),
    )
    return replace(class_set, encodings=class_set.encodings | {encoding: both})


def _refuse_other_meaning(layout: Layout, own: LabelFormat, other: LabelFormat) -> None:
    """Raises ValueError where both name a value, as different classes, or read pixels differently.

    A value that is only among the rest, which is ignored, is not named.
    """
    reads = own.rule.read, other.rule.read
    differ = f"are read as {reads[0]!r}, not {reads[1]!r}" if reads[0] != reads[1] else None
    values, others = (each.class_set.named_values(each.encoding) for each in (own, other))
    for value in sorted(values.keys() & others.keys()) if differ is None else ():
        names = [
            "ignored" if train_id == IGNORE_INDEX else each.class_set.names[train_id]
            for each, train_id in ((own, values[value]), (other, others[value]))
        ]
        if names[0] != names[1]:
            differ = f"have {names[0]!r} as {value_text(value, reads[0])}, which is {names[1]!r}"
            break
    if differ is not None:
        raise ValueError(
            f"{layout.file}: by its class set {own.class_set.name} [encodings.{own.encoding}] the"
            f" labels {differ} in the class set of the network or the training data"
            f" ({other.class_set.name} [encodings.{other.encoding}]). If that is the right one,"
            " name it in the layout; if the file was corrected after the training, train again. If"
            " both are right, of different label files: train with one class set that has a section"
            " for each (docs/own_data.md), or score with eval.py --merge FILE from the network's"
            " class set to this one."
        )


def _require_label_kind(layout: Layout, tree: DataFiles) -> None:
    """Raises ValueError when the first label is of another kind than the layout's labels are."""
    if layout.label_kind is None:
        return
    first = tree.root / next(iter(tree.labels.values()))
    if not _LABEL_CHECKS[layout.label_kind](first):
        default = f"{{file}} is no label of {layout.title}: these are {layout.label_kind} PNGs."
        text = layout.messages.get("other_labels", default)
        raise ValueError(text.replace("{file}", str(first)))


def _fits(class_set: ClassSet, encoding: str, path: Path) -> bool:
    """Whether an encoding names all values of a label, and one of a class among them."""
    try:
        fitting_format(
            replace(class_set, encodings={encoding: class_set.encodings[encoding]}), [path], path
        )
    except (ValueError, FileNotFoundError):
        return False
    return True


def refuse_unknown_encoding(layout: Layout, class_set: ClassSet) -> None:
    """Raises ValueError where the layout names an encoding that its own class set lacks.

    Nothing is said of other classes, given by the user: their encodings have other names.
    """
    if layout.encoding is None or layout.encoding in class_set.encodings:
        return
    try:
        own = load_class_set(layout.class_set)
    except (FileNotFoundError, ValueError):  # a prepared root needs no file but the layout
        return
    if class_set == own:
        near = difflib.get_close_matches(layout.encoding, own.encodings, 1, 0)
        raise ValueError(
            f"{layout.file}: encoding is {layout.encoding!r}; the class set {own.name} has"
            f" {', '.join(own.encodings)} (nearest: {near[0]!r}). Correct the name, or leave the"
            " line out: the encoding that fits the labels is then found."
        )


def _encoding(layout: Layout, class_set: ClassSet) -> str | None:
    """The encoding that the layout names, if the class set has it, or the class set's only one.

    For a layout that names none, that of Cityscapes' own files for Cityscapes' classes.
    """
    if layout.encoding in class_set.encodings:
        return layout.encoding
    is_default = class_set == CITYSCAPES_LABELS.class_set
    if is_default and CITYSCAPES_LABELS.encoding in class_set.encodings:
        return CITYSCAPES_LABELS.encoding
    return next(iter(class_set.encodings)) if len(class_set.encodings) == 1 else None


def _own_class_set(layout: Layout, stored: StoredLabels | None) -> ClassSet:
    """The class set of a prepared root where the run names none.

    That of the layout, as it is now, where the labels were made by it; else the ``stored`` one.
    """
    if stored is None:
        return load_class_set(layout.class_set)
    try:
        now = load_class_set(layout.class_set)
    except FileNotFoundError:  # a prepared root needs no file but the layout
        return stored.class_set
    return now if now.name == stored.class_set.name else stored.class_set


def _prepared_format(
    layout: Layout, root: Path, split: str, class_set: ClassSet | None
) -> LabelFormat:
    """How the labels of a prepared root are read, which hold labelIds or trainIds.

    Raises ValueError where it was prepared with other classes than those of ``class_set``, or with
    other values of these.
    """
    parts = stored_labels(root, layout.data_name(split))
    stored = next(iter(parts.values()), None)
    classes = class_set or _own_class_set(layout, stored)
    refuse_unknown_encoding(layout, classes)
    fitting = [
        name
        for name, rule in classes.encodings.items()
        if (rule.read == "cityscapes") == (stored is None)
    ]
    if (stored is not None and stored.class_set.names != classes.names) or not fitting:
        kind = (
            "labelIds of Cityscapes"
            if stored is None
            else f"the classes of {stored.class_set.name}"
        )
        raise ValueError(
            f"{root} was prepared with {kind}, which are not those of the class set {classes.name}."
            " Prepare it with this class set into another --output, or give the class set that it"
            " was prepared with."
        )
    named = layout.encoding if layout.encoding in fitting else None
    for path, labels in parts.items():
        changed = labels.contradiction(classes, named)
        if changed is not None:
            raise ValueError(
                f"{root} is stale: its labels became trainIds by other values than"
                f" [encodings.{changed}] of the class set {classes.name} has ({path.name})."
                " Prepare it again with this class set and the same --output, or give the class"
                " set that it was prepared with."
            )
    wanted = (named, None if stored is None else stored.encoding, fitting[0])
    return LabelFormat(classes, next(name for name in wanted if name in fitting))
