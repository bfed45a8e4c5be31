"""Bilinear upsampling fused with what follows it, for a CPU: the same numbers as resizing first,
without full-size tensors of 19 channels.

Bilinear interpolation is separable and linear: scores (h, w) become R @ scores @ K with one matrix
an axis, and gradients come back through the transposes. The full size is visited in strips of rows
that stay in the processor's cache. On a GPU the plain operations are as good, so there the
functions use them.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

STRIP_BYTES = 1 << 20
"""Size of one strip of scores, about a core's second-level cache."""


def upsampled_cross_entropy_sum(
    scores: Tensor, label: Tensor, ignore_index: int, weight: Tensor | None = None
) -> Tensor:
    """The sum over valid pixels of the softmax cross-entropy of ``scores`` (N, C, h, w) resized
    bilinearly to ``label`` (N, H, W).

    ``weight``: (N, H, W), what each pixel's term is multiplied by; None: 1.
    """
    if scores.is_cuda:
        return cross_entropy_sum(_resize(scores, label.shape[-2:]), label, ignore_index, weight)
    return _UpsampledCrossEntropySum.apply(scores, label, ignore_index, weight)


def cross_entropy_sum(
    scores: Tensor, label: Tensor, ignore_index: int, weight: Tensor | None = None
) -> Tensor:
    """The same for ``scores`` that have the size of ``label``."""
    if weight is None:
        return F.cross_entropy(scores, label.long(), ignore_index=ignore_index, reduction="sum")
    return (
        F.cross_entropy(scores, label.long(), ignore_index=ignore_index, reduction="none") * weight
    ).sum()


def upsampled_softmax(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """The class probabilities of ``scores`` (N, C, h, w) resized bilinearly: (N, C, *size),
    channels_last.
    """
    if scores.is_cuda:
        return _resize(scores, size).softmax(1)
    return _UpsampledSoftmax.apply(scores, tuple(size))


def _resize(scores: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(scores, size=tuple(size), mode="bilinear", align_corners=False)


def _interpolation(length: int, full: int, like: Tensor) -> Tensor:
    """(full, length): what bilinear interpolation from ``length`` to ``full`` points multiplies one
    axis by.
    """
    unit = torch.eye(length, dtype=like.dtype, device=like.device)
    return (
        F.interpolate(unit[None], size=full, mode="linear", align_corners=False)[0].t().contiguous()
    )


class _Strips:
    """The upsampling of (C, h, w) scores to (C, H, W), strip by strip, and its adjoint."""

    def __init__(self, scores: Tensor, size: tuple[int, int]):
        _, channels, height, _ = scores.shape
        self.rows = _interpolation(height, size[0], scores)  # (H, h)
        self.columns = _interpolation(scores.shape[3], size[1], scores).t().contiguous()  # (w, W)
        self.step = max(1, STRIP_BYTES // (channels * size[1] * scores.element_size()))

    def widen(self, scores: Tensor) -> Tensor:
        """(C, h, w) -> (C, h, W)."""
        return scores @ self.columns

    def narrow(self, gradient: Tensor) -> Tensor:
        """The adjoint of ``widen``: (C, h, W) -> (C, h, w)."""
        return gradient @ self.columns.t()

    def __iter__(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """For each strip: its output rows, the input rows it depends on, and the matrix (output
        rows, input rows) between them.
        """
        for start in range(0, len(self.rows), self.step):
            rows = slice(start, min(start + self.step, len(self.rows)))
            matrix = self.rows[rows]
            used = matrix.any(0).nonzero()
            inputs = slice(int(used[0]), int(used[-1]) + 1)
            yield rows, inputs, matrix[:, inputs]


class _UpsampledCrossEntropySum(torch.autograd.Function):
    """The gradient is computed along with the loss, at the small size, and only scaled when it is
    asked for.
    """

    @staticmethod
    def forward(
        ctx, scores: Tensor, label: Tensor, ignore_index: int, weight: Tensor | None
    ) -> Tensor:
        strips, total = _Strips(scores, label.shape[-2:]), scores.new_zeros(())
        plan, gradient = list(strips), torch.empty_like(scores)
        for number, image in enumerate(scores):
            wide = strips.widen(image)  # (C, h, W)
            wide_gradient = torch.zeros_like(wide)
            for rows, inputs, matrix in plan:
                truth = label[number, rows].long()
                valid = truth != ignore_index
                truth = truth.masked_fill(~valid, 0)[None]  # (1, rows, W)
                valid = valid.to(scores.dtype)[None]
                if weight is not None:
                    valid = valid * weight[number, rows]
                log_probability = (matrix @ wide[:, inputs]).log_softmax(0)  # (C, rows, W)
                total -= (log_probability.gather(0, truth) * valid).sum()
                # d loss / d score = probability - one-hot, times the weight, at valid pixels
                strip_gradient = (
                    log_probability.exp_()
                    .scatter_add_(0, truth, -torch.ones_like(valid))
                    .mul_(valid)
                )
                wide_gradient[:, inputs] += matrix.t() @ strip_gradient
            gradient[number] = strips.narrow(wide_gradient)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream, None, None, None


class _UpsampledSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores: Tensor, size: tuple[int, int]) -> Tensor:
        strips = _Strips(scores, size)
        plan = list(strips)
        probabilities = scores.new_empty((len(scores), *size, scores.shape[1])).permute(
            0, 3, 1, 2
        )  # channels_last
        for number, image in enumerate(scores):
            wide = strips.widen(image)
            for rows, inputs, matrix in plan:
                probabilities[number, :, rows] = (matrix @ wide[:, inputs]).softmax(0)
        ctx.save_for_backward(scores, probabilities)
        return probabilities

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None]:
        scores, probabilities = ctx.saved_tensors
        strips, gradient = _Strips(scores, probabilities.shape[-2:]), torch.empty_like(scores)
        plan = list(strips)
        for number in range(len(scores)):
            wide_gradient = scores.new_zeros((*scores.shape[1:3], probabilities.shape[3]))
            for rows, inputs, matrix in plan:
                probability, arriving = (
                    probabilities[number, :, rows].contiguous(),
                    upstream[number, :, rows].contiguous(),
                )
                product = probability * arriving
                strip_gradient = product.sub_(probability.mul_(product.sum(0)))
                wide_gradient[:, inputs] += matrix.t() @ strip_gradient
            gradient[number] = strips.narrow(wide_gradient)
        return gradient, None


def at_least_float32(scores: Tensor) -> Tensor:
    """Half-precision scores as float32; wider ones as they are."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
