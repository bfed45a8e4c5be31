"""Bilinear upsampling fused with softmax or cross-entropy, without full-size logits, for CPUs.

Bilinear interpolation is separable and linear: logits (h, w) become R @ logits @ K with one matrix
for each axis, and gradients pass through the transposes. The full size is computed in strips of
rows that fit into the cache. On a GPU the plain operations are as fast and are used instead.
"""

import itertools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

STRIP_BYTES = 1 << 20
"""Size of one strip of logits: about the second-level cache of a core."""
_SCALE = 8
"""Scale of the last upsampling: a power of 2, whose coordinates are exact in every strip."""
_STRIP_ROWS = 8
"""Rows of low-resolution logits in a strip of ``upsampled_classes``: the fastest measured."""


def upsampled_cross_entropy_sum(
    logits: Tensor, label: Tensor, ignore_index: int, weight: Tensor | None = None
) -> Tensor:
    """Sum over valid pixels of the cross-entropy of logits resized to the size of the label.

    ``logits`` (N, C, h, w), ``label`` (N, H, W); ``weight`` (N, H, W) multiplies the term of each
    pixel; None: 1.
    """
    if logits.is_cuda:
        return cross_entropy_sum(resize(logits, label.shape[-2:]), label, ignore_index, weight)
    return _UpsampledCrossEntropySum.apply(logits, label, ignore_index, weight)


def cross_entropy_sum(
    logits: Tensor, label: Tensor, ignore_index: int, weight: Tensor | None = None
) -> Tensor:
    """``upsampled_cross_entropy_sum`` for ``logits`` (N, C, H, W) of the size of ``label``."""
    if weight is None:
        return F.cross_entropy(logits, label.long(), ignore_index=ignore_index, reduction="sum")
    losses = F.cross_entropy(logits, label.long(), ignore_index=ignore_index, reduction="none")
    return (losses * weight).sum()


