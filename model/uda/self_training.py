"""Online self-training: DACS (Tranheden et al., WACV 2021) with a mean teacher.

A teacher, the moving average of the network (Tarvainen & Valpola, NeurIPS 2017), labels target
images. The network learns from images in which regions of the source are pasted onto the target.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from model.bisenet import SegmentationOutput
from model.inference.tta import CropRegion, TTAView, mean_probabilities
from model.losses.segmentation import segmentation_loss
from model.training_step import Autocast, Batch, split_output
from model.uda.base import Method, MethodSetting, RunSettings, TargetNeeds, option
from model.uda.collapse_monitor import label_agreement
from model.uda.pseudo_label_weight import (
    GRANULARITIES,
    PseudoLabelWeight,
    WeightOptions,
    confident_fraction,
)
from model.uda.strong_augmentation import random_blocks
from model.uda.teacher_options import TeacherOptions

TEACHER_BN = ("ema", "target")
"""Statistics that the teacher's BatchNorm normalizes with: see EMATeacher."""


@dataclass(frozen=True)
class SelfTrainingOptions(TeacherOptions):
    """The defaults are those of DACS, but for the rows without pseudo-labels."""

    ema: float = option(
        0.99,
        "momentum of the teacher's moving average; 0.999 for long runs",
        type="probability",
        metavar="MOMENTUM",
    )
    teacher_bn: str = option(
        "ema",
        "BatchNorm statistics of the teacher: moving average, or those of the target batch",
        choices=TEACHER_BN,
    )
    pseudo_threshold: float = option(
        0.968,
        "confidence threshold: probability above which a pseudo-label is confident",
        type="probability",
        metavar="P",
    )
    pseudo_weighting: str = option(
        "image",
        "weights of pseudo-labels: image (DACS), pixel, or class; see PseudoLabelWeight",
        choices=GRANULARITIES,
    )
    lambda_pseudo: float = option(
        1.0,
        "loss weight of pseudo-labelled pixels; use about 2 together with --pixel-weights class",
        type="positive_float",
        metavar="W",
    )
    pseudo_ignore_rows: tuple[float, float] = option(
        (0.03, 0.15),
        "top and bottom fractions of the target image without pseudo-labels (sky, ego vehicle)",
        type="probability",
        nargs=2,
        metavar=("TOP", "BOTTOM"),
    )
    mask_fraction: float = option(
        0.0,
        "fraction of the target's part of a mixed image that is hidden in blocks (MIC)",
        type="probability",
        metavar="P",
    )
    joint_batch_norm: bool = option(
        False, "one forward pass for both domains: BatchNorm normalizes them together"
    )

    def check(self, run: RunSettings) -> None:
        super().check(run)
        if run.batch_size != run.target_batch_size:
            raise ValueError(
                "--method self-training pastes each source image onto a target image: found"
                f" {run.batch_size} and {run.target_batch_size} images. Leave --target-batch-size"
                " out"
            )
        if self.joint_batch_norm:
            run.check_joint_batch_norm()
        if self.teacher_bn == "target" and run.bn == "frozen":
            raise ValueError(
                "--teacher-bn target normalizes with the statistics of each target batch, and --bn"
                " frozen with none. Leave one of them out"
            )
        top, bottom = self.pseudo_ignore_rows
        if top + bottom >= 1:
            raise ValueError(
                f"--pseudo-ignore-rows {top:g} {bottom:g} leaves no row of the target. Give two"
                " fractions whose sum is below 1"
            )
        if self.pseudo_threshold == 1 and self.pseudo_weighting != "class":
            raise ValueError(
                "--pseudo-threshold 1: no probability is above 1, so nothing of the target would be"
                " learned. Give a smaller one, such as 0.968"
            )

    def target_needs(self) -> TargetNeeds:
        return TargetNeeds(
            ignored_rows=tuple(self.pseudo_ignore_rows),
            context_scale=self.context_scale,
            smallest_scale=min(self.teacher_scales),
        )


