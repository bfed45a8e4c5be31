"""Adversarial adaptation in the output space (Tsai et al., CVPR 2018; the paper's steps 3 and 4).

A discriminator learns to tell segmentations of the source (z = 1) from those of the target (z = 0).
The segmentation network learns to fool it on the target.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from model.bisenet import SegmentationOutput
from model.discriminator import CONVS, build_discriminator
from model.fused_upsampling import at_least_float32, upsampled_softmax
from model.losses.domain import (
    SOURCE,
    TARGET,
    domain_loss,
    least_squares_domain_loss,
    self_information,
)
from model.training_step import Batch, split_output
from model.uda.base import Method, MethodOptions, MethodSetting, RunSettings, option


class AdversarialLoss(NamedTuple):
    """``loss(score, domain)`` of the discriminator's scores (N, 1, H, W).

    A score above ``decision_threshold`` means "source".
    """

    loss: Callable[[Tensor, float], Tensor]
    decision_threshold: float


ADVERSARIAL_LOSSES = {
    "bce": AdversarialLoss(domain_loss, 0.0),
    "lsgan": AdversarialLoss(least_squares_domain_loss, (SOURCE + TARGET) / 2),
}
DISCRIMINATOR_INPUTS = {"probabilities": nn.Identity(), "entropy": self_information}
"""Maps of class probabilities (N, C, H, W) to the discriminator's input, of the same shape."""

ForwardResult = tuple[Tensor, SegmentationOutput, SegmentationOutput]
"""The segmentation loss, the source's output and the target's output, both at stride 8."""

OUTPUT_LEVELS: dict[str, Callable[[SegmentationOutput], Tensor]] = {
    "logits": lambda output: output.logits,
    "aux16": lambda output: output.aux[0],
}


@dataclass(frozen=True)
class AdversarialOptions(MethodOptions):
    """The defaults are the paper's."""

    discriminator: str = option(
        "light",
        "full: 2.78 M parameters (ADA); light: 0.19 M (light ADA)",
        choices=tuple(CONVS),
        essential=True,
    )
    lambda_adv: float = option(
        0.01, "weight of the adversarial loss (Eq. 5)", type="positive_float", essential=True
    )
    lambda_adv_aux: float | None = option(
        None,
        "weight of a second adversarial loss, on the auxiliary output of stride 16; default: none",
        type="positive_float",
    )
    d_lr: float = option(
        1e-5, "initial learning rate of the discriminator", type="positive_float", essential=True
    )
    adversarial_loss: str = option(
        "bce", "the paper's cross-entropy, or least squares (LSGAN)", choices=(*ADVERSARIAL_LOSSES,)
    )
    discriminator_input: str = option(
        "probabilities",
        "input of the discriminator: probabilities, or AdvEnt's entropy maps",
        choices=tuple(DISCRIMINATOR_INPUTS),
    )
    joint_batch_norm: bool = option(
        False,
        "one forward pass for both domains: BatchNorm normalizes them together",
    )

    def check(self, run: RunSettings) -> None:
        if self.joint_batch_norm:
            run.check_joint_batch_norm()


class OutputDiscriminator(NamedTuple):
    """A discriminator of one output of the segmentation network.

    ``level``: a key of OUTPUT_LEVELS. ``weight``: lambda of its adversarial loss.
    """

    network: nn.Module
    level: str
    weight: float

    @property
    def key_suffix(self) -> str:
        """Ending of the names of its losses and of its parts of a checkpoint."""
        return "" if self.level == "logits" else f"_{self.level}"

    def probabilities(self, output: SegmentationOutput, size: tuple[int, int]) -> Tensor:
        """Class probabilities (N, C, *size) float32 of its output level."""
        return upsampled_softmax(at_least_float32(OUTPUT_LEVELS[self.level](output)), size)


