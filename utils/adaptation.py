"""One iteration of domain adaptation: what a method computes, up to the gradients. The optimisers' steps belong to the caller's loop."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from utils.losses import SOURCE, TARGET, at_least_float32, domain_loss, segmentation_loss
from utils.upsampling import upsampled_softmax


def adversarial_step(
    model: nn.Module,
    discriminator: nn.Module,
    source: Tensor,
    label: Tensor,
    target: Tensor,
    lambda_adv: float,
    autocast: Callable[[], AbstractContextManager],
    scaler: torch.amp.GradScaler,
    valid_pixels: int | None = None,
    share: float = 1.0,
) -> dict[str, Tensor]:
    """Adversarial output-space adaptation (Tsai et al., CVPR 2018; the paper's Eqs. 3-5): adds the gradients of both networks.

    Args: source and target (N, 3, H, W) normalised images, label (N, H, W) of the source; ``autocast()`` opens the run's precision,
    ``scaler`` scales what is sent backward (a disabled one passes it through). Where these images are only a part of a batch,
    ``share`` is their share of it and ``valid_pixels`` the valid pixels of the whole: gradients, losses and accuracies of the parts
    then add up to those of the whole batch.
    Returns detached scalars: the segmenter's loss, the adversarial loss before lambda, the discriminator's loss, and the shares of
    pixels that the discriminator places rightly in either domain.
    """
    # The segmenter on the source, supervised. Its graph is gone before the target's is built.
    with autocast():
        output = model.low_resolution(source)
    loss = segmentation_loss(output, label, valid_pixels=valid_pixels)
    scaler.scale(loss).backward()
    source_probabilities = upsampled_softmax(at_least_float32(output.logits.detach()), label.shape[-2:])  # (N, C, H, W)
    del output

    # The segmenter on the target, against the discriminator: only the gradient of the probabilities is asked for, so the
    # discriminator is frozen. Source and target pass separately, each with its own batch statistics.
    with autocast():
        target_logits = model.low_resolution(target, with_aux=False).logits
    target_probabilities = upsampled_softmax(at_least_float32(target_logits), target.shape[-2:])
    judged = target_probabilities.detach().requires_grad_()
    with autocast():
        target_score = discriminator(judged)  # (N, 1, H, W)
    adversarial = domain_loss(target_score, SOURCE) * share
    (gradient,) = torch.autograd.grad(scaler.scale(lambda_adv * adversarial), judged, retain_graph=True)
    target_probabilities.backward(gradient)

    # The discriminator on both, detached. Its answer to the target is the one it has just given: it has not moved since.
    with autocast():
        source_score = discriminator(source_probabilities)
    d_loss = (domain_loss(source_score, SOURCE) + domain_loss(target_score, TARGET)) / 2 * share
    torch.autograd.backward(scaler.scale(d_loss), inputs=list(discriminator.parameters()))

    return {
        "loss/segmentation": loss.detach(),
        "loss/adversarial": adversarial.detach(),
        "loss/discriminator": d_loss.detach(),
        "discriminator_accuracy/source": (source_score.detach() > 0).float().mean() * share,
        "discriminator_accuracy/target": (target_score.detach() < 0).float().mean() * share,
    }
