"""Reads label files as one class set names their values.

Labels with Cityscapes' labelIds stay labelIds until they are cropped, since one file serves many
class sets. All others become trainIds when they are read.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from dataset.class_set import READS, REST, UNKNOWN, ClassSet, Encoding, value_text
from dataset.class_set_file import DEFAULT, load_class_set
from dataset.image_io import map_array
from dataset.label_io import LabelValuesError, decode_label, is_synthia_label, read_label
from dataset.labels import IGNORE_INDEX, LABEL_ID_OF, LABEL_IDS, color_keys

_SHOWN = 6
"""Unknown values that an error names."""


@dataclass(frozen=True)
class LabelFormat:
    """How the labels of a listing are read: ``read(path)``, then ``train_id_of[...]``.

    ``encoding``: a key of ``class_set.encodings``. Raises ValueError for an encoding that the class
    set does not have.
    """

    class_set: ClassSet
    encoding: str

    def __post_init__(self):
        if self.encoding not in self.class_set.encodings:
            raise ValueError(
                f"The class set {self.class_set.name} does not say which class the values of"
                f" {self.encoding!r} labels are; it has {', '.join(self.class_set.encodings)}. Add"
                f" a section [encodings.{self.encoding}] to it, or choose another class set."
            )

    @property
    def rule(self) -> Encoding:
        return self.class_set.encodings[self.encoding]

    @property
    def holds_label_ids(self) -> bool:
        """Whether ``read`` returns Cityscapes' labelIds; else it returns trainIds."""
        return self.rule.read == "cityscapes"

    @cached_property
    def train_id_of(self) -> np.ndarray:
        """(256,) uint8: what ``read`` returns -> trainId, 255 for what is ignored."""
        if self.holds_label_ids:
            return self.class_set.table(self.encoding)
        table = np.full(256, IGNORE_INDEX, np.uint8)
        table[: len(self.class_set)] = range(len(self.class_set))
        table.setflags(write=False)
        return table

    def read(self, path: Path) -> np.ndarray:
        """(H, W) uint8: labelIds or trainIds, see ``holds_label_ids``.

        A prepared label is mapped, not read: its values are checked with its listing. Raises
        FileNotFoundError, ValueError for a file that is no label, and LabelValuesError for values
        that the encoding does not name.
        """
        if path.suffix == ".npy":
            return map_array(path, 2)
        if self.holds_label_ids:
            label_ids = read_label(path)
            if self._lacks_label_ids:
                self._refuse_unknown(path, label_ids, self.train_id_of[label_ids])
            return label_ids
        values = self.values(path)
        train_ids = self._lookup[values]
        self._refuse_unknown(path, values, train_ids)
        return train_ids

    @cached_property
    def white(self) -> int:
        """The value of white in files of one bit a pixel: 255 if a class has 255 and none has 1."""
        of_classes = self.rule.class_values()
        return 255 if 255 in of_classes and 1 not in of_classes else 1

    def values(self, path: Path) -> np.ndarray:
        """(H, W): the values of a file before they become trainIds, see ``label_values``."""
        return label_values(path, self.rule.read, self.white)

    def read_train_ids(self, path: Path) -> np.ndarray:
        """(H, W) uint8 trainIds, 255 for what is ignored; raises what ``read`` raises."""
        label = self.read(path)
        return self.train_id_of[label] if self.holds_label_ids else label

    @cached_property
    def _lookup(self) -> np.ndarray:
        """(n,) uint8: every value that a file can hold -> trainId, 255, or UNKNOWN."""
        size = 1 << (24 if self.rule.read == "color" else 16)
        if self.rule.read != "color":
            table = self.class_set.table(self.encoding)
            rest = IGNORE_INDEX if self.rule.ignored == REST else UNKNOWN
            return np.concatenate([table, np.full(size - len(table), rest, np.uint8)])
        lookup = np.full(size, IGNORE_INDEX if self.rule.ignored == REST else UNKNOWN, np.uint8)
        for key, train_id in self.class_set.named_values(self.encoding).items():
            lookup[key] = train_id
        return lookup

    @cached_property
    def _lacks_label_ids(self) -> bool:
        return bool((self.train_id_of == UNKNOWN).any())

    def _refuse_unknown(self, path: Path, values: np.ndarray, train_ids: np.ndarray) -> None:
        """Raises LabelValuesError where one of ``train_ids``, those of ``values``, is UNKNOWN."""
        unknown = train_ids == UNKNOWN
        if not unknown.any():
            return
        read = self.rule.read
        found, counts = np.unique(values[unknown], return_counts=True)
        order = np.argsort(-counts)[:_SHOWN]
        shares = ", ".join(
            f"{value_text(int(found[i]), read)} on {100 * counts[i] / values.size:.3g} %"
            for i in order
        )
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        named = sorted(self.rule.values())[:40]
        lossy = " Many: was it saved as JPEG, or resized?" if len(found) > 50 else ""
        raise LabelValuesError(
            f"{path} has values that [encodings.{self.encoding}] of {self.class_set.name} does not"
            f" name: {shares} of the pixels{more}.{lossy} It names"
            f" {', '.join(value_text(value, read) for value in named)}. Add them to a class or to"
            " ignored, or give the class set and encoding that these labels have."
        )

    def class_counts(self, counts_of_19: np.ndarray) -> np.ndarray | None:
        """(n, C + 1) pixels of each class and of none, from (n, 20) of Cityscapes' 19 classes.

        None where a class holds other labelIds, whose pixels were not counted.
        """
        if not self.rule.class_values() <= set(LABEL_IDS):
            return None
        count = len(self.class_set)
        columns = [min(self.train_id_of[label_id], count) for label_id in LABEL_IDS] + [count]
        merged = np.zeros((len(counts_of_19), count + 1), np.int64)
        np.add.at(merged, (slice(None), columns), counts_of_19)
        return merged


