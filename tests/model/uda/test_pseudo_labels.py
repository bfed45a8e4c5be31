"""Laws of offline pseudo-labels."""

import copy

import pytest
import torch

from model.bisenet import BiSeNet
from model.losses.segmentation import segmentation_loss
from model.uda.pseudo_labels import PseudoLabelOptions
from tests.helpers.methods import RUN, build_method, make_batch
from tests.helpers.narrow import narrow_backbones


@narrow_backbones()
def test_few_pseudo_labels_weigh_little():
    """The target's loss is a mean over all pixels, those without a label included."""
    torch.manual_seed(0)
    source, target = torch.randn(2, 2, 3, 64, 64)
    label = torch.randint(0, 19, (2, 64, 64))
    model = BiSeNet().train()
    twin = copy.deepcopy(model)
    pseudo = torch.full((2, 64, 64), 255)
    pseudo[0, 0, :32] = 3
    method = build_method("pseudo-labels", model)
    losses = method.step(make_batch(source, label), make_batch(target, pseudo))
    twin.low_resolution(source)  # moves no weight; the passes are separate
    expected = segmentation_loss(twin.low_resolution(target), pseudo) * 32 / pseudo.numel()
    torch.testing.assert_close(losses["loss/pseudo_labels"], expected.detach())


def test_labels_are_needed():
    with pytest.raises(ValueError, match="needs --pseudo-labels ROOT"):
        PseudoLabelOptions().check(RUN)
