import pytest

from utils.evaluation.comparability import score_warnings

CHECKPOINT = {"name": "net", "seen_images": ["aachen/a", "b"]}


@pytest.mark.parametrize(
    ("checkpoint", "names", "tta", "message"),
    [
        ({}, ["aachen/a", "lindau/b", "lindau/c"], None, "adapted on 2 of the 3 images"),
        ({"chosen_with_labels": True}, ["c"], None, "was chosen by its score"),
        ({}, ["c"], "flip", "net (flip) was scored with test-time augmentation"),
    ],
)
def test_each_reason_is_a_warning(checkpoint, names, tta, message):
    """Images are the same with and without the folder of their city."""
    (warning,) = score_warnings(CHECKPOINT | checkpoint, "best.pt", names, tta)
    assert message in warning


def test_a_comparable_score_has_no_warning():
    assert score_warnings(CHECKPOINT, "last.pt", ["c"], None) == []
