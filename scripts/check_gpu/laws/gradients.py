"""Gradients on CUDA equal those on the CPU and those of the reference implementation.

On a CPU, NCHW tensors are compared with channels_last ones.

Two comparisons are made. In float64 the networks are used as they are. In float32 they cannot be:
where rounding moves an activation across the kink of its ReLU, the gradient jumps, and of some
hundred thousand activations some always move: float32 then differs from float64 by 1e-3 to 1e-2, on
one and the same CPU. So in float32 the biases keep all activations away from zero, three quarters
of them above and a quarter below.

The tolerance in float32 lies between rounding and TF32: by these comparisons, on a CPU, NCHW and
channels_last differ by 1e-5 to 4e-5, and convolutions in TF32 give 1e-2 to 3e-2 (measured for all
methods). On CUDA cuDNN may choose an algorithm (Winograd, FFT) that rounds more than the plain one.
Where a law does not hold, it is tried once more without cuDNN: if it holds then, look at cuDNN.
"""

import functools
from collections.abc import Callable

import torch
from torch import nn

from scripts import baselines
from scripts.check_gpu import ours
from scripts.check_gpu.plan import Broken, Check, Context, Finding, expect_at_most
from scripts.check_gpu.reference import (
    baseline_discriminator,
    baseline_network,
    gradient_of,
    relative_error,
)

SIZE = (4, 64, 64)
FP32_TOLERANCE = 1e-3
FP64_TOLERANCE = 1e-9
CONVOLUTION_TOLERANCE = 5e-5
"""Of one convolution or product in float32: rounding gives 2e-7 (measured on a CPU), Winograd some
1e-5, and TF32 3e-4.
"""
BATCHES = 3
"""Tried in turn in float32 until one holds: max-pooling may decide a tie differently."""

CPU = torch.device("cpu")


@torch.no_grad()
def keep_off_the_kinks(network: nn.Module) -> nn.Module:
    """Sets the biases of a BiSeNet or discriminator so that few activations are close to zero."""
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d) and "downsample" not in name and "arm" not in name:
            module.bias.fill_(3.0)
            # Some channels are negative, except where a residual connection adds to them.
            if not name.endswith("bn2"):
                module.bias[::4] = -3.0
        elif isinstance(module, nn.Sequential) and name == "layers":
            for conv in (
                layer
                for layer in list(module.modules())[:-1]
                if isinstance(layer, nn.Conv2d) and layer.groups == 1
            ):
                conv.bias.copy_(torch.where(torch.arange(len(conv.bias)) % 2 == 0, 4.0, -4.0))
    return network


def prepared_step(setup: ours.Setup, seed: int, as_they_are: bool) -> ours.TrainingStep:
    """A step on the batch of ``seed``, with the same networks on every device."""
    model = ours.build_network(setup.backbone)
    if as_they_are:
        return ours.training_step(setup, model, seed)
    step = ours.training_step(setup, keep_off_the_kinks(model), seed)
    for network in step.networks.values():
        keep_off_the_kinks(network.cpu()).to(setup.device)
    return step


def largest_error(here: ours.Setup, there: ours.Setup, seed: int, as_they_are: bool) -> float:
    """The largest relative error of a network's whole gradient between two set-ups."""
    steps = [prepared_step(setup, seed, as_they_are) for setup in (here, there)]
    for step in steps:
        step.gradients()
    first, second = (step.networks for step in steps)
    return max(
        relative_error(gradient_of(first[name]), gradient_of(second[name])) for name in first
    )


def require_small(
    error: Callable[[], float], limit: float, what: str, context: Context
) -> tuple[float, str]:
    """``error()`` and a text with its limit. Where it is larger, raises Broken with it; on CUDA
    together with the error without cuDNN, by which rounding can be told from a fault.
    """
    found = error()
    if found <= limit or not context.on_gpu:
        return found, expect_at_most(found, limit, what)
    torch.backends.cudnn.enabled = False
    try:
        plain = error()
    finally:
        torch.backends.cudnn.enabled = True
    blame = "cuDNN's algorithms round more, or are at fault" if plain <= limit else "not cuDNN"
    raise Broken(f"{what} {found:.1e}, at most {limit:.0e}; without cuDNN {plain:.1e}: {blame}")


