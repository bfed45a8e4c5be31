"""BatchNorm folded into convolutions."""

import torch
from torch import nn

from model.inference.fold_batch_norm import fold_batch_norms, for_inference
from tests.helpers.networks import trained_like_network


def test_folding_keeps_the_function_and_the_original():
    """The logits are equal up to rounding; the original network is not changed."""
    model = trained_like_network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    image = torch.randn(2, 3, 65, 97)
    with torch.inference_mode():
        expected = model(image).logits
        folded = fold_batch_norms(model)
        found = folded(image).logits
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_batch_norm_without_convolution_stays():
    """Only a BatchNorm that directly follows a convolution is folded."""
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4))
    network(torch.randn(8, 3, 4, 4))
    image = torch.randn(2, 3, 4, 4)
    folded = fold_batch_norms(network)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in folded) == 2
    torch.testing.assert_close(folded(image), network.eval()(image))


def test_for_inference_has_one_precision_and_no_gradients():
    """All parameters have the dtype, none needs a gradient."""
    model = for_inference(trained_like_network(), torch.device("cpu"), torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in model.parameters())
