"""One training step: a batch on the device, and how its losses are computed and scaled."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from model.bisenet import SegmentationOutput
from model.inference.tta import CropRegion
from model.losses.segmentation import (
    ClassWeights,
    OnlineHardExamples,
    PixelWeights,
    build_pixel_weights,
    segmentation_loss,
)
from model.preprocessing import InputNormalization

Autocast = Callable[[], AbstractContextManager]


class Batch(NamedTuple):
    """A batch, or a micro-batch of one, on the device.

    ``image`` (N, 3, H, W) float32, normalized. ``label`` (N, H, W) uint8 trainIds, 255: ignored, or
    None; ``host_label``: the same on the CPU. ``sample_seeds``: a random integer for each image.
    ``valid_pixels``: labelled pixels of the whole source batch, over all micro-batches and
    processes, by which its loss is divided; None for the target.
    ``full_image`` (N, 3, h, w), normalized: the frames that the images are crops of, and
    ``crop_region``: which crops; None unless the method asks for them (``TargetNeeds``).
    """

    image: Tensor
    label: Tensor | None
    host_label: Tensor | None
    sample_seeds: list[int]
    valid_pixels: float | None = None
    full_image: Tensor | None = None
    crop_region: CropRegion | None = None


def to_device(
    sample, valid_pixels: int | None, normalize: InputNormalization, device: torch.device
) -> Batch:
    """A collated sample of the data loader (dataset.segmentation.Sample) as a Batch."""

    def moved(field: Tensor) -> Tensor:
        return field.to(device, non_blocking=True)

    label = None if sample.label is None else moved(sample.label)
    seeds = sample.sample_seed.tolist()
    batch = Batch(normalize(moved(sample.image)), label, sample.label, seeds, valid_pixels)
    if sample.full_image is None:
        return batch
    region = CropRegion(moved(sample.affine_theta), sample.image.shape[1:3])
    return batch._replace(full_image=normalize(moved(sample.full_image)), crop_region=region)


class StepContext(NamedTuple):
    """What all steps of a run share.

    ``autocast()`` opens the precision of the run. ``scaler`` scales losses before backward (a
    disabled one passes them through). ``batch_fraction``: the fraction of the batch that a
    micro-batch is. ``pixel_weights``: weights of the supervised losses, or None;
    ``logit_offset`` (C,): added to the logits in these losses, or None.
    """

    autocast: Autocast
    scaler: torch.amp.GradScaler
    batch_fraction: float = 1.0
    pixel_weights: PixelWeights | None = None
    logit_offset: Tensor | None = None

    @property
    def batch_counts(self) -> OnlineHardExamples | None:
        """The pixel weights if they depend on the whole batch, else None."""
        weights = self.pixel_weights
        return weights if isinstance(weights, OnlineHardExamples) else None

    def supervised_loss(self, output: SegmentationOutput, batch: Batch) -> Tensor:
        """The segmentation loss (Eqs. 1, 2) of a labelled batch, a scalar."""
        loss = segmentation_loss(
            output,
            batch.label,
            valid_pixels=batch.valid_pixels,
            pixel_weights=self.pixel_weights,
            logit_offset=self.logit_offset,
        )
        if self.batch_counts is not None and self.batch_counts.is_counting:
            return loss.detach().requires_grad_()  # 0: nothing to send back through the network
        return loss

    def add_supervised_gradients(
        self, model: nn.Module, batch: Batch
    ) -> tuple[Tensor, SegmentationOutput]:
        """Adds the gradients of the segmentation loss (Eqs. 1, 2) of a labelled batch.

        Returns the loss and the output at stride 8, both detached.
        """
        with self.autocast():
            output = model.low_resolution(batch.image)
        loss = self.supervised_loss(output, batch)
        self.scaler.scale(loss).backward()
        aux = tuple(logits.detach() for logits in output.aux)
        return loss.detach(), output._replace(logits=output.logits.detach(), aux=aux)


class Runtime(Protocol):
    """Where a run computes (utils.training.runtime.Runtime)."""

    device: torch.device
    autocast: Autocast
    scaler: torch.amp.GradScaler
    processes: Any


@dataclass(frozen=True)
class LossOptions:
    """The supervised losses: a kind of ``build_pixel_weights``, and for "class" the fraction of
    ``ClassWeights.logit_offset``.
    """

    pixel_weights: str
    logit_adjustment: float


def build_step_context(
    runtime: Runtime, loss: LossOptions, class_pixels: Callable[[], np.ndarray], accumulate: int
) -> StepContext:
    """Precision, loss scaling and pixel weights of a run's steps.

    ``class_pixels()`` counts the pixels of each class (C,) in the labels; called only for class
    weights. ``accumulate``: micro-batches per process.
    """
    processes, kind = runtime.processes, loss.pixel_weights
    pixels = torch.from_numpy(class_pixels()) if kind == "class" else None
    weights = build_pixel_weights(kind, pixels, runtime.device, processes.all_gather)
    adjusted = isinstance(weights, ClassWeights) and loss.logit_adjustment > 0
    return StepContext(
        runtime.autocast,
        runtime.scaler,
        batch_fraction=1 / (accumulate * processes.world_size),
        pixel_weights=weights,
        logit_offset=weights.logit_offset(loss.logit_adjustment) if adjusted else None,
    )


def split_output(
    output: SegmentationOutput, first: int
) -> tuple[SegmentationOutput, SegmentationOutput]:
    """The network's output for the ``first`` images of a batch, and for the rest."""
    logits, *aux = (t.split([first, len(t) - first]) for t in (output.logits, *output.aux))
    return tuple(
        output._replace(logits=logits[side], aux=tuple(pair[side] for pair in aux))
        for side in (0, 1)
    )