class AdversarialAdaptation(Method):
    """Output-space adversarial adaptation (Eqs. 3-5). z = 1: source, z = 0: target.

    With ``lambda_adv_aux`` a second discriminator sees the auxiliary output (Tsai et al.); with
    ``discriminator_input`` "entropy" it is AdvEnt (Vu et al., CVPR 2019).
    """

    name = "adversarial"
    Options = AdversarialOptions

    def __init__(self, model: nn.Module, options: AdversarialOptions, setting: MethodSetting):
        super().__init__(model, options, setting)
        self.adversarial_loss = ADVERSARIAL_LOSSES[options.adversarial_loss]
        self.input_map = DISCRIMINATOR_INPUTS[options.discriminator_input]
        device = next(model.parameters()).device
        weights = {"logits": options.lambda_adv, "aux16": options.lambda_adv_aux}
        self.discriminators = []
        for level, weight in weights.items():
            if weight is None:
                continue
            network = build_discriminator(options.discriminator, setting.num_classes)
            network = network.to(device, memory_format=torch.channels_last).train()
            discriminator = OutputDiscriminator(network, level, weight)
            suffix = discriminator.key_suffix
            self.discriminators.append(discriminator)
            self.monitors[f"balance_monitor{suffix}"] = AdversarialBalanceMonitor(suffix)
            self.networks[f"discriminator{suffix}"] = network
            self.optimizers[f"d_optimizer{suffix}"] = torch.optim.Adam(
                network.parameters(), options.d_lr, betas=(0.9, 0.99)
            )

    def step(self, source: Batch, target: Batch) -> dict[str, Tensor]:
        # The gradients of the losses below arrive at these outputs of the network, and go back
        # through it in one backward pass at the end. None stands for 1 (a scalar loss).
        outputs, gradients = [], []

        # 1. Segmentation loss on the source (Eq. 4, with the auxiliary outputs of Eqs. 1, 2).
        if self.options.joint_batch_norm:
            loss, source_output, target_output = self._forward_jointly(source, target)
            outputs.append(self.context.scaler.scale(loss))
            gradients.append(None)
        else:
            loss, source_output, target_output = self._forward_separately(source, target)
        self.monitor_target_logits(target_output.logits)
        losses = {"loss/segmentation": loss.detach()}

        for discriminator in self.discriminators:
            size, suffix = source.label.shape[-2:], discriminator.key_suffix
            source_probabilities = discriminator.probabilities(source_output, size).detach()
            target_probabilities = discriminator.probabilities(target_output, size)

            # 2. Adversarial loss on the target (Eq. 5): the discriminator should answer "source",
            #    and gets no gradient itself.
            target_score, adversarial, gradient = self._fool(discriminator, target_probabilities)
            outputs.append(target_probabilities)
            gradients.append(gradient)

            # 3. Discriminator loss on both domains, detached (Eq. 3).
            #    Reuse the target score: the discriminator has not been updated since.
            source_score, d_loss = self._discriminate(
                discriminator.network, source_probabilities, target_score
            )

            threshold = self.adversarial_loss.decision_threshold
            is_right = {"source": source_score > threshold, "target": target_score < threshold}
            accuracy = {
                f"discriminator_accuracy/{domain}{suffix}": right.float().mean()
                * self.context.batch_fraction
                for domain, right in is_right.items()
            }
            losses |= {
                f"loss/adversarial{suffix}": adversarial,
                f"loss/discriminator{suffix}": d_loss,
                **accuracy,
            }

        torch.autograd.backward(outputs, gradients)
        return losses

    def _forward_separately(self, source: Batch, target: Batch) -> ForwardResult:
        """Two passes, each with its own batch statistics, as the paper has it.

        The gradient of the source is added at once, so its graph is gone before the target's is
        built.
        """
        loss, source_output = self.context.add_supervised_gradients(self.model, source)
        needs_aux = any(d.level != "logits" for d in self.discriminators)
        with self.context.autocast():
            target_output = self.model.low_resolution(target.image, with_aux=needs_aux)
        return loss, source_output, target_output

    def _forward_jointly(self, source: Batch, target: Batch) -> ForwardResult:
        """One pass: BatchNorm normalizes both domains together. Needs the memory of both.

        Adds no gradient yet: the caller sends it back.
        """
        with self.context.autocast():
            output = self.model.low_resolution(torch.cat([source.image, target.image]))
        source_output, target_output = split_output(output, len(source.image))
        loss = self.context.supervised_loss(source_output, source)
        return loss, source_output, target_output

    def _fool(
        self, discriminator: OutputDiscriminator, probabilities: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Eq. 5 for probabilities (N, C, H, W) of the target.

        Returns the scores (N, 1, H, W), the loss before lambda, and the gradient of the
        probabilities, scaled. The discriminator gets no gradient.
        """
        context, leaf = self.context, probabilities.detach().requires_grad_()
        with context.autocast():
            score = discriminator.network(self.input_map(leaf))
        loss = self.adversarial_loss.loss(score, SOURCE) * context.batch_fraction
        scaled = context.scaler.scale(discriminator.weight * loss)
        # Only the probabilities get a gradient. The graph stays: Eq. 3 uses this score again.
        (gradient,) = torch.autograd.grad(scaled, leaf, retain_graph=True)
        return score, loss.detach(), gradient

    def _discriminate(
        self, network: nn.Module, source_probabilities: Tensor, target_score: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Eq. 3: adds the discriminator's gradient; returns the source scores and the loss."""
        context, loss_of = self.context, self.adversarial_loss.loss
        with context.autocast():
            source_score = network(self.input_map(source_probabilities))
        loss = (loss_of(source_score, SOURCE) + loss_of(target_score, TARGET)) / 2
        loss = loss * context.batch_fraction
        parameters = list(network.parameters())
        torch.autograd.backward(context.scaler.scale(loss), inputs=parameters)
        return source_score.detach(), loss.detach()

    @property
    def short_name(self) -> str:
        return self.options.discriminator

    def metadata(self) -> dict[str, Any]:
        """The kind of the discriminator, whose cost eval.py states."""
        return {"discriminator": self.options.discriminator}

    def warnings(self, step: int, values: dict[str, float]) -> list[str]:
        """Warnings of a discriminator at chance, or right on both domains, for a long time."""
        return [text for monitor in self.monitors.values() for text in monitor(step, values)]


class AdversarialBalanceMonitor:
    """Warns once when adversarial training has been out of balance for ``patience`` steps."""

    def __init__(self, key_suffix: str = "", patience: int = 1000):
        self.key_suffix, self.patience = key_suffix, patience
        self._since: dict[str, int] = {}
        self._warned: set[str] = set()

    def __call__(self, step: int, values: dict[str, float]) -> list[str]:
        """Warnings about the ``discriminator_accuracy`` values logged after ``step`` steps."""
        source, target = (
            values[f"discriminator_accuracy/{domain}{self.key_suffix}"]
            for domain in ("source", "target")
        )
        level = self.key_suffix and f" of the output {self.key_suffix[1:]}"
        states = (
            (
                f"WARNING: the discriminator{level} has been at chance",
                abs((source + target) / 2 - 0.5) < 0.02,
                "Its gradient says little: raise --d-lr.",
            ),
            (
                f"WARNING: the discriminator{level} has been right on both domains",
                min(source, target) > 0.98,
                "The segmentation network no longer fools it: lower --d-lr or raise --lambda-adv.",
            ),
        )
        warnings = []
        for text, holds, remedy in states:
            since = self._since.setdefault(text, step) if holds else self._since.pop(text, step)
            if holds and step - since >= self.patience and text not in self._warned:
                self._warned.add(text)
                warnings.append(
                    f"{text} since step {since}, accuracy {source:.3f} on the source and"
                    f" {target:.3f} on the target. {remedy}"
                )
        return warnings

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: since when, and what was warned of."""
        return {"since": dict(self._since), "warned": sorted(self._warned)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what ``state_dict`` gave."""
        self._since, self._warned = dict(state["since"]), set(state["warned"])