def smallest_error(error_of_batch: Callable[[int], float]) -> float:
    """The smallest error over batches tried in turn until one holds in float32."""
    smallest = float("inf")
    for seed in range(BATCHES):
        smallest = min(smallest, error_of_batch(seed))
        if smallest <= FP32_TOLERANCE:
            break
    return smallest


def gradients_equal_the_cpus(context: Context, method: str) -> Finding:
    """Whole gradients on the device and the CPU agree: to 1e-3 in float32, 1e-9 in float64."""
    layout = torch.channels_last if context.on_gpu else torch.contiguous_format
    here, there = (
        ours.Setup(method, SIZE, context.device, memory_format=layout),
        ours.Setup(method, SIZE, CPU),
    )

    def error_fp32() -> float:
        return smallest_error(lambda seed: largest_error(here, there, seed, as_they_are=False))

    def error_fp64() -> float:
        doubles = (setup._replace(dtype=torch.float64) for setup in (here, there))
        return largest_error(*doubles, 0, as_they_are=True)

    fp32, text = require_small(error_fp32, FP32_TOLERANCE, "relative error in fp32", context)
    fp64, more = require_small(error_fp64, FP64_TOLERANCE, "relative error in fp64", context)
    return Finding(f"{text}; {more}", {"relative_error_fp32": fp32, "relative_error_fp64": fp64})


def gradients_equal_the_baselines(context: Context) -> Finding:
    """Light ADA has the gradients of scripts/baselines.py on the same device, to 1e-3."""

    def error_of_batch(seed: int) -> float:
        step = prepared_step(ours.Setup("light", SIZE, context.device), seed, as_they_are=False)
        model, discriminator = (step.networks[name] for name in ("model", "discriminator"))
        references = [baseline_network(model.cpu()), baseline_discriminator(discriminator.cpu())]
        theirs, their_discriminator = (network.to(context.device) for network in references)
        model.to(context.device), discriminator.to(context.device)
        step.gradients()
        optimizers = [
            torch.optim.SGD(network.parameters(), lr=0.0)
            for network in (theirs, their_discriminator)
        ]
        batch = ours.synthetic_batch(SIZE, seed)
        images = (
            batch.source.to(context.device),
            batch.label.long().to(context.device),
            batch.target.to(context.device),
        )
        baselines.adversarial_iteration(theirs, their_discriminator, *optimizers, *images)
        errors = relative_error(gradient_of(model), gradient_of(theirs, like=model))
        # The order of the discriminator's layers is the same, their names are not.
        discriminator_error = relative_error(
            gradient_of(discriminator), gradient_of(their_discriminator)
        )
        return max(errors, discriminator_error)

    error, text = require_small(
        lambda: smallest_error(error_of_batch), FP32_TOLERANCE, "relative error in fp32", context
    )
    return Finding(text, {"relative_error_fp32": error})


def tf32_is_off_where_fp32_is_asked_for(context: Context) -> Finding:
    """After our choice of precision, convolutions and products have the error of float32."""
    from utils.training.precision import choose_precision

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    choose_precision("fp32", torch.device("cuda"))
    if torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32:
        raise Broken("TF32 is on after --precision fp32 was chosen; expected it off")
    torch.manual_seed(0)
    image, weight = torch.randn(2, 64, 32, 32), torch.randn(64, 64, 3, 3)
    matrix = torch.randn(256, 256)
    exact = nn.functional.conv2d(image.double(), weight.double()), matrix.double() @ matrix.double()
    image, weight, matrix = (tensor.to(context.device) for tensor in (image, weight, matrix))

    def largest() -> float:
        found = nn.functional.conv2d(image, weight), matrix @ matrix
        pairs = zip(found, exact, strict=True)
        return max(relative_error(a.double().cpu().flatten(), b.flatten()) for a, b in pairs)

    error, text = require_small(largest, CONVOLUTION_TOLERANCE, "relative error", context)
    return Finding(text, {"relative_error": error})


CHECKS = (
    Check("laws", "TF32 off in fp32", tf32_is_off_where_fp32_is_asked_for),
    *(
        Check(
            "laws",
            f"gradients of {method}",
            functools.partial(gradients_equal_the_cpus, method=method),
            core=method in ("light", "self-training"),
        )
        for method in ours.METHODS
    ),
    Check("laws", "gradients of the baselines", gradients_equal_the_baselines),
)