def upsampled_softmax(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Class probabilities of resized logits: (N, C, h, w) -> (N, C, *size), channels_last."""
    if logits.is_cuda:
        return resize(logits, size).softmax(1)
    return _UpsampledSoftmax.apply(logits, tuple(size))


def upsampled_classes(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Class maps of resized logits: (N, C, h, w) -> (N, *size) uint8, the index of the maximum.

    Equal to resizing and comparing at once, bit for bit. On a CPU at the network's own scale of 8
    it is done in strips of rows that stay in the cache.
    """
    height, width = logits.shape[-2:]
    if logits.is_cuda or tuple(size) != (_SCALE * height, _SCALE * width):
        return class_map(resize(logits, size))
    classes = torch.empty(len(logits), *size, dtype=torch.uint8)
    for number, start in itertools.product(range(len(logits)), range(0, height, _STRIP_ROWS)):
        stop = min(start + _STRIP_ROWS, height)
        # One more row on each side: an edge is resized as if its last row went on.
        above, below = max(0, start - 1), min(height, stop + 1)
        image = logits[number : number + 1, :, above:below]
        strip = resize(image, (_SCALE * (below - above), size[1]))
        inner = strip[0, :, _SCALE * (start - above) : _SCALE * (stop - above)]
        classes[number, _SCALE * start : _SCALE * stop] = inner.max(0).indices
    return classes


def class_map(scores: Tensor) -> Tensor:
    """The class of the highest score at each pixel: (N, C, H, W) -> (N, H, W) uint8."""
    # max() is several times faster than argmax() on a CPU.
    return scores.max(1).indices.to(torch.uint8)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (N, C, h, w) to ``size``, corners not aligned."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def _interpolation_matrix(length: int, full: int, like: Tensor) -> Tensor:
    """Matrix (full, length) of linear interpolation along an axis; dtype and device of ``like``."""
    identity = torch.eye(length, dtype=like.dtype, device=like.device)
    columns = F.interpolate(identity[None], size=full, mode="linear", align_corners=False)[0]
    return columns.t().contiguous()


class _Strips:
    """Upsamples logits (C, h, w) to (C, H, W) strip by strip; also the adjoint."""

    def __init__(self, logits: Tensor, size: tuple[int, int]):
        _, channels, height, _ = logits.shape
        self.rows = _interpolation_matrix(height, size[0], logits)  # (H, h)
        columns = _interpolation_matrix(logits.shape[3], size[1], logits)  # (W, w)
        self.columns = columns.t().contiguous()  # (w, W)
        self.rows_per_strip = max(1, STRIP_BYTES // (channels * size[1] * logits.element_size()))

    def upsample_columns(self, logits: Tensor) -> Tensor:
        """Upsamples the columns: (C, h, w) -> (C, h, W)."""
        return logits @ self.columns

    def downsample_columns(self, gradient: Tensor) -> Tensor:
        """Adjoint of ``upsample_columns``: (C, h, W) -> (C, h, w)."""
        return gradient @ self.columns.t()

    def __iter__(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Yields output rows, the input rows they depend on, and the matrix between them."""
        for start in range(0, len(self.rows), self.rows_per_strip):
            rows = slice(start, min(start + self.rows_per_strip, len(self.rows)))
            matrix = self.rows[rows]
            used = matrix.any(0).nonzero()
            inputs = slice(int(used[0]), int(used[-1]) + 1)
            yield rows, inputs, matrix[:, inputs]


class _UpsampledCrossEntropySum(torch.autograd.Function):
    """Computes the gradient (N, C, h, w) along with the loss; ``backward`` only scales it."""

    @staticmethod
    def forward(
        ctx, logits: Tensor, label: Tensor, ignore_index: int, weight: Tensor | None
    ) -> Tensor:
        upsampling = _Strips(logits, label.shape[-2:])
        strips = list(upsampling)
        total, gradient = logits.new_zeros(()), torch.empty_like(logits)
        for index, image in enumerate(logits):
            wide = upsampling.upsample_columns(image)  # (C, h, W)
            wide_gradient = torch.zeros_like(wide)
            for rows, inputs, matrix in strips:
                train_ids = label[index, rows].long()
                valid = train_ids != ignore_index
                train_ids = train_ids.masked_fill(~valid, 0)[None]  # (1, rows, W)
                valid = valid.to(logits.dtype)[None]
                if weight is not None:
                    valid = valid * weight[index, rows]
                log_probability = (matrix @ wide[:, inputs]).log_softmax(0)  # (C, rows, W)
                total -= (log_probability.gather(0, train_ids) * valid).sum()
                # d loss / d logit = (probability - one-hot) * weight at valid pixels
                strip_gradient = log_probability.exp_()
                strip_gradient.scatter_add_(0, train_ids, -torch.ones_like(valid)).mul_(valid)
                wide_gradient[:, inputs] += matrix.t() @ strip_gradient
            gradient[index] = upsampling.downsample_columns(wide_gradient)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream, None, None, None


class _UpsampledSoftmax(torch.autograd.Function):
    """Softmax of upsampled logits; keeps the probabilities for ``backward``."""

    @staticmethod
    def forward(ctx, logits: Tensor, size: tuple[int, int]) -> Tensor:
        upsampling = _Strips(logits, size)
        strips = list(upsampling)
        shape = (len(logits), *size, logits.shape[1])
        probabilities = logits.new_empty(shape).permute(0, 3, 1, 2)  # (N, C, H, W), channels_last
        for index, image in enumerate(logits):
            wide = upsampling.upsample_columns(image)
            for rows, inputs, matrix in strips:
                probabilities[index, :, rows] = (matrix @ wide[:, inputs]).softmax(0)
        ctx.save_for_backward(logits, probabilities)
        return probabilities

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None]:
        logits, probabilities = ctx.saved_tensors
        upsampling = _Strips(logits, probabilities.shape[-2:])
        strips, gradient = list(upsampling), torch.empty_like(logits)
        for index in range(len(logits)):
            wide_gradient = logits.new_zeros((*logits.shape[1:3], probabilities.shape[3]))
            for rows, inputs, matrix in strips:
                probability = probabilities[index, :, rows].contiguous()  # (C, rows, W)
                product = probability * upstream[index, :, rows].contiguous()
                strip_gradient = product.sub_(probability.mul_(product.sum(0)))
                wide_gradient[:, inputs] += matrix.t() @ strip_gradient
            gradient[index] = upsampling.downsample_columns(wide_gradient)
        return gradient, None


def at_least_float32(logits: Tensor) -> Tensor:
    """Converts half-precision logits to float32; float32 and float64 are returned unchanged."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
