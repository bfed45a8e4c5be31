"""BiSeNet (Yu et al., ECCV 2018) as in "Real-time Domain Adaptation in Semantic Segmentation".

A shallow spatial path keeps detail (stride 8); a context path with a backbone (ResNet in the paper)
sees context (strides 16 and 32). They are fused at stride 8. Sizes are (height, width); N is the
batch size, H x W the input, c16 | c32 the widths of the backbone's features (resnet18: 256 | 512).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.backbone import build_backbone
from model.fused_upsampling import resize


class SegmentationOutput(NamedTuple):
    """Logits of the network, each (N, num_classes, h, w).

    (h, w) is the size of the input, or (H/8, W/8) from ``low_resolution``. ``aux``: two auxiliary
    logits of the same size, from features of stride 16 and of stride 32; empty in evaluation.
    """

    logits: Tensor
    aux: tuple[Tensor, ...]


class ConvBNReLU(nn.Sequential):
    """3x3 convolution without bias -> BatchNorm -> ReLU."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )


class SpatialPath(nn.Sequential):
    """Three convolutions of stride 2: the image (N, 3, H, W) -> (N, 256, H/8, W/8)."""

    def __init__(self):
        super().__init__(ConvBNReLU(3, 64, 2), ConvBNReLU(64, 128, 2), ConvBNReLU(128, 256, 2))


