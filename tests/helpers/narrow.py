"""Networks of few channels, for tests of what goes round a network and not of the network itself.

A step, a checkpoint (96 MB with its optimizer) and a new network cost a tenth of the real ones.
"""

import contextlib
from collections.abc import Callable, Iterator

import pytest
import torchvision
from torchvision.models.resnet import BasicBlock, Bottleneck

REAL = {name: getattr(torchvision.models, name) for name in ("resnet18", "resnet101")}

SHARE = 8
"""The stages of a narrow ResNet have an eighth of the channels, in one block each."""


class NarrowResNet(torchvision.models.ResNet):
    """torchvision's ResNet with narrow stages; the names of its parameters are the same."""

    def __init__(self, block: type[BasicBlock] | type[Bottleneck]):
        super().__init__(block, [1, 1, 1, 1], num_classes=1)
        self.fc.in_features //= SHARE

    def _make_layer(self, block, planes, *arguments, **options):
        return super()._make_layer(block, planes // SHARE, *arguments, **options)


def narrow_resnet18(weights: None) -> NarrowResNet:
    """Stands in for torchvision.models.resnet18."""
    return NarrowResNet(BasicBlock)


def narrow_resnet101(weights: None) -> NarrowResNet:
    """Stands in for torchvision.models.resnet101."""
    return NarrowResNet(Bottleneck)


def are_narrow() -> bool:
    """Whether backbones that are built now are narrow."""
    return torchvision.models.resnet18 is narrow_resnet18


def narrow_backbones() -> contextlib.AbstractContextManager[None]:
    """Within it every BiSeNet of this process has a narrow backbone, also one that is loaded.

    Decorates a test, too.
    """
    return _backbones({"resnet18": narrow_resnet18, "resnet101": narrow_resnet101})


def real_backbones() -> contextlib.AbstractContextManager[None]:
    """The same with the real backbones: for a test among others with narrow ones."""
    return _backbones(REAL)


@contextlib.contextmanager
def _backbones(builders: dict[str, Callable[..., torchvision.models.ResNet]]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, builder in builders.items():
            patch.setattr(torchvision.models, name, builder)
        yield
