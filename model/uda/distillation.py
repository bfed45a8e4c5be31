"""Distillation on target images: a network learns what adapted networks see (Hinton et al., 2015).

Light networks are poor teachers of themselves. DUDA (Kang et al., WACV 2026) and CLDA (2024) adapt
a stronger network and distil it; here the teachers are any checkpoints, and their mean
probabilities are learned: soft labels say where the teachers are unsure or disagree. Rare classes
may weigh more, or a network from random weights learns none of them in a short run.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.bisenet import SegmentationOutput
from model.fused_upsampling import at_least_float32, resize
from model.inference.tta import mean_probabilities
from model.loading import load_network, same_classes
from model.training_step import Batch
from model.uda.base import Method, MethodSetting, RunSettings, TargetNeeds, option
from model.uda.teacher_options import TeacherOptions

SOFT_LABEL_WEIGHTS = ("none", "class")
LOGIT_ADJUSTMENT = 0.5
"""Fraction of the log class weights that the loss adds to the logits, as in the recipe strong."""
MIN_SHARE = 1e-4
"""Smaller shares of a class count as this one: the target may not have the class at all."""


@dataclass(frozen=True)
class DistillationOptions(TeacherOptions):
    teachers: tuple[Path, ...] | None = option(
        None,
        "checkpoints of adapted networks; their mean probabilities on the target are learned",
        type="path",
        nargs="+",
        metavar="FILE",
    )
    lambda_source: float = option(
        1.0,
        "loss weight of the labelled source; 0: learn from the teachers alone",
        type="non_negative_float",
        metavar="W",
    )
    soft_label_weights: str = option(
        "none",
        "none; class (rare classes of the teachers more, as --pixel-weights class those of labels)",
        choices=SOFT_LABEL_WEIGHTS,
    )

    def check(self, run: RunSettings) -> None:
        super().check(run)
        if not self.teachers:
            raise ValueError(
                "--method distil needs --teachers FILE..., the last.pt of one or more adapted"
                " networks"
            )
        files = [path.resolve() for path in self.teachers]
        repeated = [str(path) for path in self.teachers if files.count(path.resolve()) > 1]
        if repeated:
            raise ValueError(
                f"--teachers names one checkpoint {len(repeated)} times ({', '.join(repeated)}): it"
                " would count more than the others. Give each checkpoint once"
            )

    def target_needs(self) -> TargetNeeds:
        return TargetNeeds(
            ignored_rows=(0.0, 0.0),
            context_scale=self.context_scale,
            smallest_scale=min(self.teacher_scales),
        )

    @property
    def learns_source(self) -> bool:
        return self.lambda_source > 0


class Distillation(Method):
    """Supervised on the source; on the target, cross-entropy with the teachers' probabilities."""

    name = "distil"
    Options = DistillationOptions

    def __init__(self, model: nn.Module, options: DistillationOptions, setting: MethodSetting):
        super().__init__(model, options, setting)
        device = next(model.parameters()).device
        checkpoints = [read_teacher(path, setting) for path in options.teachers]
        self.teachers = nn.ModuleList(teachers_of(checkpoints, setting))
        self.teachers.to(device, memory_format=torch.channels_last).requires_grad_(False).eval()
        self.ignore_index = setting.ignore_index
        self.origins = [
            {key: value for key, value in checkpoint.items() if key != "parts"}
            for checkpoint in checkpoints
        ]
        self.views, self.augment = options.views(), options.augmentation(setting)
        self.class_weights = None
        if options.soft_label_weights == "class":
            self.class_weights = SoftClassWeights(setting.num_classes, setting.all_reduce_sum)
            self.class_weights.to(device)

    def step(self, source: Batch | None, target: Batch) -> dict[str, Tensor]:
        losses = {}

        # 1. Segmentation loss on the source: the mean over its labelled pixels.
        if weight := self.options.lambda_source:
            weighted = source._replace(valid_pixels=source.valid_pixels / weight)
            loss, _ = self.context.add_supervised_gradients(self.model, weighted)
            losses["loss/segmentation"] = loss / weight

        # 2. The teachers see the target as it is, and the network sees it augmented.
        probabilities = self._probabilities(target)  # (N, C, H, W)
        valid = target.label != self.ignore_index  # (N, H, W): no padding
        image = self.augment(target.image, target.sample_seeds)

        # 3. Cross-entropy with the probabilities: the mean over ALL pixels of the target.
        with self.context.autocast():
            output = self.model.low_resolution(image)
        learned, offset = self._weighted(probabilities, valid)
        loss = soft_cross_entropy(output, learned, valid, offset) * self.context.batch_fraction
        self.context.scaler.scale(loss).backward()
        self.monitor_target_logits(output.logits, valid)
        confidence = mean_confidence(probabilities, valid) * self.context.batch_fraction
        return losses | {"loss/distillation": loss.detach(), "teachers/confidence": confidence}

    @torch.no_grad()
    def _probabilities(self, target: Batch) -> Tensor:
        """Mean probabilities (N, C, H, W) of all teachers for the target's crops."""
        seen = target.image if target.full_image is None else target.full_image
        autocast, region = self.context.autocast, target.crop_region
        total = 0
        for teacher in self.teachers:
            total = total + mean_probabilities(teacher, seen, self.views, autocast, region)
        return total / len(self.teachers)

    def _weighted(self, probabilities: Tensor, valid: Tensor) -> tuple[Tensor, Tensor | None]:
        """The probabilities that are learned, and what the loss adds to the logits (C,)."""
        if self.class_weights is None:
            return probabilities, None
        self.class_weights.add(probabilities, valid)
        weights = self.class_weights.weights()
        return probabilities * weights[:, None, None], LOGIT_ADJUSTMENT * weights.log()

    def after_step(self, step: int) -> None:
        if self.class_weights is not None:
            self.class_weights.after_step()

    def state(self) -> dict[str, Any]:
        """With the teachers: a resumed run learns from these, whatever their files hold now."""
        state = super().state() | {"teachers": self.teachers}
        if self.class_weights is not None:
            state |= {"class_weights": self.class_weights}
        return state