def label_values(path: Path, read: str, white: int = 1) -> np.ndarray:
    """(H, W) uint8, uint16 or int32: the values of a label file, by a key of READS.

    ``white``: the value of white in a grey file of one bit a pixel.
    Raises FileNotFoundError, or ValueError for a damaged file and another kind of image.
    """
    image = decode_label(path)
    if read == "first-channel":
        return _channels(path)[..., 0]
    if is_synthia_label(path):  # Pillow would keep only the upper 8 bits
        raise _wrong_kind(path, "several channels of 16 bits", read)
    if read == "color":
        if image.mode not in ("RGB", "RGBA", "P", "L", "1"):
            raise _wrong_kind(path, f"pixel format {image.mode!r}", read)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # transparency of a palette, which says nothing
            return color_keys(np.asarray(image.convert("RGB")))
    if image.mode == "1":
        return np.where(image, np.uint8(white), np.uint8(0))
    if image.mode in ("P", "L"):
        return np.asarray(image)
    if image.mode.startswith("I"):  # 16 bits
        return np.asarray(image).astype(np.uint16)
    channels = np.asarray(image)
    if image.mode in ("LA", "RGB", "RGBA"):
        color = channels[..., :3] if image.mode != "LA" else channels[..., :1]
        if (color == color[..., :1]).all():  # a grey image that was saved as a color one
            return np.ascontiguousarray(color[..., 0])
    raise _wrong_kind(path, f"pixel format {image.mode!r}", read)


def _channels(path: Path) -> np.ndarray:
    """(H, W, C) uint8 or uint16, red first; C is 1 for a grey image."""
    content = np.fromfile(path, np.uint8)  # OpenCV opens no name that is not UTF-8
    image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError(f"{path} cannot be decoded. Fetch it again, or leave it out.")
    if image.ndim == 2:
        return image[..., None]
    return image[..., ::-1] if image.shape[2] == 3 else image[..., [2, 1, 0, 3]]


def _wrong_kind(path: Path, found: str, read: str) -> ValueError:
    return ValueError(
        f"{path} has {found}; expected {READS[read]}. Correct read = {read!r} of the encoding, or"
        " give the label file of that kind."
    )


def prediction_format(class_set: ClassSet) -> LabelFormat:
    """How predictions are stored as label files: labelIds for the 19 classes, else trainIds."""
    if class_set == CITYSCAPES_LABELS.class_set:
        return CITYSCAPES_LABELS
    return train_id_format(class_set)


def train_id_format(class_set: ClassSet) -> LabelFormat:
    """How label files that hold trainIds are read; 255 is ignored."""
    own = Encoding("index", {name: (i,) for i, name in enumerate(class_set.names)}, (IGNORE_INDEX,))
    return LabelFormat(replace(class_set, encodings={"trainIds": own}), "trainIds")


def stored_value_of(class_set: ClassSet) -> np.ndarray:
    """(256,) uint8: trainId -> the value in files of ``prediction_format``; 255 -> ignored."""
    if prediction_format(class_set).holds_label_ids:
        return LABEL_ID_OF
    return np.arange(256, dtype=np.uint8)


CITYSCAPES_LABELS = LabelFormat(load_class_set(DEFAULT), "labelIds")
"""The 19 classes in labels of Cityscapes, GTA5 and SYNTHIA: what a listing has by default."""


def fitting_format(class_set: ClassSet, paths: Sequence[Path], where: str | Path) -> LabelFormat:
    """The encoding of ``class_set`` that names all values of the label files ``paths``.

    Of several, the one that finds the most classes in them; the first, where all of these find the
    same classes at every pixel. Raises ValueError, with what each encoding lacks, when none fits or
    several fit equally well.
    """
    faults, found_classes = {}, {}
    for encoding in class_set.encodings:
        label_format = LabelFormat(class_set, encoding)
        try:
            found = [np.unique(label_format.read(path)) for path in paths]
        except ValueError as error:
            faults[encoding] = str(error)
            continue
        train_ids = set(label_format.train_id_of[np.concatenate(found)].tolist()) - {IGNORE_INDEX}
        if train_ids:
            found_classes[encoding] = len(train_ids)
        else:
            faults[encoding] = f"no class: all pixels of the {len(paths)} labels are ignored"
    most = max(found_classes.values(), default=0)
    names = [encoding for encoding, count in found_classes.items() if count == most]
    fitting = [LabelFormat(class_set, encoding) for encoding in names]
    if len(names) == 1 or (most > 1 and _read_alike(fitting, paths)):
        return fitting[0]
    if names:
        raise ValueError(
            f"The labels of {where} fit {len(names)} encodings of {class_set.name}:"
            f" {', '.join(names)}. Say which one in a layout file: encoding = {names[0]!r}."
        )
    reasons = "; ".join(f"[encodings.{name}]: {text}" for name, text in faults.items())
    raise ValueError(
        f"The labels of {where} fit no encoding of the class set {class_set.name}. {reasons}"
    )


def _read_alike(formats: Sequence[LabelFormat], paths: Sequence[Path]) -> bool:
    """Whether all formats find the same class at every pixel of the label files."""
    first, *others = formats
    return all(
        np.array_equal(first.read_train_ids(path), other.read_train_ids(path))
        for path in paths
        for other in others
    )
