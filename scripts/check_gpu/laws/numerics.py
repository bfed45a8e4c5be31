"""Half precision: values stay finite, and an overflow costs one optimizer one step."""

import functools
import itertools

import torch
from torch import Tensor, nn

from scripts.check_gpu import ours
from scripts.check_gpu.plan import Broken, Check, Context, Finding, NotHere

SMALL, LARGE = (2, 64, 64), (4, 128, 256)
MARGIN = 16.0
"""How far the scale of a law lies below the largest that fits."""


def stays_finite(
    context: Context, precision: str, methods: tuple[str, ...] = ("light", "self-training")
) -> Finding:
    """Losses and weights are finite after 100 steps (5 on a CPU); at most 20 were skipped."""
    if precision == "fp16" and not context.on_gpu:
        raise NotHere("needs CUDA")
    if (
        precision == "bf16"
        and context.on_gpu
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise NotHere("needs a GPU with bf16 (compute capability 8.0 or higher)")
    steps, size = (5, SMALL) if context.small else (100, LARGE)
    figures, texts = {"steps": steps}, []
    for method in methods if context.on_gpu else methods[:1]:
        step = ours.training_step(ours.Setup(method, size, context.device, precision))
        losses, scales = [], []
        for _ in range(steps):
            losses.append(torch.stack(list(step.gradients().values())).float())
            step.update()
            scales.append(step.scaler.get_scale())
        broken = [name for name, network in step.networks.items() if not all_finite(network)]
        if broken or not torch.stack(losses).isfinite().all():
            raise Broken(
                f"{method}: values that are not finite after {steps} steps in {precision}, "
                f"in {broken or 'the losses'}"
            )
        skipped = sum(after < before for before, after in itertools.pairwise(scales))
        if skipped > 20:
            raise Broken(
                f"{method}: {skipped} of {steps} steps skipped in {precision}; expected at most 20"
            )
        figures[method] = {"skipped_steps": skipped, "last_scale": scales[-1]}
        texts.append(f"{method} {skipped} skipped")
    return Finding(f"{steps} steps, finite; " + ", ".join(texts), figures)


def all_finite(network: nn.Module) -> bool:
    """Whether every weight and BatchNorm statistic of ``network`` is finite."""
    return all(bool(value.isfinite().all()) for value in network.state_dict().values())


def weights(network: nn.Module) -> Tensor:
    """A copy of all parameters as one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def overflow_skips_one_optimizer(context: Context) -> Finding:
    """With one scaler for two optimizers, an overflow in one network's gradient skips that
    network's step alone and halves the scale; the next step moves both. On a CPU the scaler works
    on float32.
    """
    scaler = None if context.on_gpu else torch.amp.GradScaler("cpu", init_scale=1024.0)
    setup = ours.Setup("light", SMALL, context.device, "fp16" if context.on_gpu else "fp32")
    step = ours.training_step(setup, scaler=scaler)
    # The scale begins high: steps are skipped until it fits.
    for _ in range(30):
        scale = step.scaler.get_scale()
        step.gradients()
        step.update()
        if step.scaler.get_scale() >= scale:
            break
    # Gradients of the next steps are several times larger or smaller: they must not overflow, too.
    step.scaler.update(step.scaler.get_scale() / MARGIN)
    for struck, other in (("discriminator", "model"), ("model", "discriminator")):
        before, scale = (
            {name: weights(network) for name, network in step.networks.items()},
            step.scaler.get_scale(),
        )
        step.gradients()
        gradient = next(p.grad for p in step.networks[struck].parameters() if p.grad is not None)
        gradient[(0,) * gradient.ndim] = float("inf")
        step.update()
        moved = {
            name: not torch.equal(before[name], weights(network))
            for name, network in step.networks.items()
        }
        if moved[struck] or not moved[other]:
            raise Broken(
                f"overflow in {struck}: found moved = {moved}; expected that {other} alone moves"
            )
        if step.scaler.get_scale() != scale / 2:
            raise Broken(
                f"overflow in {struck}: the scale went from {scale:g} "
                f"to {step.scaler.get_scale():g}; expected half"
            )
    before = {name: weights(network) for name, network in step.networks.items()}
    step.gradients()
    step.update()
    still = [
        name
        for name, network in step.networks.items()
        if torch.equal(before[name], weights(network))
    ]
    if still:
        raise Broken(f"after the overflows {', '.join(still)} did not move in a step without one")
    return Finding(
        "an overflow skips the step of its own network alone",
        {"last_scale": step.scaler.get_scale()},
    )


def adversarial_methods_and_others(context: Context, precision: str) -> Finding:
    """``stays_finite`` for the methods outside the core."""
    return stays_finite(context, precision, ("full", "minent", "pseudo-labels"))


CHECKS = (
    *(
        Check(
            "laws", f"finite in {precision}", functools.partial(stays_finite, precision=precision)
        )
        for precision in ("bf16", "fp16")
    ),
    Check("laws", "overflow in one of two", overflow_skips_one_optimizer),
    *(
        Check(
            "laws",
            f"finite in {precision}, others",
            functools.partial(adversarial_methods_and_others, precision=precision),
            core=False,
        )
        for precision in ("bf16", "fp16")
    ),
)
