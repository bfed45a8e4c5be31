"""One iteration of domain adaptation, a function a method: what it computes, up to the gradients.
The optimizers' steps belong to the caller's loop. Self-training has a file of its own.

All of them take source and target images (N, 3, H, W), normalized, the source's label (N, H, W),
and a Computation, and return detached scalars. Where the images are only a part of a batch,
``valid_pixels`` are the source's valid pixels in the whole: gradients, losses and accuracies of the
parts then add up to those of the whole batch.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from model.fused_upsampling import at_least_float32, upsampled_softmax
from model.losses.domain import (
    SOURCE,
    TARGET,
    domain_loss,
    least_squares_domain_loss,
    self_information,
)
from model.losses.segmentation import PixelWeights, segmentation_loss

Autocast = Callable[[], AbstractContextManager]


class Computation(NamedTuple):
    """What a run's steps share. ``autocast()`` opens its precision, ``scaler`` scales what is sent
    backward (a disabled one passes it through), ``share`` is the share of the images in their
    batch, ``weighting`` weighs the pixels of the supervised losses (model/losses/segmentation.py).
    """

    autocast: Autocast
    scaler: torch.amp.GradScaler
    share: float = 1.0
    weighting: PixelWeights | None = None

    def supervised(
        self, model: nn.Module, images: Tensor, label: Tensor, valid_pixels: float | None
    ) -> tuple[Tensor, Any]:
        """Learns from labelled images (Eqs. 1 and 2): adds the gradient; returns the loss and the
        output at stride 8, both detached.
        """
        with self.autocast():
            output = model.low_resolution(images)
        loss = segmentation_loss(
            output, label, valid_pixels=valid_pixels, pixel_weights=self.weighting
        )
        self.scaler.scale(loss).backward()
        return loss.detach(), output._replace(
            logits=output.logits.detach(), aux=tuple(each.detach() for each in output.aux)
        )


class Opponent(NamedTuple):
    """A discriminator, the weight of its adversarial loss, and the output that it judges: a key of
    LEVELS.
    """

    discriminator: nn.Module
    lambda_adv: float
    level: str = "logits"

    @property
    def suffix(self) -> str:
        """What the names of its losses and of its parts of a checkpoint end in."""
        return "" if self.level == "logits" else f"_{self.level}"


LEVELS = {"logits": lambda output: output.logits, "aux16": lambda output: output.aux[0]}


class Game(NamedTuple):
    """What the networks play for. ``shown``: what the discriminator sees of the class probabilities
    (N, C, H, W); ``loss(score, domain)``: by what it is taught and deceived; ``boundary``: the
    score between the domains. By default the paper's: probabilities and BCE.
    """

    shown: Callable[[Tensor], Tensor] = nn.Identity()
    loss: Callable[[Tensor, float], Tensor] = domain_loss
    boundary: float = 0.0


PAPER_GAME = Game()
LOSSES = {
    "bce": (domain_loss, 0.0),
    "least-squares": (least_squares_domain_loss, (SOURCE + TARGET) / 2),
}
SHOWN = {"probabilities": nn.Identity(), "entropy": self_information}


def game(loss: str = "bce", shown: str = "probabilities") -> Game:
    """The paper's game, or with a least-squares loss, or with entropy maps as AdvEnt (Vu et al.,
    CVPR 2019) shows them.
    """
    return Game(SHOWN[shown], *LOSSES[loss])


def adversarial_step(
    model: nn.Module,
    opponents: Sequence[Opponent],
    source: Tensor,
    label: Tensor,
    target: Tensor,
    computation: Computation,
    valid_pixels: int | None = None,
    rules: Game = PAPER_GAME,
) -> dict[str, Tensor]:
    """Adversarial output-space adaptation (Tsai et al., CVPR 2018; the paper's Eqs. 3-5): adds the
    gradients of all networks.

    The paper has one opponent. Returns the segmenter's loss and, for each opponent, the adversarial
    loss before lambda, the discriminator's loss, and the shares of pixels that it places rightly in
    either domain; the names end in the level if it is not "logits".
    """
    # Source and target pass separately, each with its own batch statistics; the source's graph is
    # gone before the target's is built.
    loss, of_source = computation.supervised(model, source, label, valid_pixels)
    with computation.autocast():
        of_target = model.low_resolution(
            target, with_aux=any(each.level != "logits" for each in opponents)
        )
    probabilities, gradients, losses = _play(
        opponents, of_source, of_target, label.shape[-2:], computation, rules
    )
    torch.autograd.backward(probabilities, gradients)
    return {"loss/segmentation": loss} | losses


def joint_adversarial_step(
    model: nn.Module,
    opponents: Sequence[Opponent],
    source: Tensor,
    label: Tensor,
    target: Tensor,
    computation: Computation,
    valid_pixels: int | None = None,
    rules: Game = PAPER_GAME,
) -> dict[str, Tensor]:
    """``adversarial_step`` with both domains in one pass, so that BatchNorm normalizes them
    together. Needs the memory of both.
    """
    with computation.autocast():
        output = model.low_resolution(torch.cat([source, target]))
    of_source, of_target = split_output(output, len(source))
    loss = segmentation_loss(
        of_source, label, valid_pixels=valid_pixels, pixel_weights=computation.weighting
    )
    probabilities, gradients, losses = _play(
        opponents, of_source, of_target, label.shape[-2:], computation, rules
    )
    torch.autograd.backward([computation.scaler.scale(loss), *probabilities], [None, *gradients])
    return {"loss/segmentation": loss.detach()} | losses


def split_output(output, first: int) -> tuple:
    """The network's output for the first images of a batch, and for the others."""
    logits, aux = (
        output.logits.split([first, len(output.logits) - first]),
        [each.split([first, len(each) - first]) for each in output.aux],
    )
    return tuple(
        output._replace(logits=logits[part], aux=tuple(each[part] for each in aux))
        for part in (0, 1)
    )


def _play(
    opponents: Sequence[Opponent],
    of_source,
    of_target,
    size: tuple[int, int],
    computation: Computation,
    rules: Game,
) -> tuple[list[Tensor], list[Tensor], dict[str, Tensor]]:
    """The segmenter against every opponent: adds the discriminators' gradients; returns the
    target's probabilities, the segmenter's gradients to be sent back through them, and the
    losses.
    """
    probabilities, gradients, losses = [], [], {}
    for opponent in opponents:
        scores = [
            at_least_float32(LEVELS[opponent.level](output)) for output in (of_source, of_target)
        ]
        shown = [upsampled_softmax(each, size) for each in scores]  # (N, C, H, W)
        gradient, own = _move(opponent, shown[0].detach(), shown[1], computation, rules)
        probabilities.append(shown[1])
        gradients.append(gradient)
        losses |= {f"{name}{opponent.suffix}": value for name, value in own.items()}
    return probabilities, gradients, losses


def _move(
    opponent: Opponent,
    source_probabilities: Tensor,
    target_probabilities: Tensor,
    computation: Computation,
    rules: Game,
) -> tuple[Tensor, dict[str, Tensor]]:
    """One move of the game: adds the discriminator's gradient; returns the gradient of the target's
    probabilities, and the losses.
    """
    autocast, scaler, share, _ = computation
    discriminator = opponent.discriminator

    # The segmenter against the discriminator: only the gradient of the probabilities is asked for,
    # so the discriminator is frozen.
    judged = target_probabilities.detach().requires_grad_()
    with autocast():
        target_score = discriminator(rules.shown(judged))  # (N, 1, H, W)
    adversarial = rules.loss(target_score, SOURCE) * share
    (gradient,) = torch.autograd.grad(
        scaler.scale(opponent.lambda_adv * adversarial), judged, retain_graph=True
    )

    # The discriminator on both, detached. Its answer to the target is the one it has just given: it
    # has not moved since.
    with autocast():
        source_score = discriminator(rules.shown(source_probabilities))
    d_loss = (rules.loss(source_score, SOURCE) + rules.loss(target_score, TARGET)) / 2 * share
    torch.autograd.backward(scaler.scale(d_loss), inputs=list(discriminator.parameters()))

    return gradient, {
        "loss/adversarial": adversarial.detach(),
        "loss/discriminator": d_loss.detach(),
        "discriminator_accuracy/source": (
            (source_score.detach() > rules.boundary).float().mean() * share
        ),
        "discriminator_accuracy/target": (
            (target_score.detach() < rules.boundary).float().mean() * share
        ),
    }


def entropy_step(
    model: nn.Module,
    source: Tensor,
    label: Tensor,
    target: Tensor,
    lambda_entropy: float,
    computation: Computation,
    valid_pixels: int | None = None,
) -> dict[str, Tensor]:
    """MinEnt (Vu et al., CVPR 2019): on the target the network is taught to be sure. Returns the
    segmentation loss and the mean entropy, from 0 to 1, before lambda.
    """
    loss, _ = computation.supervised(model, source, label, valid_pixels)
    with computation.autocast():
        logits = model.low_resolution(target, with_aux=False).logits
    entropy = (
        self_information(upsampled_softmax(at_least_float32(logits), target.shape[-2:]))
        .sum(1)
        .mean()
        * computation.share
    )
    computation.scaler.scale(lambda_entropy * entropy).backward()
    return {"loss/segmentation": loss, "loss/entropy": entropy.detach()}


def pseudo_label_step(
    model: nn.Module,
    source: Tensor,
    label: Tensor,
    target: Tensor,
    target_label: Tensor,
    computation: Computation,
    valid_pixels: int | None = None,
) -> dict[str, Tensor]:
    """Offline pseudo-labels (Zou et al., ECCV 2018): supervised on both domains. ``target_label``
    (N, H, W): trainIds of any origin, 255 where there is none. Each domain's loss is a mean, over
    its own pixels: the target's over all of them, so that few labels weigh little.
    """
    loss, _ = computation.supervised(model, source, label, valid_pixels)
    target_loss, _ = computation.supervised(
        model, target, target_label, target_label.numel() / computation.share
    )
    return {"loss/segmentation": loss, "loss/pseudo_labels": target_loss}


class AdversarialBalanceMonitor:
    """Notices when the game between the networks has come to a standstill for ``patience`` steps;
    says so once.
    """

    def __init__(self, patience: int = 1000):
        self._patience = patience
        self._since: dict[str, int] = {}
        self._said: set[str] = set()

    def __call__(self, step: int, values: dict[str, float]) -> list[str]:
        """Warnings for the ``discriminator_accuracy/...`` of both domains among the values logged
        at ``step``.
        """
        source, target = (
            values[f"discriminator_accuracy/{domain}"] for domain in ("source", "target")
        )
        states = {
            "WARNING: the discriminator has been at chance": (
                abs((source + target) / 2 - 0.5) < 0.02
            ),
            "WARNING: the discriminator has been right on both domains": min(source, target) > 0.98,
        }
        remedies = (
            "Its gradient says little: raise --d-lr.",
            "The segmenter has stopped deceiving it: lower --d-lr or raise --lambda-adv.",
        )
        warnings = []
        for (text, holds), remedy in zip(states.items(), remedies, strict=True):
            since = self._since.setdefault(text, step) if holds else self._since.pop(text, step)
            if holds and step - since >= self._patience and text not in self._said:
                self._said.add(text)
                warnings.append(
                    f"{text} since step {since}, accuracy {source:.3f} on the source and"
                    f" {target:.3f} on the target. {remedy}"
                )
        return warnings
