"""One training step: a batch on the device, and how its losses are computed and scaled."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.bisenet import SegmentationOutput
from model.inference.tta import CropRegion
from model.losses.segmentation import PixelWeights, segmentation_loss
from model.preprocessing import InputNormalization

Autocast = Callable[[], AbstractContextManager]


class Batch(NamedTuple):
    """A batch, or a micro-batch of one, on the device.

    ``image`` (N, 3, H, W) float32, normalized. ``label`` (N, H, W) uint8 trainIds, 255: ignored, or
    None; ``host_label``: the same on the CPU. ``sample_seeds``: a random integer for each image.
    ``valid_pixels``: labelled pixels of the whole source batch, over all micro-batches and
    processes; None for the target.
    ``full_image`` (N, 3, h, w), normalized: the frames that the images are crops of, and
    ``crop_region``: which crops; None unless the method asks for them (``TargetNeeds``).
    """

    image: Tensor
    label: Tensor | None
    host_label: Tensor | None
    sample_seeds: list[int]
    valid_pixels: int | None = None
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
    disabled one passes them through). ``loss_scale``: the fraction of the batch that a micro-batch
    is. ``pixel_weights``: weights of the supervised losses, or None.
    """

    autocast: Autocast
    scaler: torch.amp.GradScaler
    loss_scale: float = 1.0
    pixel_weights: PixelWeights | None = None

    def supervised_step(
        self, model: nn.Module, image: Tensor, label: Tensor, valid_pixels: float | None
    ) -> tuple[Tensor, SegmentationOutput]:
        """Adds the gradient of the segmentation loss (Eqs. 1, 2) of labelled images.

        Returns the loss and the output at stride 8, both detached.
        """
        with self.autocast():
            output = model.low_resolution(image)
        loss = segmentation_loss(
            output, label, valid_pixels=valid_pixels, pixel_weights=self.pixel_weights
        )
        self.scaler.scale(loss).backward()
        aux = tuple(logits.detach() for logits in output.aux)
        return loss.detach(), output._replace(logits=output.logits.detach(), aux=aux)


def split_output(
    output: SegmentationOutput, first: int
) -> tuple[SegmentationOutput, SegmentationOutput]:
    """The network's output for the ``first`` images of a batch, and for the rest."""
    logits, *aux = (t.split([first, len(t) - first]) for t in (output.logits, *output.aux))
    return tuple(
        output._replace(logits=logits[part], aux=tuple(pair[part] for pair in aux))
        for part in (0, 1)
    )
