"""The classes of Cityscapes: names, labelIds, trainIds and colors, as tables of 256 entries.

A *labelId* (0-34) is what the annotation PNGs of Cityscapes and GTA5 store. A *trainId* (0-18, 255
= ignored) is what the network learns and what every label tensor of this project holds.
"""

import numpy as np

IGNORE_INDEX = 255

# name, labelId, trainId, color (RGB)
_LABELS = (
    ("unlabeled", 0, 255, (0, 0, 0)),
    ("ego vehicle", 1, 255, (0, 0, 0)),
    ("rectification border", 2, 255, (0, 0, 0)),
    ("out of roi", 3, 255, (0, 0, 0)),
    ("static", 4, 255, (0, 0, 0)),
    ("dynamic", 5, 255, (111, 74, 0)),
    ("ground", 6, 255, (81, 0, 81)),
    ("road", 7, 0, (128, 64, 128)),
    ("sidewalk", 8, 1, (244, 35, 232)),
    ("parking", 9, 255, (250, 170, 160)),
    ("rail track", 10, 255, (230, 150, 140)),
    ("building", 11, 2, (70, 70, 70)),
    ("wall", 12, 3, (102, 102, 156)),
    ("fence", 13, 4, (190, 153, 153)),
    ("guard rail", 14, 255, (180, 165, 180)),
    ("bridge", 15, 255, (150, 100, 100)),
    ("tunnel", 16, 255, (150, 120, 90)),
    ("pole", 17, 5, (153, 153, 153)),
    ("polegroup", 18, 255, (153, 153, 153)),
    ("traffic light", 19, 6, (250, 170, 30)),
    ("traffic sign", 20, 7, (220, 220, 0)),
    ("vegetation", 21, 8, (107, 142, 35)),
    ("terrain", 22, 9, (152, 251, 152)),
    ("sky", 23, 10, (70, 130, 180)),
    ("person", 24, 11, (220, 20, 60)),
    ("rider", 25, 12, (255, 0, 0)),
    ("car", 26, 13, (0, 0, 142)),
    ("truck", 27, 14, (0, 0, 70)),
    ("bus", 28, 15, (0, 60, 100)),
    ("caravan", 29, 255, (0, 0, 90)),
    ("trailer", 30, 255, (0, 0, 110)),
    ("train", 31, 16, (0, 80, 100)),
    ("motorcycle", 32, 17, (0, 0, 230)),
    ("bicycle", 33, 18, (119, 11, 32)),
    ("license plate", 34, 255, (0, 0, 142)),
)
_CLASSES = sorted(
    (train_id, name, label_id, color)
    for name, label_id, train_id, color in _LABELS
    if train_id != IGNORE_INDEX
)

CLASS_NAMES = tuple(name for _, name, _, _ in _CLASSES)
"""The 19 class names; the position in the tuple is the trainId."""

NUM_CLASSES = len(CLASS_NAMES)

LABEL_IDS = tuple(label_id for _, _, label_id, _ in _CLASSES)
"""The labelId of each trainId."""

LAST_LABEL_ID = max(label_id for _, label_id, _, _ in _LABELS)
"""34, license plate, which only GTA5 uses. Greater values, other than 255, are no labelIds."""


def _table(pairs, default: int) -> np.ndarray:
    table = np.full(256, default, np.uint8)
    for key, value in pairs:
        table[key] = value
    table.setflags(write=False)
    return table


TRAIN_ID_OF = _table(
    ((label_id, train_id) for train_id, label_id in enumerate(LABEL_IDS)), default=IGNORE_INDEX
)
"""(256,) uint8: labelId -> trainId; 255 outside the 19 classes. Use: TRAIN_ID_OF[label_ids]."""

LABEL_ID_OF = _table(enumerate(LABEL_IDS), default=0)
"""(256,) uint8: trainId -> labelId; 255 -> 0 (unlabeled)."""

