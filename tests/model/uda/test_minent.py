"""Laws of entropy minimization."""

import torch

from model.bisenet import BiSeNet
from tests.helpers.methods import build_method, make_batch
from tests.helpers.narrow import narrow_backbones


@narrow_backbones()
def test_a_step_lowers_the_entropy_of_the_target():
    """The entropy is between 0 and 1, and its gradient alone lowers it."""
    torch.manual_seed(0)
    source, target = torch.randn(2, 2, 3, 64, 64)
    model = BiSeNet().train()
    method = build_method("minent", model, lambda_entropy=1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ignored = torch.full((2, 64, 64), 255)

    def entropy():
        optimizer.zero_grad()
        return method.step(make_batch(source, ignored), make_batch(target))["loss/entropy"]

    first = entropy()
    assert 0 < first < 1
    optimizer.step()
    assert entropy() < first
