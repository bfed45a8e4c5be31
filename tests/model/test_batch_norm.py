"""Kinds of BatchNorm: local, sync, frozen."""

import copy

import pytest
import torch

from model.batch_norm import with_batch_norm
from model.bisenet import BiSeNet

CPU = torch.device("cpu")


def statistics(model):
    return {name: value.clone() for name, value in model.named_buffers()}


def test_frozen_statistics_are_used_and_not_updated():
    """Weights still have gradients, also after a validation in between."""
    torch.manual_seed(0)
    model = BiSeNet().train()
    for _ in range(2):
        model(torch.randn(2, 3, 64, 64) + 1)  # statistics that differ from the initial ones
    model = with_batch_norm(model, "frozen", CPU)
    before = statistics(model)
    image = torch.randn(2, 3, 64, 64)
    for mode in (True, False, True):  # as validation does
        model.train(mode)
    output = model(image)
    assert len(output.aux) == 2  # in training mode
    output.logits.mean().backward()
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert model.context_path.arm16.bn.weight.grad.abs().max() > 0
    torch.testing.assert_close(output.logits, copy.deepcopy(model).eval()(image).logits)


def test_frozen_takes_a_batch_of_one():
    """local needs at least two images."""
    image = torch.randn(1, 3, 64, 64)
    assert with_batch_norm(BiSeNet().train(), "frozen", CPU)(image).logits.shape == (1, 19, 64, 64)
    with pytest.raises(ValueError, match="at least 2 images"):
        with_batch_norm(BiSeNet().train(), "local", CPU)(image)


def test_local_updates_its_statistics():
    """All buffers change in a training step."""
    model = with_batch_norm(BiSeNet().train(), "local", CPU)
    before = statistics(model)
    model(torch.randn(2, 3, 64, 64))
    assert not any(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_sync_needs_cuda():
    """The error names the other kinds."""
    with pytest.raises(ValueError, match="--bn sync needs CUDA"):
        with_batch_norm(BiSeNet(), "sync", CPU)


def test_sync_keeps_the_names_of_the_state():
    """Checkpoints do not depend on the kind."""
    model = BiSeNet()
    synchronized = with_batch_norm(copy.deepcopy(model), "sync", torch.device("cuda"))
    assert synchronized.state_dict().keys() == model.state_dict().keys()