# SYNTHIA's id of each class that Cityscapes has too; from the table in the README of
# SYNTHIA-RAND-CITYSCAPES.
_SYNTHIA_IDS = {
    "sky": 1,
    "building": 2,
    "road": 3,
    "sidewalk": 4,
    "fence": 5,
    "vegetation": 6,
    "pole": 7,
    "car": 8,
    "traffic sign": 9,
    "person": 10,
    "bicycle": 11,
    "motorcycle": 12,
    "parking": 13,
    "traffic light": 15,
    "terrain": 16,
    "rider": 17,
    "truck": 18,
    "bus": 19,
    "train": 20,
    "wall": 21,
}
LAST_SYNTHIA_ID = 22
"""Lane marking."""

LABEL_ID_OF_SYNTHIA = _table(
    ((_SYNTHIA_IDS[name], label_id) for name, label_id, _, _ in _LABELS if name in _SYNTHIA_IDS),
    default=0,
)
"""(256,) uint8: SYNTHIA's id -> labelId; 0 (ignored) for void, road work and lane marking.

Lane markings lie on the road, and Cityscapes labels them as road. Published methods ignore them all
the same (CBST, ADVENT, DAFormer and SAC leave 22 out of their tables); so does this project, to be
comparable.
"""

COLORS = np.zeros((256, 3), np.uint8)
"""(256, 3) uint8 RGB: Cityscapes color of each trainId; 255 is black. Use: COLORS[train_ids]."""
COLORS[:NUM_CLASSES] = [color for _, _, _, color in _CLASSES]
COLORS.setflags(write=False)

LABEL_COLORS = np.zeros((256, 3), np.uint8)
"""(256, 3) uint8 RGB: the color of each labelId, the palette of GTA5's label PNGs."""
LABEL_COLORS[[label_id for _, label_id, _, _ in _LABELS]] = [color for _, _, _, color in _LABELS]
LABEL_COLORS.setflags(write=False)

CLASS_SUBSETS = {
    "19": CLASS_NAMES,
    "synthia16": tuple(name for name in CLASS_NAMES if name not in ("terrain", "truck", "train")),
    "synthia13": tuple(
        name
        for name in CLASS_NAMES
        if name not in ("wall", "fence", "pole", "terrain", "truck", "train")
    ),
    "carla13": tuple(
        name
        for name in CLASS_NAMES
        if name not in ("rider", "truck", "bus", "train", "motorcycle", "bicycle")
    ),
}
"""Subsets for mean IoUs: all 19 classes, the 16 and 13 of SYNTHIA, the 13 of CARLA."""


def class_subset(words: list[str]) -> tuple[int, ...]:
    """The trainIds that ``words`` name: one key of CLASS_SUBSETS, or class names.

    Raises ValueError for an unknown name.
    """
    names = CLASS_SUBSETS[words[0]] if len(words) == 1 and words[0] in CLASS_SUBSETS else words
    unknown = [name for name in names if name not in CLASS_NAMES]
    if unknown:
        raise ValueError(
            f"Unknown class {unknown[0]!r}. Give one of {', '.join(CLASS_SUBSETS)}, "
            f"or names out of: {', '.join(CLASS_NAMES)} (quote names with a space)."
        )
    return tuple(sorted(CLASS_NAMES.index(name) for name in set(names)))


def color_keys(colors: np.ndarray) -> np.ndarray:
    """RGB colors (..., 3) uint8 -> (...) int32, one integer 0xRRGGBB a color."""
    red, green, blue = np.moveaxis(colors, -1, 0).astype(np.int32)
    return red << 16 | green << 8 | blue


# Two pairs share a color, pole with polegroup and car with license plate: the first, the trained
# class, wins, since it is by far the larger.
_LABEL_ID_OF_COLOR = {}
for _name, _label_id, _train_id, _color in _LABELS:
    _key = int(color_keys(np.array(_color, np.uint8)))
    if _key not in _LABEL_ID_OF_COLOR:
        _LABEL_ID_OF_COLOR[_key] = _label_id


