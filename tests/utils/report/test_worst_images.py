import numpy as np

from utils.report import worst_images as module
from utils.report.pictures import confusion_picture
from utils.report.worst_images import ImageScore, draw_images, worst_images

COLORS = np.arange(256 * 3, dtype=np.uint8).reshape(256, 3)


def image_score(miou: float, index: int) -> ImageScore:
    truth = np.zeros((4, 8), np.uint8)
    truth[:2] = 255
    prediction = np.full((4, 8), 1, np.uint8)
    image = np.full((4, 8, 3), 90, np.uint8)
    return ImageScore(miou, index, f"image {index}", image, truth, prediction)


def test_the_lowest_scores_come_first():
    """Of equal images the first in the data set comes first, in whatever order they arrive."""
    images = [image_score(0.5, 3), image_score(0.2, 2), image_score(0.5, 1), image_score(0.9, 0)]
    for order in (images, images[::-1]):
        assert [image.index for image in worst_images(order, 3)] == [2, 1, 3]


def test_ignored_pixels_are_no_mistakes():
    """The last column shows the prediction where it is wrong, and else a gray image."""
    picture = draw_images([image_score(0.1, 0)], ["a", "b"], COLORS, ignore_index=255)
    column = picture[:, 3 * (512 + 6) : 3 * (512 + 6) + 512]
    wrong = (column == COLORS[1]).all(2)
    gray = (column == int(90 * 0.3 + 170)).all(2)
    assert wrong.sum() == gray.sum() == 512 * 128


def test_the_share_of_mistakes_is_of_the_labelled_pixels(monkeypatch):
    """Half of the image is ignored, and all of the rest is wrong: 100 %, not 50."""
    titles = []
    grid = module.image_grid
    monkeypatch.setattr(module, "image_grid", lambda *args: titles.extend(args[2]) or grid(*args))
    draw_images([image_score(0.1, 0)], ["a", "b"], COLORS, ignore_index=255)
    assert titles == ["image 0: mean IoU 10.00 %, 100.00 % of labelled pixels wrong"]


def test_a_matrix_of_two_classes_has_room_for_its_title():
    """The title ends within the picture, whatever the number of classes is."""
    short, long = (
        confusion_picture(np.eye(2), ["a", "b"], title) for title in ("a", "a network " * 9)
    )
    for picture in (short, long):
        assert (picture[:, -20:] == 255).all()
    assert long.shape[1] > short.shape[1] > 400
