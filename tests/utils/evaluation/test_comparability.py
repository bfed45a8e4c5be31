import pytest

from utils.evaluation.comparability import score_warnings, seen_images

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


@pytest.mark.parametrize(
    "changed", ["leftImg8bit_foggy_beta_0.02", "leftImg8bit_rain_alpha_0.01_pattern_1"]
)
def test_fog_and_rain_of_a_scene_are_the_scene(changed):
    """Whichever was seen, and whichever is scored; another scene is none."""
    clear, other = (f"cityscapes::lindau/lindau_000001_{n}_leftImg8bit" for n in ("19", "20"))
    weather = clear.replace("leftImg8bit", changed)
    assert seen_images([clear], [weather]) == seen_images([weather], [clear]) == 1
    assert seen_images([other], [weather]) == 0


@pytest.mark.parametrize(
    ("recorded", "scored", "expected"),
    [
        ("drives::one/0001", "drives::two/0001", 0),
        ("drives::one/0001", "drives::one/0001", 1),
        ("drives::one/0001", "drives::0001", 1),  # named one by one
        ("drives::day/one/0001", "drives::one/0001", 1),
        ("one/0001", "drives::two/0001", 1),  # a copy in another folder cannot be excluded
        ("one/0001", "two/0001", 1),
        ("other::one/0001", "drives::one/0001", 0),
    ],
)
def test_folders_tell_images_of_one_data_set_apart(recorded, scored, expected):
    assert seen_images([recorded], [scored]) == expected
    assert seen_images([scored], [recorded]) == expected
