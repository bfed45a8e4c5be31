"""BiSeNet (Yu et al., ECCV 2018) in the form of "Real-time Domain Adaptation in Semantic
Segmentation".

Two paths look at the image: a shallow one keeps space (stride 8), a ResNet sees context (strides 16
and 32). They are fused at stride 8. Sizes are (height, width); N is the batch, H x W the input, c16
| c32 the ResNet's widths (256 | 512 or 1024 | 2048).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.backbone import build_backbone


class SegmentationOutput(NamedTuple):
    """What the network returns, always: per-class scores before softmax, each (N, num_classes, H,
    W) in the input's size.

    ``aux``: the auxiliary logits of stride 16 and of stride 32 in training; empty in evaluation.
    """

    logits: Tensor
    aux: tuple[Tensor, ...]


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (N, C, h, w) to ``size``, corners not aligned."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


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
    """ARM: weighs each channel by a sigmoid of the global context."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, feat: Tensor) -> Tensor:
        attention = feat.mean((2, 3), keepdim=True)  # (N, C, 1, 1)
        attention = self.bn(self.conv(attention)).sigmoid()
        return feat * attention  # (N, C, H, W)


class ContextPath(nn.Module):
    """ResNet with an ARM on its last two stages: the image -> context16 (N, c16, H/16, W/16),
    context32 (N, c32, H/32, W/32).

    ``context32 = ARM(feat32) * tail``, with tail the global average of feat32: the product that
    PAPER's Fig. 1 leaves open.
    """

    def __init__(self, backbone: str, backbone_weights: str | None):
        super().__init__()
        self.backbone, self.channels16, self.channels32 = build_backbone(backbone, backbone_weights)
        self.arm16 = AttentionRefinementModule(self.channels16)
        self.arm32 = AttentionRefinementModule(self.channels32)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        feat16, feat32 = self.backbone(image)
        tail = feat32.mean((2, 3), keepdim=True)  # (N, c32, 1, 1)
        return self.arm16(feat16), self.arm32(feat32) * tail


class FeatureFusionModule(nn.Module):
    """FFM: fuses the concatenated paths (N, C, h, w) into (N, F, h, w) and re-weighs the result by
    its own global context.
    """

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
    """The segmentation network.

    Args:
        num_classes: channels of the logits. backbone: "resnet18" (real time) or "resnet101".
        backbone_weights: None (random), "imagenet" (torchvision's, downloaded once) or a file with
        a torchvision ResNet state dict. fusion_channels: width F of the fused paths; None:
        ``num_classes``, as published. The original BiSeNet has 256.

    Calling it with images (N, 3, H, W), H and W at least 32 and otherwise any, normalized as the
    run's input convention says, returns a SegmentationOutput. In training N must be at least 2,
    since the ARM normalizes one value per image and channel, unless BatchNorm is frozen or
    synchronized (model/batch_norm.py).

    The 1x1 heads run before their upsampling: a 1x1 convolution commutes with bilinear
    interpolation, so it is the same function as the published order, 64 times cheaper.
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
        c16, c32 = self.context_path.channels16, self.context_path.channels32
        fused = fusion_channels or num_classes
        self.fusion = FeatureFusionModule(256 + c16 + c32, fused)
        self.head = nn.Conv2d(fused, num_classes, 1)
        self.aux16 = nn.Conv2d(c16, num_classes, 1)
        self.aux32 = nn.Conv2d(c32, num_classes, 1)
        for name, module in self.named_modules():
            if not name.startswith("context_path.backbone"):
                _kaiming(module)

    def train(self, mode: bool = True) -> "BiSeNet":
        """As ever; frozen BatchNorms stay in evaluation mode, which alone keeps their running
        statistics still.
        """
        super().train(mode)
        if self.frozen_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, image: Tensor, with_aux: bool | None = None) -> SegmentationOutput:
        """``with_aux``: compute the auxiliary logits; by default in training only."""
        output, size = self.low_resolution(image, with_aux), image.shape[-2:]
        return SegmentationOutput(
            resize(output.logits, size), tuple(resize(aux, size) for aux in output.aux)
        )

    def low_resolution(self, image: Tensor, with_aux: bool | None = None) -> SegmentationOutput:
        """What ``forward`` returns, before its last step: logits of (N, num_classes, H/8, W/8),
        sides rounded up.

        All of them reach the input's size by one bilinear ``resize``, which losses and evaluation
        can do at less cost.
        """
        self._check(image)
        spatial = self.spatial_path(image)  # (N, 256, H/8, W/8)
        context16, context32 = self.context_path(image)
        size8 = spatial.shape[-2:]
        paths = torch.cat(
            [spatial, resize(context16, size8), resize(context32, size8)], 1
        )  # (N, 256 + c16 + c32, H/8, W/8)
        logits = self.head(self.fusion(paths))  # (N, num_classes, H/8, W/8)
        if not (self.training if with_aux is None else with_aux):
            return SegmentationOutput(logits, ())
        # The auxiliary logits take two bilinear steps, as published: one step straight to the
        # input's size would be another function.
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
                " per image and channel. Found batch 1."
            )


def _kaiming(module: nn.Module) -> None:
    """Kaiming normal (fan_in, ReLU) for convolutions; BatchNorm weight 1, bias 0. Convolution
    biases keep torch's default.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
