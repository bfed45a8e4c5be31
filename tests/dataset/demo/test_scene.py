"""Laws of the generated streets: seeds, sizes, labels, and the gap between the looks."""

import numpy as np
import pytest

from dataset.demo.scene import GAME, LOOKS, MIN_SIZE, street
from dataset.labels import (
    CLASS_NAMES,
    IGNORE_INDEX,
    LABEL_IDS,
    LAST_LABEL_ID,
    NUM_CLASSES,
    TRAIN_ID_OF,
)

SIZE = (96, 192)
COUNT = 20


def draw(look, index, size=SIZE, seed=0):
    return street(np.random.default_rng([seed, list(LOOKS).index(look.name), index]), look, size)


@pytest.fixture(scope="module")
def streets():
    """{look name: (images (N, H, W, 3), label_ids (N, H, W))} of COUNT streets each."""
    drawn = {look.name: [draw(look, index) for index in range(COUNT)] for look in LOOKS.values()}
    return {
        name: tuple(np.stack(arrays) for arrays in zip(*pairs, strict=True))
        for name, pairs in drawn.items()
    }


@pytest.mark.parametrize("look", LOOKS.values(), ids=list(LOOKS))
def test_a_seed_is_a_street(look):
    image, label_ids = draw(look, 3)
    again_image, again_label_ids = draw(look, 3)
    assert (image == again_image).all()
    assert (label_ids == again_label_ids).all()
    for other_image, _ in (draw(look, 4), draw(look, 3, seed=1)):
        assert (image != other_image).any()


@pytest.mark.parametrize("look", LOOKS.values(), ids=list(LOOKS))
@pytest.mark.parametrize("size", [MIN_SIZE, (97, 201), (120, 70), (33, 400)])
def test_any_size(look, size):
    image, label_ids = draw(look, 0, size)
    assert image.shape == (*size, 3)
    assert label_ids.shape == size
    assert image.dtype == label_ids.dtype == np.uint8
    assert image.std() > 10


@pytest.mark.parametrize("size", [(31, 64), (32, 63), (0, 0)])
def test_too_small_to_draw(size):
    with pytest.raises(ValueError, match=r"too small to draw.*at least 32x64.*larger size"):
        draw(GAME, 0, size)


@pytest.mark.parametrize("name", LOOKS)
def test_all_classes_occur(streets, name):
    counts = np.bincount(TRAIN_ID_OF[streets[name][1]].ravel(), minlength=256)
    assert [CLASS_NAMES[i] for i in range(NUM_CLASSES) if counts[i] < 20] == []
    assert 0 < counts[IGNORE_INDEX] < 0.2 * counts.sum()


def test_labels_are_label_ids(streets):
    used = {name: set(np.unique(label_ids).tolist()) for name, (_, label_ids) in streets.items()}
    static, rails, hood, plate = 4, 10, 1, LAST_LABEL_ID
    assert used["game"] == {*LABEL_IDS, static, rails, plate}
    assert used["camera"] == {*LABEL_IDS, static, rails, hood}


def _iou(predicted, truth):
    """(19,) IoU over the pixels that have a class."""
    known = truth != IGNORE_INDEX
    confusion = np.bincount(
        truth[known].astype(int) * NUM_CLASSES + predicted[known], minlength=NUM_CLASSES**2
    ).reshape(NUM_CLASSES, NUM_CLASSES)
    return np.diag(confusion) / np.maximum(
        1, confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    )


def _nearest(pixels, means):
    """The class whose mean color (19, 3) is nearest to each pixel (N, 3)."""
    return ((means**2).sum(1) - 2 * pixels @ means.T).argmin(1)


@pytest.mark.parametrize("name", LOOKS)
def test_no_class_is_a_color(streets, name):
    """Even fitted and tested on the same pictures, the nearest mean color finds next to nothing.

    Measured on seeds 0 to 4 of this fixture: mIoU 0.064-0.085 (game) and 0.036-0.051 (camera). The
    bound leaves room for a seed or a change of look that is worse than all of them. Only the sky,
    whose color helps in real photographs too, is found better than 0.25.
    """
    images, label_ids = streets[name]
    pixels, truth = images.reshape(-1, 3).astype(np.float32), TRAIN_ID_OF[label_ids].ravel()
    means = np.stack([pixels[truth == train_id].mean(0) for train_id in range(NUM_CLASSES)])
    iou = _iou(_nearest(pixels, means), truth)
    assert iou.mean() < 0.12
    assert [CLASS_NAMES[i] for i in np.flatnonzero(iou > 0.35)] in ([], ["sky"])


@pytest.mark.parametrize("name", LOOKS)
def test_colors_change_from_street_to_street(streets, name):
    for train_id in range(NUM_CLASSES):
        means = [
            image[inside].mean(0)
            for image, label_ids in zip(*streets[name], strict=True)
            if (inside := TRAIN_ID_OF[label_ids] == train_id).any()
        ]
        assert np.std(means, axis=0).max() > 10, CLASS_NAMES[train_id]


def test_the_gap_between_the_looks(streets):
    """The game is brighter, more colorful and sharper, with more sky; the camera is greenish.

    The camera shows more buildings.
    """
    game, camera = streets["game"], streets["camera"]

    def colorfulness(images):
        return np.ptp(images.astype(float), axis=-1).mean()

    def share(label_ids, name):
        return (TRAIN_ID_OF[label_ids] == CLASS_NAMES.index(name)).mean()

    assert game[0].mean() > 1.1 * camera[0].mean()
    assert colorfulness(game[0]) > 1.5 * colorfulness(camera[0])
    assert share(game[1], "sky") > 1.5 * share(camera[1], "sky")
    assert share(camera[1], "building") > share(game[1], "building")
    red, green, blue = camera[0].mean((0, 1, 2))
    assert green > red
    assert green > blue