def label_ids_of_colors(colors: np.ndarray) -> np.ndarray:
    """Converts a label in Cityscapes colors, (H, W, 3) uint8 RGB, to labelIds, (H, W) uint8.

    Raises ValueError for a color of no class.
    """
    keys, inverse = np.unique(color_keys(colors), return_inverse=True)
    unknown = [key for key in keys.tolist() if key not in _LABEL_ID_OF_COLOR]
    if unknown:
        red, green, blue = unknown[0] >> 16, unknown[0] >> 8 & 255, unknown[0] & 255
        raise ValueError(
            f"{len(unknown)} colors that no Cityscapes class has, the first RGB ({red}, {green},"
            f" {blue})"
        )
    label_ids = np.array([_LABEL_ID_OF_COLOR[key] for key in keys.tolist()], np.uint8)
    return label_ids[inverse].reshape(colors.shape[:2])


_LOW_LABEL_IDS = {label_id for label_id in LABEL_IDS if label_id < NUM_CLASSES}
"""Classes whose labelId is also a trainId: road, sidewalk, building, wall, fence, pole."""


def looks_like_train_ids(values: set[int]) -> bool:
    """Whether ``values``, the pixel values of several label files together, can only be trainIds.

    LabelId annotations of a few street scenes hold an id above 18 (vegetation 21, sky 23, car 26);
    trainIds never do. Labels of few classes are legal: _LOW_LABEL_IDS, with either 0 or 255 for
    what is ignored. TrainIds hold 255, and 0 for road.
    """
    ids = values - {IGNORE_INDEX}
    if not ids or ids == {0} or not ids <= {*range(NUM_CLASSES)}:
        return False
    return not ids <= {0, *_LOW_LABEL_IDS} or {0, IGNORE_INDEX} <= values


_OTHER_IDS = {1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18}
"""LabelIds up to 25 of no class."""
_LAST_IDD_LEVEL3_ID = 25
_MAIN_CLASSES = [0, 2, 8, 10, 13]
"""TrainIds that fill most of every street scene: road, building, vegetation, sky, car."""


def looks_like_idd_ids(values: set[int], pixels: np.ndarray | None = None) -> bool:
    """Whether several label files look like IDD's ids (helpers/anue_labels.py of AutoNUE).

    ``values``: those of all pixels. level3Ids are 0-25 and 255, most of which are classes there;
    labelIds with 255 (IDD's csIds) have the car's 26, or few ids of no class. ``pixels`` (20,):
    of each trainId, then without class; in files of many classes the five main ones would be rare,
    and much would have no class: 0 is IDD's road. None: not known.
    """
    ids = values - {IGNORE_INDEX}
    if {0, IGNORE_INDEX} <= values and max(ids) <= _LAST_IDD_LEVEL3_ID:
        return len(ids & _OTHER_IDS) >= 4
    if pixels is None or len(ids) < 12 or not pixels[:-1].sum():
        return False
    main, without_class = pixels[_MAIN_CLASSES].sum() / pixels[:-1].sum(), pixels[-1] / pixels.sum()
    return bool(main < 0.15 and without_class > 0.3)


def label_ids_of_palette(
    label: np.ndarray, palette: list[tuple[int, int, int]]
) -> np.ndarray | None:
    """LabelIds of palette indices (H, W) whose palette has Cityscapes' colors at other places.

    None when the indices are labelIds themselves. Raises ValueError when the palette contradicts
    the indices, but not all of its colors are of Cityscapes.
    """
    colors = np.zeros((256, 3), np.uint8)
    colors[: len(palette)] = palette
    keys = color_keys(colors)
    is_known = np.isin(keys, list(_LABEL_ID_OF_COLOR)) & (keys != 0)  # black says nothing
    is_wrong = is_known & (keys != color_keys(LABEL_COLORS))
    if not is_wrong.any():
        return None
    used = np.bincount(label.ravel(), minlength=256) > 0
    wrong, named = (is_wrong & used).sum(), (used & (keys != 0)).sum()
    if 2 * wrong <= named:
        return None
    if not (is_known | (keys == 0))[used].all():
        index = int(np.flatnonzero(is_wrong & used)[0])
        raise ValueError(
            f"a palette that contradicts its indices: index {index} has the color of labelId"
            f" {_LABEL_ID_OF_COLOR[int(keys[index])]}"
        )
    table = np.array([_LABEL_ID_OF_COLOR.get(int(key), 0) for key in keys], np.uint8)
    return table[label]
