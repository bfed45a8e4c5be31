import torch

from dataset.segmentation import Sample
from model.normalization import INPUTS
from tests.networks import lively_network
from utils.evaluation import evaluate, predict
from utils.metrics import confusion_matrix
from utils.precision import autocast_for
from utils.views import View

CPU = torch.device("cpu")
PLAIN = autocast_for(CPU, "fp32")
NORMALIZE = INPUTS["imagenet"]


def images(count: int = 2, size: tuple[int, int] = (64, 96)) -> torch.Tensor:
    return torch.randint(0, 256, (count, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def test_prediction_is_the_argmax_of_the_logits():
    model = lively_network()
    with torch.inference_mode():
        expected = model(NORMALIZE(images())).logits.argmax(1)
    assert len(expected.unique()) > 3
    assert torch.equal(predict(model, images(), NORMALIZE, CPU, PLAIN), expected.byte())


def test_one_unchanged_view_is_the_plain_prediction():
    model = lively_network()
    plain = predict(model, images(), NORMALIZE, CPU, PLAIN)
    assert torch.equal(predict(model, images(), NORMALIZE, CPU, PLAIN, (View(1.0, False),)), plain)


def test_flip_testing_commutes_with_flipping():
    model = lively_network()
    views = (View(1.0, False), View(1.0, True))
    straight = predict(model, images(), NORMALIZE, CPU, PLAIN, views)
    mirrored = predict(model, images().flip(2), NORMALIZE, CPU, PLAIN, views)
    assert torch.equal(mirrored.flip(2), straight)
    assert not torch.equal(straight, predict(model, images(), NORMALIZE, CPU, PLAIN))


def test_the_parts_of_an_evaluation_sum_to_the_whole_and_the_mode_is_kept():
    model = lively_network().train()
    label = torch.randint(0, 19, (2, 64, 96), dtype=torch.uint8)
    label[:, :3] = 255
    batches = [Sample(images()[i : i + 1], label[i : i + 1], torch.tensor([i]), torch.tensor([i])) for i in range(2)]
    seen = []
    result = evaluate(model, batches, NORMALIZE, 19, CPU, PLAIN, each=lambda batch, prediction, matrix: seen.append((prediction, matrix)))
    assert model.training
    assert result.ignored == 2 * 3 * 96
    assert torch.equal(sum(matrix for _, matrix in seen), result.matrix)
    assert torch.equal(confusion_matrix(label, torch.cat([prediction for prediction, _ in seen])), result.matrix)
