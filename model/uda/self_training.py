"""Online self-training: a teacher, the moving average of the network, labels target images; the
network learns from images in which regions of the source are pasted onto the target (DACS,
Tranheden et al., WACV 2021; the teacher: Tarvainen & Valpola, NeurIPS 2017).
"""

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from model.inference.tta import CropRegion, TTAView, mean_probabilities
from model.losses.segmentation import segmentation_loss
from model.uda.adversarial import Autocast, Computation, split_output
from model.uda.pseudo_label_weight import Confidence, sure_share

IGNORED = 255
STATISTICS = ("averaged", "target")
"""What a teacher normalizes with: see Teacher."""


class Labels(NamedTuple):
    """A teacher's: the most likely ``label`` (N, H, W) int64 of every pixel, and its
    ``probability`` (N, H, W) float32.
    """

    label: Tensor
    probability: Tensor


class Teacher:
    """The exponential moving average of a network, weights and BatchNorm statistics.

    ``momentum``: of the average, close to 1; in the first steps the plain mean is taken, which
    forgets the random beginning. ``statistics``: "averaged": the teacher normalizes with the
    average of the network's running statistics. "target": it normalizes every batch by itself, and
    its own running statistics become those of the target images it sees, as AdaBN (Li et al., 2016)
    would set them. ``scales``: of the sizes in which it looks at an image it is given; its
    probabilities are the mean over these.
    """

    def __init__(
        self,
        model: nn.Module,
        momentum: float,
        statistics: str = "averaged",
        scales: Sequence[float] = (1.0,),
    ):
        if statistics not in STATISTICS:
            raise ValueError(
                f"Unknown statistics {statistics!r} of a teacher; expected one of"
                f" {', '.join(STATISTICS)}."
            )
        self.momentum, self.statistics, self.views = (
            momentum,
            statistics,
            tuple(TTAView(scale) for scale in scales),
        )
        self.network = copy.deepcopy(model).requires_grad_(False).train(statistics == "target")

    @torch.no_grad()
    def follow(self, model: nn.Module, step: int) -> None:
        """Moves towards ``model`` after step number ``step``, counted from 0."""
        weight = 1 - min(self.momentum, 1 - 1 / (step + 1))
        own, theirs = list(self.network.parameters()), list(model.parameters())
        if self.statistics == "averaged":
            pairs = zip(self.network.buffers(), model.buffers(), strict=True)
            moving = [
                (a, b) for a, b in pairs if a.is_floating_point()
            ]  # the counters of batches average nothing
            own, theirs = own + [a for a, _ in moving], theirs + [b for _, b in moving]
        torch._foreach_lerp_(own, theirs, weight)

    def label(self, images: Tensor, autocast: Autocast, part: CropRegion | None = None) -> Labels:
        """Of images (N, 3, H, W), normalized, or of a ``part`` of each, which is labelled with what
        is around it in view.
        """
        with torch.no_grad():
            probability, label = mean_probabilities(
                self.network, images, self.views, autocast, part
            ).max(1)
        return Labels(label, probability)


def class_mix_mask(label: Tensor, draws: Sequence[int], ignore_index: int = 255) -> Tensor:
    """ClassMix (Olsson et al., WACV 2021): the pixels of one half of the classes of each image,
    rounded up, drawn at random.

    Args: label (N, H, W) uint8 on the CPU; ``draws``: a random number for each image. Returns (N,
    H, W) bool; ignored pixels are False.
    """
    mask = torch.zeros(label.shape, dtype=torch.bool)
    for number, (one, draw) in enumerate(zip(label, draws, strict=True)):
        present = np.flatnonzero(np.bincount(one.flatten().numpy(), minlength=256))
        present = present[present != ignore_index]
        chosen = np.random.default_rng(draw).permutation(present)[: (len(present) + 1) // 2]
        table = torch.zeros(256, dtype=torch.bool)
        table[torch.from_numpy(chosen)] = True
        mask[number] = table[one.long()]
    return mask


def self_training_step(
    model: nn.Module,
    taught: Labels,
    source: Tensor,
    label: Tensor,
    target: Tensor,
    ignored: Tensor,
    mask: Tensor,
    augment: Callable[[Tensor], Tensor],
    confidence: Confidence,
    computation: Computation,
    valid_pixels: int | None = None,
    joint: bool = False,
) -> dict[str, Tensor]:
    """Supervised on the source, and on the mixed images with the teacher's labels: adds the
    network's gradient.

    Arguments beyond those of model/uda/adversarial.py: ``taught``, the teacher's labels of the
    target; ``ignored`` (N, H, W) bool, target pixels to learn nothing from (padding, borders);
    ``mask`` (N, H, W) bool, the source pixels to be pasted; ``augment`` changes the look of the
    mixed images, which alone are changed; the terms of pseudo-labelled pixels weigh what
    ``confidence`` says, while a weighting by class or hardness trusts the labels and is kept to the
    pasted ones. ``joint``: both kinds of images in one pass, so that BatchNorm normalizes them
    together. Returns both losses, the share of the target's pixels that the teacher is sure of, and
    the share of pixels pasted.
    """
    autocast, scaler, share, weighting = computation
    sure = confidence.sure(*taught, ignored)
    mixed = augment(torch.where(mask[:, None], source, target))
    mixed_label = torch.where(mask, label.long(), taught.label.masked_fill(ignored, IGNORED))
    weight = torch.where(mask, 1.0, confidence.weight(sure, ignored))  # (N, H, W)

    def weigh_pasted(logits: Tensor, label: Tensor) -> Tensor:
        return torch.where(mask, weighting(logits, label), 1.0)

    def supervised(output) -> Tensor:
        return segmentation_loss(output, label, IGNORED, valid_pixels, pixel_weights=weighting)

    def mixing(output) -> Tensor:
        # The mean over all pixels: ignored ones count, as do the unsure ones, and make the loss
        # small.
        return segmentation_loss(
            output,
            mixed_label,
            IGNORED,
            mixed_label.numel() / share,
            weight,
            weighting and weigh_pasted,
        )

    if joint:
        with autocast():
            output = model.low_resolution(torch.cat([source, mixed]))
        of_source, of_mixed = split_output(output, len(source))
        loss, mixed_loss = supervised(of_source), mixing(of_mixed)
        scaler.scale(loss + mixed_loss).backward()
    else:
        losses = []
        for images, loss_of in (
            (source, supervised),
            (mixed, mixing),
        ):  # the first graph is gone before the second is built
            with autocast():
                output = model.low_resolution(images)
            losses.append(loss_of(output))
            scaler.scale(losses[-1]).backward()
        loss, mixed_loss = losses
    return {
        "loss/segmentation": loss.detach(),
        "loss/mixed": mixed_loss.detach(),
        "teacher/sure": sure_share(sure, ignored).mean() * share,
        "mixing/pasted": mask.float().mean() * share,
    }