class SelfTraining(Method):
    """Supervised on the source, and on mixed images with the teacher's labels."""

    name = "self-training"
    Options = SelfTrainingOptions
    inference_part = "teacher"

    def __init__(self, model: nn.Module, options: SelfTrainingOptions, setting: MethodSetting):
        super().__init__(model, options, setting)
        self.teacher = EMATeacher(model, options.ema, options.teacher_bn, options.views())
        self.augment = options.augmentation(setting)
        weight_options = WeightOptions(
            options.pseudo_threshold, options.pseudo_weighting, options.lambda_pseudo
        )
        self.ignore_index = setting.ignore_index
        device = next(model.parameters()).device
        self.pseudo_label_weight = PseudoLabelWeight(
            weight_options, setting.num_classes, setting.all_reduce_sum
        ).to(device)

    def step(self, source: Batch, target: Batch) -> dict[str, Tensor]:
        # 1. The teacher labels the target. Nothing is learned where the loader's label is
        #    ``ignore_index``.
        ignored = target.label == self.ignore_index  # (N, H, W)
        seen = target.image if target.full_image is None else target.full_image
        labels = self.teacher.pseudo_label(seen, self.context.autocast, target.crop_region)
        confident = self.pseudo_label_weight.confident(*labels, ignored)  # (N, H, W)
        self.monitor_target(*labels, valid=~ignored)

        # 2. ClassMix: pixels of half of the source's classes are pasted onto the target.
        pasted = class_mix_mask(source.host_label, source.sample_seeds, self.ignore_index)
        if source.image.is_cuda:
            pasted = pasted.pin_memory()  # a copy of other memory would wait for the teacher
        pasted = pasted.to(source.image.device, non_blocking=True)
        mixed = torch.where(pasted[:, None], source.image, target.image)
        mixed = self.augment(mixed, target.sample_seeds)
        if fraction := self.options.mask_fraction:
            # What is hidden has its label still: the network has to infer it from its context.
            hidden = random_blocks(pasted, fraction, target.sample_seeds) & ~pasted
            mixed = mixed.masked_fill(hidden[:, None], 0.0)
        pseudo_label = labels.label.masked_fill(ignored, self.ignore_index)
        mixed_label = torch.where(pasted, source.label.long(), pseudo_label)
        weight = torch.where(pasted, 1.0, self.pseudo_label_weight.weight(confident, ignored))

        # 3. Segmentation loss on the source, and weighted on the mixed images.
        loss, mixed_loss, mixed_logits = self._add_gradients(
            source, mixed, mixed_label, pasted, weight
        )
        batch_fraction = self.context.batch_fraction
        agreement = label_agreement(mixed_logits, labels.label, ~(ignored | pasted))
        return {
            "loss/segmentation": loss,
            "loss/mixed": mixed_loss,
            "pseudo_label/confident_fraction": confident_fraction(confident, ignored).mean()
            * batch_fraction,
            "pseudo_label/student_agreement": agreement * batch_fraction,
            "classmix/pasted_fraction": pasted.float().mean() * batch_fraction,
        }

    def _add_gradients(
        self, source: Batch, mixed: Tensor, mixed_label: Tensor, pasted: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Adds the gradients of both losses; returns them and the mixed logits, detached."""
        context = self.context

        def source_loss(output: SegmentationOutput) -> Tensor:
            return context.supervised_loss(output, source)

        def pasted_pixel_weights(logits: Tensor, label: Tensor) -> Tensor:
            # Class and OHEM weights trust the labels: they see pasted source pixels only.
            trusted = label.masked_fill(~pasted, self.ignore_index)
            return torch.where(pasted, context.pixel_weights(logits, trusted), 1.0)

        def mixed_loss(output: SegmentationOutput) -> Tensor:
            # The mean over ALL pixels: ignored and unconfident ones make the loss small.
            return segmentation_loss(
                output,
                mixed_label,
                self.ignore_index,
                mixed_label.numel() / context.batch_fraction,
                weight,
                context.pixel_weights and pasted_pixel_weights,
            )

        if self.options.joint_batch_norm:
            with context.autocast():
                output = self.model.low_resolution(torch.cat([source.image, mixed]))
            source_output, mixed_output = split_output(output, len(source.image))
            losses = [source_loss(source_output), mixed_loss(mixed_output)]
            logits = mixed_output.logits
            context.scaler.scale(losses[0] + losses[1]).backward()
        else:
            losses = []
            for images, loss_of in ((source.image, source_loss), (mixed, mixed_loss)):
                with context.autocast():
                    output = self.model.low_resolution(images)
                losses.append(loss_of(output))
                logits = output.logits  # of the mixed images in the end
                context.scaler.scale(losses[-1]).backward()  # frees the graph before the next
        return losses[0].detach(), losses[1].detach(), logits.detach()

    def after_step(self, step: int) -> None:
        self.teacher.update(self.model, step)
        self.pseudo_label_weight.after_step()

    def state(self) -> dict[str, Any]:
        state = super().state() | {"teacher": self.teacher.network}
        if self.options.pseudo_weighting == "class":  # the others have no state
            state |= {"pseudo_label_weight": self.pseudo_label_weight}
        return state


class PseudoLabels(NamedTuple):
    """``label`` (N, H, W) int64: most likely classes; ``probability`` (N, H, W) float32: theirs."""

    label: Tensor
    probability: Tensor


class EMATeacher:
    """The exponential moving average of a network: weights and BatchNorm statistics.

    ``momentum``: close to 1; early steps use a smaller one, so that the initial weights are
    forgotten quickly. ``batch_norm`` "ema": the teacher normalizes with the moving average of the
    network's running statistics. "target": it normalizes with the statistics of each target batch,
    and its running statistics are those of the target images it sees (AdaBN, Li et al., 2016).
    ``views`` of its input: its probabilities are averaged over them.
    """

    def __init__(
        self,
        model: nn.Module,
        momentum: float,
        batch_norm: str = "ema",
        views: Sequence[TTAView] = (TTAView(1.0),),
    ):
        if batch_norm not in TEACHER_BN:
            raise ValueError(
                f"Unknown BatchNorm statistics {batch_norm!r} of a teacher; expected one of"
                f" {', '.join(TEACHER_BN)}."
            )
        self.momentum, self.batch_norm, self.views = momentum, batch_norm, views
        self.network = copy.deepcopy(model).requires_grad_(False).train(batch_norm == "target")

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Moves towards ``model`` after step number ``step``, counted from 0."""
        weight = 1 - min(self.momentum, 1 - 1 / (step + 1))
        averages, values = list(self.network.parameters()), list(model.parameters())
        if self.batch_norm == "ema":
            pairs = zip(self.network.buffers(), model.buffers(), strict=True)
            # Counters of batches are integers and are not averaged.
            pairs = [(average, value) for average, value in pairs if average.is_floating_point()]
            averages += [average for average, _ in pairs]
            values += [value for _, value in pairs]
        torch._foreach_lerp_(averages, values, weight)

    def pseudo_label(
        self, images: Tensor, autocast: Autocast, crop_region: CropRegion | None = None
    ) -> PseudoLabels:
        """Labels of normalized images (N, 3, H, W), or of a ``crop_region`` of each."""
        with torch.no_grad():
            probability, label = mean_probabilities(
                self.network, images, self.views, autocast, crop_region
            ).max(1)
        return PseudoLabels(label, probability)


def class_mix_mask(label: Tensor, sample_seeds: Sequence[int], ignore_index: int = 255) -> Tensor:
    """ClassMix (Olsson et al., WACV 2021): the pixels of half of the classes of each image.

    The number of classes is rounded up; which ones is random. ``label`` (N, H, W) uint8 on the CPU,
    ``sample_seeds``: a random integer for each image. Returns (N, H, W) bool; ignored pixels are
    False.
    """
    mask = torch.zeros(label.shape, dtype=torch.bool)
    for number, (image_label, seed) in enumerate(zip(label, sample_seeds, strict=True)):
        present = np.flatnonzero(np.bincount(image_label.flatten().numpy(), minlength=256))
        present = present[present != ignore_index]
        chosen = np.random.default_rng(seed).permutation(present)[: (len(present) + 1) // 2]
        table = torch.zeros(256, dtype=torch.bool)
        table[torch.from_numpy(chosen)] = True
        mask[number] = table[image_label.long()]
    return mask