class SoftClassWeights(nn.Module):
    """Class weights proportional to 1 / sqrt(class share), with a mean over all pixels of 1.

    Like ``ClassWeights``, but labels are probabilities, and a share is the mean probability of a
    class on the target in all steps until now. ``all_reduce_sum``: sums a tensor over the processes
    of the run.
    """

    def __init__(
        self,
        num_classes: int,
        all_reduce_sum: Callable[[Tensor], Tensor] = lambda sums: sums,
    ):
        super().__init__()
        self._all_reduce_sum = all_reduce_sum
        # Per class: the sum of its probabilities, in all steps before and in the current one.
        zeros = torch.zeros(num_classes, dtype=torch.float64)
        self.register_buffer("sums", zeros)
        self.register_buffer("_step", zeros.clone(), persistent=False)

    def add(self, probabilities: Tensor, valid: Tensor) -> None:
        """Notes a micro-batch: (N, C, H, W), where ``valid`` (N, H, W) bool."""
        self._step += (probabilities * valid[:, None]).sum((0, 2, 3))

    def weights(self) -> Tensor:
        """Weights (C,) float32; in the first step 1."""
        shares = (self.sums / self.sums.sum()).nan_to_num(1.0).clamp(min=MIN_SHARE)
        weights = shares.rsqrt()
        return (weights / (weights * shares).sum() * shares.sum()).float()

    def after_step(self) -> None:
        """Updates the shares. Within a step they are the same for all micro-batches."""
        self.sums += self._all_reduce_sum(self._step)
        self._step.zero_()


def read_teacher(path: Path, setting: MethodSetting) -> dict[str, Any]:
    """The checkpoint of a teacher. Raises FileNotFoundError that names --teachers."""
    try:
        return setting.read_checkpoint(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"--teachers: {error} A resumed run needs the files, too: it builds the teachers from"
            " them, and gives them the weights in its own checkpoint."
        ) from error


def teachers_of(checkpoints: list[dict[str, Any]], setting: MethodSetting) -> Iterator[nn.Module]:
    """The networks of checkpoints. Raises ValueError for other classes or another input."""
    for checkpoint in checkpoints:
        network, normalize = load_network(checkpoint, setting.num_classes)
        if setting.class_names and not same_classes(checkpoint, setting.class_names):
            raise ValueError(
                f"--teachers: {checkpoint['name']!r} has the classes"
                f" {', '.join(checkpoint['class_set']['classes'])}; this run has"
                f" {', '.join(setting.class_names)}. Give a teacher of this class set, or the run"
                " the teacher's."
            )
        if normalize != setting.normalize:
            raise ValueError(
                f"--teachers: {checkpoint['name']!r} was trained with another --input"
                f" ({normalize.as_dict()}) than this run ({setting.normalize.as_dict()}). Choose"
                " the teacher's --input, or another teacher."
            )
        yield network


def mean_confidence(probabilities: Tensor, valid: Tensor) -> Tensor:
    """Mean over the images of their mean highest probability where ``valid``; 0 where nothing is.

    ``probabilities`` (N, C, H, W), ``valid`` (N, H, W) bool. Returns a scalar.
    """
    highest = (probabilities.amax(1) * valid).sum((1, 2))  # (N,)
    return (highest / valid.sum((1, 2)).clamp(min=1)).mean()


def soft_cross_entropy(
    output: SegmentationOutput,
    probabilities: Tensor,
    valid: Tensor,
    logit_offset: Tensor | None = None,
) -> Tensor:
    """-sum_c q_c log p_c, averaged over all pixels and summed over the outputs (as Eq. 1). Scalar.

    ``probabilities`` q (N, C, H, W), perhaps times class weights; logits of the outputs are resized
    to (H, W). Pixels that are not ``valid`` (N, H, W) add 0, and count in the mean.
    ``logit_offset`` (C,): added to the logits in the loss alone.
    """
    size = probabilities.shape[-2:]

    def output_loss(logits: Tensor) -> Tensor:
        full = at_least_float32(logits)
        if logit_offset is not None:
            full = full + logit_offset[:, None, None]
        full = resize(full, size)
        per_pixel = -(probabilities * full.log_softmax(1)).sum(1)  # (N, H, W)
        return (per_pixel * valid).mean()

    return sum(output_loss(logits) for logits in (output.logits, *output.aux))
