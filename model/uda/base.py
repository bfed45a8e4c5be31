"""The methods of adaptation: what a training loop needs of each, chosen before the loop begins."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from model.inference.tta import CropRegion
from model.uda.adversarial import (
    AdversarialBalanceMonitor,
    Computation,
    Game,
    Opponent,
    adversarial_step,
    entropy_step,
    joint_adversarial_step,
    pseudo_label_step,
)
from model.uda.pseudo_label_weight import Confidence
from model.uda.self_training import IGNORED, Teacher, class_mix_mask, self_training_step


class Batch(NamedTuple):
    """A batch, or a part of one, where it is computed: ``image`` (N, 3, H, W) normalized, ``label``
    (N, H, W) uint8 or None, both on the device; ``host_label``: the same on the host; ``draws``: a
    random number for each image; ``whole`` (N, 3, h, w) normalized: the frames that the images are
    parts of, and ``part``: which parts, or None.
    """

    image: Tensor
    label: Tensor | None
    host_label: Tensor | None
    draws: list[int]
    whole: Tensor | None = None
    part: CropRegion | None = None


class Method(NamedTuple):
    """``step(source, target, valid_pixels=...)`` adds gradients and returns losses
    (model/uda/adversarial.py); ``valid_pixels``: of the source, in the whole batch. ``opponents``:
    networks that learn beside the segmenter, ``optimizers``: theirs. ``teacher`` follows the
    segmenter and is what the run hands over in the end; ``confidence``: in its labels.
    ``watch(step, logged values)`` gives warnings.
    """

    step: Callable[..., dict[str, Tensor]]
    opponents: dict[str, nn.Module] = {}  # noqa: RUF012 (never written to)
    optimizers: dict[str, Optimizer] = {}  # noqa: RUF012
    teacher: Teacher | None = None
    confidence: Confidence | None = None
    watch: Callable[[int, dict[str, float]], list[str]] = lambda _step, _values: []

    def parts(self) -> dict[str, Any]:
        """What a checkpoint must hold of the method."""
        parts = self.opponents | self.optimizers
        if self.teacher is not None:
            parts |= {"teacher": self.teacher.network}
        if (
            self.confidence is not None and self.confidence.per == "class"
        ):  # the others remember nothing
            parts |= {"confidence": self.confidence}
        return parts

    def after_step(self, model: nn.Module, step: int) -> None:
        """To be called when the optimizers have stepped."""
        if self.teacher is not None:
            self.teacher.follow(model, step)
        if self.confidence is not None:
            self.confidence.after_step()


def adversarial(
    model: nn.Module,
    opponents: list[Opponent],
    d_lr: float,
    rules: Game,
    joint: bool,
    computation: Computation,
) -> Method:
    """ADA and its kin: the paper's steps 3 and 4. The paper has one opponent, and Tsai et al. one
    for each of several outputs.
    """
    play = partial(joint_adversarial_step if joint else adversarial_step, model, opponents)

    def step(source: Batch, target: Batch, valid_pixels: int) -> dict[str, Tensor]:
        return play(source.image, source.label, target.image, computation, valid_pixels, rules)

    discriminators, optimizers = {}, {}
    for each in opponents:
        discriminators[f"discriminator{each.suffix}"] = each.discriminator
        optimizers[f"d_optimizer{each.suffix}"] = torch.optim.Adam(
            each.discriminator.parameters(), d_lr, betas=(0.9, 0.99)
        )
    return Method(step, discriminators, optimizers, watch=AdversarialBalanceMonitor())


def minent(model: nn.Module, lambda_entropy: float, computation: Computation) -> Method:
    """Entropy minimisation."""

    def step(source: Batch, target: Batch, valid_pixels: int) -> dict[str, Tensor]:
        return entropy_step(
            model,
            source.image,
            source.label,
            target.image,
            lambda_entropy,
            computation,
            valid_pixels,
        )

    return Method(step)


def pseudo_labels(model: nn.Module, computation: Computation) -> Method:
    """Offline pseudo-labels, which the target's batches bring as their labels."""

    def step(source: Batch, target: Batch, valid_pixels: int) -> dict[str, Tensor]:
        return pseudo_label_step(
            model, source.image, source.label, target.image, target.label, computation, valid_pixels
        )

    return Method(step)


def self_training(
    model: nn.Module,
    teacher: Teacher,
    augment: Callable[[Tensor, list[int]], Tensor],
    confidence: Confidence,
    joint: bool,
    computation: Computation,
) -> Method:
    """Online self-training. The target's batches bring labels that are 255 where nothing is to be
    learned from the image. The teacher looks at their images, or at the whole frames where they
    bring these.
    """

    def step(source: Batch, target: Batch, valid_pixels: int) -> dict[str, Tensor]:
        mask = class_mix_mask(source.host_label, source.draws).to(
            source.image.device, non_blocking=True
        )
        ignored, look = target.label == IGNORED, partial(augment, draws=target.draws)
        taught = teacher.label(
            target.image if target.whole is None else target.whole,
            computation.autocast,
            target.part,
        )
        images = (source.image, source.label, target.image)
        return self_training_step(
            model,
            taught,
            *images,
            ignored,
            mask,
            look,
            confidence,
            computation,
            valid_pixels,
            joint,
        )

    return Method(step, teacher=teacher, confidence=confidence)
