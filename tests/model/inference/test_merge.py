"""Laws of predictions in merged classes."""

import pytest
import torch

from model.inference.merge import MergedPredictor
from model.inference.predictor import Predictor
from model.inference.tiling import in_tiles
from model.inference.tta import TTA_PRESETS
from model.preprocessing import INPUT_CONVENTIONS
from tests.helpers.networks import trained_like_network

CPU = torch.device("cpu")


class _FixedScores:
    """A predictor that has the same logits for every pixel."""

    def __init__(self, logits: list[float]):
        self.logits, self.views, self.device = torch.tensor(logits), (), CPU

    def class_scores(self, images):
        shape = (len(images), len(self.logits), *images.shape[1:3])
        return self.logits[None, :, None, None].expand(shape)


def test_probabilities_are_summed_before_the_argmax():
    """Three classes of 0.2 make a merged class of 0.6, that wins over the likeliest class, 0.4.

    To merge the predicted class afterwards would give the other answer.
    """
    probabilities = [0.4, 0.2, 0.2, 0.2]
    predictor = _FixedScores(torch.tensor(probabilities).log().tolist())
    matrix = torch.tensor([[1.0, 0], [0, 1], [0, 1], [0, 1]])
    merged = MergedPredictor(predictor, matrix)
    images = torch.zeros(1, 2, 3, 3, dtype=torch.uint8)
    prediction, own = merged.both(images)
    assert (own == 0).all()  # merged afterwards: 0
    assert (prediction == 1).all()
    assert torch.equal(prediction, merged(images))
    torch.testing.assert_close(merged.class_scores(images)[0, :, 0, 0], torch.tensor([0.4, 0.6]))


def test_large_logits_are_not_summed():
    """Sums of logits, or of their maxima, would choose another class than probabilities do."""
    merged = MergedPredictor(
        _FixedScores([9.0, 8.0, 8.0]), torch.tensor([[1.0, 0], [0, 1], [0, 1]])
    )
    images = torch.zeros(1, 1, 1, 3, dtype=torch.uint8)
    expected = torch.tensor([9.0, 8.0, 8.0]).softmax(0)
    scores = merged.class_scores(images)[0, :, 0, 0]
    torch.testing.assert_close(scores, torch.stack([expected[0], expected[1:].sum()]))
    assert merged(images).item() == 0


@pytest.mark.parametrize("views", [(), TTA_PRESETS["flip"]], ids=["once", "flip"])
def test_merged_classes_of_a_network(views):
    """With and without test-time augmentation: sums of the probabilities of the predictor."""
    network = trained_like_network()
    predictor = Predictor(network, INPUT_CONVENTIONS["imagenet"], CPU, views=views)
    matrix = torch.zeros(19, 5)
    matrix[torch.arange(18), torch.arange(18) % 5] = 1  # the last class belongs to none
    merged = MergedPredictor(predictor, matrix)
    images = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    scores = predictor.class_scores(images)
    probabilities = scores if views else scores.softmax(1)
    expected = torch.stack([probabilities[:, k:18:5].sum(1) for k in range(5)], 1)
    torch.testing.assert_close(merged.class_scores(images), expected)
    prediction, own = merged.both(images)
    assert torch.equal(prediction, expected.argmax(1).to(torch.uint8))
    assert torch.equal(own, predictor(images))
    after = torch.where(own < 18, own % 5, 9)
    assert (after != prediction).any(), "the network is too sure to tell the two orders apart"


def test_merged_classes_in_tiles():
    """A merged predictor is what tiling wraps; an image of one tile has the same prediction."""
    predictor = Predictor(trained_like_network(), INPUT_CONVENTIONS["imagenet"], CPU)
    matrix = torch.zeros(19, 4)
    matrix[torch.arange(19), torch.arange(19) % 4] = 1
    merged = MergedPredictor(predictor, matrix)
    image = torch.randint(0, 256, (64, 96, 3), dtype=torch.uint8).numpy()

    def segment(part):
        return merged(torch.from_numpy(part.copy())[None])[0].numpy()

    assert (in_tiles(segment, 288)(image) == segment(image)).all()


@pytest.mark.parametrize("matrix", [[[1.0, 0], [1, 0]], [[1.0, 1], [0, 1]]])
def test_a_matrix_that_is_no_merge_is_refused(matrix):
    """A merged class without a class; a class in two merged ones."""
    with pytest.raises(ValueError, match="at least one class"):
        MergedPredictor(_FixedScores([0.0, 0.0]), torch.tensor(matrix))
