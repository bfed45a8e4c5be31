import numpy as np
import pytest
from cityscapesscripts.helpers.labels import labels as official

from dataset.labels import (
    CLASS_NAMES,
    CLASS_SUBSETS,
    COLORS,
    LABEL_ID_OF,
    TRAIN_ID_OF,
    class_subset,
    label_ids_of_colors,
    looks_like_train_ids,
)
from scripts.baselines import TRAIN_ID


def test_table_is_the_official_one():
    for label in official:
        if label.id >= 0:
            assert TRAIN_ID_OF[label.id] == (label.trainId if 0 <= label.trainId < 19 else 255), (
                label.name
            )
        if 0 <= label.trainId < 19:
            assert CLASS_NAMES[label.trainId] == label.name
            assert tuple(COLORS[label.trainId]) == label.color
            assert LABEL_ID_OF[label.trainId] == label.id


def test_table_is_total():
    assert (TRAIN_ID_OF == TRAIN_ID).all()
    assert TRAIN_ID_OF[34] == TRAIN_ID_OF[255] == 255  # licence plate, ignored
    assert TRAIN_ID_OF[np.int64(-1) & 255] == 255
    assert LABEL_ID_OF[255] == 0


def test_tables_are_inverse():
    train_ids = np.arange(19)
    assert (TRAIN_ID_OF[LABEL_ID_OF[train_ids]] == train_ids).all()


def test_tables_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        TRAIN_ID_OF[0] = 1


def test_colors_become_label_ids():
    for label in official:
        if label.id >= 0 and label.name not in ("polegroup", "license plate"):
            found = label_ids_of_colors(np.full((2, 3, 3), label.color, np.uint8))
            assert TRAIN_ID_OF[found[0, 0]] == TRAIN_ID_OF[label.id], label.name
    with pytest.raises(ValueError, match=r"RGB \(1, 2, 3\)"):
        label_ids_of_colors(np.full((2, 2, 3), (1, 2, 3), np.uint8))


def test_subsets():
    assert [len(CLASS_SUBSETS[name]) for name in ("19", "synthia16", "synthia13", "carla13")] == [
        19,
        16,
        13,
        13,
    ]
    assert class_subset(["19"]) == tuple(range(19))
    assert class_subset(["car", "road"]) == (0, 13)
    with pytest.raises(ValueError, match="Unknown class 'tank'"):
        class_subset(["tank"])


def test_train_ids_are_told_from_label_ids():
    assert looks_like_train_ids({0, 1, 2, 8, 10, 13, 255})
    assert not looks_like_train_ids({7, 8, 11, 21, 23, 26})
    assert not looks_like_train_ids({0})
