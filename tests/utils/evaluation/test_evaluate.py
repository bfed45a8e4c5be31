import torch

from dataset.segmentation import Sample
from model.inference.predictor import Predictor
from model.inference.tta import TTAView
from model.preprocessing import INPUT_CONVENTIONS
from tests.helpers.networks import trained_like_network
from utils.evaluation.evaluate import evaluate
from utils.evaluation.metrics import confusion_matrix

CPU = torch.device("cpu")
NORMALIZE = INPUT_CONVENTIONS["imagenet"]


def images(count: int = 2, size: tuple[int, int] = (64, 96)) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )


def test_prediction_is_the_argmax_of_the_logits():
    model = trained_like_network()
    with torch.inference_mode():
        expected = model(NORMALIZE(images())).logits.argmax(1)
    assert len(expected.unique()) > 3
    assert torch.equal(Predictor(model, NORMALIZE, CPU)(images()), expected.byte())


def test_one_unchanged_view_is_the_plain_prediction():
    model = trained_like_network()
    plain = Predictor(model, NORMALIZE, CPU)(images())
    assert torch.equal(
        Predictor(model, NORMALIZE, CPU, views=(TTAView(1.0, False),))(images()), plain
    )


def test_flip_testing_commutes_with_flipping():
    model = trained_like_network()
    views = (TTAView(1.0, False), TTAView(1.0, True))
    straight = Predictor(model, NORMALIZE, CPU, views=views)(images())
    mirrored = Predictor(model, NORMALIZE, CPU, views=views)(images().flip(2))
    assert torch.equal(mirrored.flip(2), straight)
    assert not torch.equal(straight, Predictor(model, NORMALIZE, CPU)(images()))


def test_parts_of_an_evaluation_sum_to_the_whole():
    """The parts sum to the whole evaluation; the network keeps its mode."""
    model = trained_like_network().train()
    label = torch.randint(0, 19, (2, 64, 96), dtype=torch.uint8)
    label[:, :3] = 255
    batches = [
        Sample(images()[i : i + 1], label[i : i + 1], torch.tensor([i]), torch.tensor([i]))
        for i in range(2)
    ]
    seen = []
    result = evaluate(
        Predictor(model, NORMALIZE, CPU),
        batches,
        19,
        on_batch=lambda batch, prediction, matrix: seen.append((prediction, matrix)),
    )
    assert model.training
    assert result.ignored == 2 * 3 * 96
    assert torch.equal(sum(matrix for _, matrix in seen), result.matrix)
    assert torch.equal(
        confusion_matrix(label, torch.cat([prediction for prediction, _ in seen])), result.matrix
    )
