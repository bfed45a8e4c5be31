import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official
from cityscapesscripts.helpers.labels import labels as official_labels
from cityscapesscripts.helpers.labels import trainId2label

from dataset.cityscapes import cityscapes
from dataset.label_io import read_label
from dataset.labels import LABEL_ID_OF, TRAIN_ID_OF, class_subset
from tests.conftest import scene
from utils.evaluation.metrics import confusion_matrix, scores


def official_iou(pairs) -> list[float]:
    """Per-class IoU of the official script over (ground truth labelIds, predicted labelIds)
    pairs.
    """
    size = max(label.id for label in official_labels) + 1
    matrix = np.zeros((size, size), dtype=np.ulonglong)
    for truth, prediction in pairs:
        matrix += (
            np.bincount(
                truth.astype(np.int64).ravel() * size + prediction.ravel(), minlength=size**2
            )
            .reshape(size, size)
            .astype(np.ulonglong)
        )
    args = SimpleNamespace(evalLabels=[label.id for label in official_labels if label.id >= 0])
    return [
        float(official.getIouScoreForLabel(trainId2label[c].id, matrix, args)) for c in range(19)
    ]


def our_iou(pairs) -> tuple[float, ...]:
    return scores(
        sum(
            confusion_matrix(TRAIN_ID_OF[truth], TRAIN_ID_OF[prediction])
            for truth, prediction in pairs
        )
    ).iou


def random_prediction(truth, seed):
    """Right in most places, wrong in blobs, never void."""
    rng = np.random.default_rng(seed)
    train_ids = TRAIN_ID_OF[truth].copy()
    wrong = (rng.random(truth.shape) < 0.3) | (train_ids == 255)
    train_ids[wrong] = rng.integers(0, 19, wrong.sum())
    return LABEL_ID_OF[train_ids]


def test_iou_equals_the_official_package_on_random_maps():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        pairs = []
        for _ in range(3):
            truth = rng.integers(0, 34, (50, 70)).astype(np.uint8)
            pairs.append((truth, random_prediction(truth, seed)))
        np.testing.assert_allclose(our_iou(pairs), official_iou(pairs), rtol=0, atol=1e-9)


def test_iou_equals_the_official_package_on_real_labels(real_data):
    listing = cityscapes(real_data / "frames/cityscapes", "train")
    pairs = [
        (truth := read_label(listing[i].label), random_prediction(truth, i))
        for i in range(len(listing))
    ]
    np.testing.assert_allclose(our_iou(pairs), official_iou(pairs), rtol=0, atol=1e-9)


def test_rows_are_ground_truth():
    """Columns are predictions; ignored pixels are not counted."""
    matrix = confusion_matrix(
        torch.tensor([0, 0, 1, 255]), torch.tensor([0, 1, 1, 0]), num_classes=3
    )
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_the_three_accuracies_and_miou():
    found = scores(np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]]), ignored=4)
    assert found.pixel_accuracy == pytest.approx(9 / 12)
    assert found.pixel_accuracy_with_void == pytest.approx(9 / 16)
    assert found.mean_class_accuracy == pytest.approx((6 / 8 + 3 / 4) / 2)
    assert found.miou == pytest.approx((6 / 9 + 3 / 6) / 2)
    assert math.isnan(found.iou[2])
    assert found.averaged == 2


def test_an_absent_class_that_is_predicted_counts_as_zero():
    found = scores(np.array([[5, 1], [0, 0]]))
    assert found.iou == (5 / 6, 0.0)
    assert found.averaged == 2
    assert found.mean_class_accuracy == pytest.approx(5 / 6)


def test_a_subset_keeps_the_pixels_of_other_classes():
    matrix = np.zeros((19, 19))
    matrix[0, 0], matrix[13, 0], matrix[13, 13] = 8, 2, 10
    found = scores(matrix, classes=class_subset(["road", "car"]))
    assert found.miou == pytest.approx((8 / 10 + 10 / 12) / 2)
    assert scores(matrix, classes=class_subset(["road"])).miou == pytest.approx(8 / 10)


def test_a_score_over_a_set_is_no_mean_over_images():
    truth = [TRAIN_ID_OF[scene(seed, (40, 40))[1]] for seed in range(2)]
    prediction = [truth[0], np.zeros_like(truth[1])]
    together = scores(sum(confusion_matrix(t, p) for t, p in zip(truth, prediction, strict=True)))
    assert scores(confusion_matrix(np.stack(truth), np.stack(prediction))) == together


def test_nothing_valid_is_undefined_not_zero():
    found = scores(confusion_matrix(np.full((3, 3), 255), np.zeros((3, 3), int)), ignored=9)
    assert math.isnan(found.miou)
    assert found.averaged == 0
    assert found.pixel_accuracy_with_void == 0


def test_values_outside_the_classes_are_refused():
    """The error names the legal classes, or both numbers of pixels."""
    with pytest.raises(ValueError, match="outside 0-18"):
        confusion_matrix(np.array([30]), np.array([0]))
    with pytest.raises(ValueError, match="outside 0-18"):
        confusion_matrix(np.array([0]), np.array([19]))
    with pytest.raises(ValueError, match="same number of pixels"):
        confusion_matrix(np.zeros(3, int), np.zeros(4, int))