class AttentionRefinementModule(nn.Module):
    """ARM: multiplies each channel by a sigmoid of the global context."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, feat: Tensor) -> Tensor:
        attention = feat.mean((2, 3), keepdim=True)  # (N, C, 1, 1)
        attention = self.bn(self.conv(attention)).sigmoid()
        return feat * attention  # (N, C, H, W)


class ContextPath(nn.Module):
    """Backbone with an ARM on its features of strides 16 and 32.

    (N, 3, H, W) -> context16 (N, c16, H/16, W/16) and context32 (N, c32, H/32, W/32).
    ``context32 = ARM(feat32) * tail``, where tail is the global average of feat32; Fig. 1 of the
    paper does not say how the two are combined.
    """

    def __init__(self, backbone: str, backbone_weights: str | None):
        super().__init__()
        self.backbone = build_backbone(backbone, backbone_weights)
        self.arm16 = AttentionRefinementModule(self.backbone.channels16)
        self.arm32 = AttentionRefinementModule(self.backbone.channels32)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        feat16, feat32 = self.backbone(image)
        tail = feat32.mean((2, 3), keepdim=True)  # (N, c32, 1, 1)
        return self.arm16(feat16), self.arm32(feat32) * tail


class FeatureFusionModule(nn.Module):
    """FFM: fuses the concatenated paths (N, C, h, w) into (N, F, h, w), with channel attention."""

    def __init__(self, channels: int, fused: int):
        super().__init__()
        self.fuse = ConvBNReLU(channels, fused, stride=1)
        self.conv1 = nn.Conv2d(fused, fused, 1)
        self.conv2 = nn.Conv2d(fused, fused, 1)

    def forward(self, paths: Tensor) -> Tensor:
        fused = self.fuse(paths)  # (N, F, h, w)
        weight = fused.mean((2, 3), keepdim=True)  # (N, F, 1, 1)
        weight = self.conv2(self.conv1(weight).relu()).sigmoid()
        return fused + fused * weight


class BiSeNet(nn.Module):
    """Segmentation network: images (N, 3, H, W) -> SegmentationOutput.

    H and W are at least 32 and otherwise free; images are normalized (model/preprocessing.py). In
    training N is at least 2, because the ARM normalizes one value per image and channel, unless
    BatchNorm is frozen or synchronized (model/batch_norm.py).

    The 1x1 heads run before their upsampling: a 1x1 convolution commutes with bilinear
    interpolation, so the function is that of the reference implementation, 64 times cheaper.

    Args:
        num_classes: channels of the logits.
        backbone: a name of model.backbone.BACKBONES, such as "resnet18" (real time).
        backbone_weights: None (random), "imagenet" (torchvision's, downloaded once), or a file
            with a torchvision state dict.
        fusion_channels: width F of the fused paths; None: ``num_classes``, as in the reference
            implementation. The original BiSeNet has 256.
    """

    def __init__(
        self,
        num_classes: int = 19,
        backbone: str = "resnet18",
        backbone_weights: str | None = None,
        fusion_channels: int | None = None,
    ):
        super().__init__()
        self.frozen_batch_norm = False
        self.architecture = {"num_classes": num_classes, "backbone": backbone} | (
            {"fusion_channels": fusion_channels} if fusion_channels else {}
        )
        self.spatial_path = SpatialPath()
        self.context_path = ContextPath(backbone, backbone_weights)
        c16, c32 = self.context_path.backbone.channels16, self.context_path.backbone.channels32
        fused = fusion_channels or num_classes
        self.fusion = FeatureFusionModule(256 + c16 + c32, fused)
        self.head = nn.Conv2d(fused, num_classes, 1)
        self.aux16 = nn.Conv2d(c16, num_classes, 1)
        self.aux32 = nn.Conv2d(c32, num_classes, 1)
        for name, module in self.named_modules():
            if not name.startswith("context_path.backbone"):
                _kaiming(module)

    def train(self, mode: bool = True) -> "BiSeNet":
        """Like ``nn.Module.train``, but frozen BatchNorm layers stay in evaluation mode."""
        super().train(mode)
        if self.frozen_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, image: Tensor, with_aux: bool | None = None) -> SegmentationOutput:
        """Logits at the size of ``image``.

        ``with_aux``: compute the auxiliary logits; default: in training only.
        """
        output, size = self.low_resolution(image, with_aux), image.shape[-2:]
        return SegmentationOutput(
            resize(output.logits, size), tuple(resize(aux, size) for aux in output.aux)
        )

    def low_resolution(self, image: Tensor, with_aux: bool | None = None) -> SegmentationOutput:
        """Logits before the last upsampling: (N, num_classes, H/8, W/8), sides rounded up.

        One bilinear ``resize`` brings all of them to the size of the input; losses and evaluation
        can do it at less cost.
        """
        self._check(image)
        spatial = self.spatial_path(image)  # (N, 256, H/8, W/8)
        context16, context32 = self.context_path(image)
        size8 = spatial.shape[-2:]
        context16_up, context32_up = resize(context16, size8), resize(context32, size8)
        paths = torch.cat([spatial, context16_up, context32_up], 1)  # (N, 256+c16+c32, H/8, W/8)
        logits = self.head(self.fusion(paths))  # (N, num_classes, H/8, W/8)
        if not (self.training if with_aux is None else with_aux):
            return SegmentationOutput(logits, ())
        # Two bilinear steps for the auxiliary logits, as in the reference implementation: a single
        # step to the size of the input would be another function.
        return SegmentationOutput(
            logits, (resize(self.aux16(context16), size8), resize(self.aux32(context32), size8))
        )

    def _check(self, image: Tensor) -> None:
        if image.ndim != 4 or image.shape[1] != 3 or min(image.shape[-2:]) < 32:
            raise ValueError(
                "BiSeNet takes images (N, 3, H, W) with H and W at least 32; found"
                f" {tuple(image.shape)}."
            )
        attention = self.context_path.arm16.bn
        if (
            attention.training
            and image.shape[0] < 2
            and not isinstance(attention, nn.SyncBatchNorm)
        ):
            raise ValueError(
                "BiSeNet trains on batches of at least 2 images: its attention normalizes one value"
                " per image and channel. Found a batch of 1."
            )


class LogitsOnly(nn.Module):
    """A BiSeNet with one tensor as its output: images (N, 3, H, W) -> logits of the same size."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image).logits


def _kaiming(module: nn.Module) -> None:
    """Kaiming normal (fan_in, ReLU) for convolution weights; BatchNorm weight 1, bias 0."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
