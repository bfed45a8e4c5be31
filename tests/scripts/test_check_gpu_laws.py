"""The laws and measurements of scripts/check_gpu on a CPU: they hold, and they can fail."""

import contextlib
import sys
import warnings
import weakref
from types import SimpleNamespace

import pytest
import torch
import torchvision.transforms.v2.functional  # noqa: F401 (keeps the conv2d of its import)

from scripts.check_gpu import doors, inference, ours, side, training
from scripts.check_gpu.laws import gradients, numerics, pipeline
from scripts.check_gpu.plan import Broken, Context, NotHere
from tests.helpers.narrow import narrow_backbones

CPU = torch.device("cpu")


@pytest.fixture
def context(tmp_path) -> Context:
    return Context(CPU, tmp_path, small=True, seconds=60)


def rounded_to_tf32(tensor: torch.Tensor) -> torch.Tensor:
    """float32 values with the 10 bits of TF32's mantissa."""
    bits = tensor.detach().contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


class Tf32Convolution(torch.autograd.Function):
    """A convolution without bias whose factors, also those of its gradients, are TF32."""

    @staticmethod
    def forward(ctx, x, weight, options):
        ctx.save_for_backward(x, weight)
        ctx.options = options
        factors = map(rounded_to_tf32, (x, weight))
        return torch.ops.aten.convolution(*factors, None, *options)

    @staticmethod
    def backward(ctx, gradient):
        factors = map(rounded_to_tf32, (gradient, *ctx.saved_tensors))
        needed = (True, True, False)
        found = torch.ops.aten.convolution_backward(*factors, None, *ctx.options, needed)
        return found[0], found[1], None


@narrow_backbones()
def test_the_gradient_law_notices_tf32(context, monkeypatch):
    """With convolutions in TF32 on one side the law of gradients is broken."""
    conv2d = torch.nn.functional.conv2d

    def in_tf32(x, weight, bias, stride, padding, dilation, groups):
        if x.dtype != torch.float32 or x.is_contiguous(memory_format=torch.channels_last):
            return conv2d(x, weight, bias, stride, padding, dilation, groups)
        options = (list(stride), list(padding), list(dilation), False, [0, 0], groups)
        y = Tf32Convolution.apply(x, weight, options)
        return y if bias is None else y + bias[:, None, None]

    monkeypatch.setattr("torch.nn.functional.conv2d", in_tf32)
    with pytest.raises(Broken, match="relative error in fp32"):
        gradients.gradients_equal_the_cpus(context, "minent")


@pytest.mark.parametrize("method", ours.METHODS)
@narrow_backbones()
def test_gradients_do_not_depend_on_the_layout(context, method):
    """The law of gradients holds on a CPU, NCHW beside channels_last."""
    figures = gradients.gradients_equal_the_cpus(context, method).figures
    assert 0 < figures["relative_error_fp32"] <= gradients.FP32_TOLERANCE
    assert figures["relative_error_fp64"] <= gradients.FP64_TOLERANCE


def test_gradients_equal_the_baselines(context):
    """Light adversarial adaptation has the gradients of the reference implementation."""
    figures = gradients.gradients_equal_the_baselines(context).figures
    assert 0 < figures["relative_error_fp32"] <= gradients.FP32_TOLERANCE


def test_a_broken_law_is_tried_without_cudnn(context):
    """On CUDA a law that does not hold says both errors, which tell rounding from a fault."""
    on_gpu = context._replace(device=torch.device("cuda"))

    def rounded() -> float:
        return 2.0 if torch.backends.cudnn.enabled else 1e-6

    with pytest.raises(Broken, match=r"error 2.0e\+00, .*without cuDNN 1.0e-06: cuDNN's"):
        gradients.require_small(rounded, 1e-3, "error", on_gpu)
    assert torch.backends.cudnn.enabled
    with pytest.raises(Broken, match=r"without cuDNN 2.0e\+00: not cuDNN"):
        gradients.require_small(lambda: 2.0, 1e-3, "error", on_gpu)
    assert gradients.require_small(lambda: 1e-6, 1e-3, "error", on_gpu)[0] == 1e-6


@narrow_backbones()
def test_the_overflow_law_can_fail(context, monkeypatch):
    """A scaler that steps in spite of an overflow breaks the law."""
    assert "alone" in numerics.overflow_skips_one_optimizer(context).text
    unscaled = torch.amp.GradScaler._unscale_grads_

    def notices_nothing(scaler, optimizer, *rest):
        found = unscaled(scaler, optimizer, *rest)
        return {device: torch.zeros_like(value) for device, value in found.items()}

    monkeypatch.setattr(torch.amp.GradScaler, "_unscale_grads_", notices_nothing)
    with pytest.raises(Broken, match="overflow in discriminator"):
        numerics.overflow_skips_one_optimizer(context)


def test_the_sync_law_can_fail():
    """SyncBatchNorm's law compares outputs, statistics and gradients with F.batch_norm."""

    def statistics_without_gradient(images, weight, bias, *running):
        moments = [images.detach().mean((0, 2, 3)), images.detach().var((0, 2, 3), correction=0)]
        pipeline.plain_batch_norm(images, weight, bias, *running)
        return torch.nn.functional.batch_norm(images, *moments, weight, bias, training=False)

    def statistics_that_stay(images, weight, bias, *running):
        return pipeline.plain_batch_norm(images, weight, bias, *(v.clone() for v in running))

    assert pipeline.batch_norm_error(pipeline.plain_batch_norm, CPU) == 0
    assert pipeline.batch_norm_error(statistics_without_gradient, CPU) > 1e-2
    assert pipeline.batch_norm_error(statistics_that_stay, CPU) > 1e-2


def test_scaled_backward_scales_the_gradient():
    """The reference implementation in fp16 sends back the scaled loss."""
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    weight = torch.ones(3, requires_grad=True)
    with side.scaled_backward(scaler):
        weight.sum().backward()
    assert weight.grad.tolist() == [8.0] * 3
    weight.sum().backward()
    assert weight.grad.tolist() == [9.0] * 3


def test_the_log_has_what_a_script_says(tmp_path, capsys, monkeypatch):
    """What a script prints, and torch's warnings in it, are kept and reach the log as well; a
    warning that an earlier check has met is there again.
    """

    def shown(*warning: object) -> None:  # as without pytest, which collects them
        sys.stderr.write(warnings.formatwarning(*warning[:4]))

    monkeypatch.setattr(warnings, "showwarning", shown)
    script = tmp_path / "warns.py"
    script.write_text(
        "import torch, warnings\n"
        "print('begins')\n"
        "warnings.warn_explicit('has no deterministic algorithm', UserWarning, 'torch', 1,\n"
        "    registry=torch.__dict__.setdefault('__warningregistry__', {}))\n"
    )
    for _ in range(2):
        with doors.deterministic():
            said = doors.run_script(str(script)).output
        log = capsys.readouterr().err
        assert said == log
        assert "begins" in log
        assert "has no deterministic algorithm" in log


def test_the_log_has_all_that_a_failed_process_said(capsys):
    """The finding has the end of it, the log the whole."""
    with pytest.raises(Broken, match="status 3"):
        doors.require_success("a script", 3, "first line" + "\n" * 400 + "last line")
    assert "first line" in capsys.readouterr().err


class FakeGraph:
    """Stands in for torch.cuda.CUDAGraph: a replay writes ``wrong`` into the captured output."""

    wrong = 0.0

    def replay(self) -> None:
        FakeGraph.output.add_(self.wrong)


class Constant(torch.nn.Module):
    """Its output is the same at every call, and kept for the graph to write into."""

    def forward(self, image):
        FakeGraph.output = torch.ones_like(image)
        return FakeGraph.output


@pytest.fixture
def fake_cuda(monkeypatch):
    """Streams and graphs of CUDA that do nothing."""
    stream = SimpleNamespace(wait_stream=lambda _other: None)
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda: stream)
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda _what: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)


def test_a_graph_keeps_what_it_reads(fake_cuda):
    """The function that replays a graph keeps network and image: a graph holds addresses alone."""
    network, image = Constant(), torch.ones(2)
    seen = [weakref.ref(network), weakref.ref(image)]
    run = inference.captured(network, image)
    del network, image
    assert all(reference() is not None for reference in seen)
    assert run().tolist() == [1, 1]


def test_a_graph_is_compared_with_eager(fake_cuda, monkeypatch):
    """A graph that gives another output than the network is no speed to report."""
    monkeypatch.setattr(FakeGraph, "wrong", 0.5)
    with pytest.raises(Broken, match="CUDA graph: relative error"):
        inference.captured(Constant(), torch.ones(2))


def test_a_profile_counts_kernels_once():
    """On CUDA an operation and its kernels have the same time; the kernels count, and without any
    the check says what the profiler needs.
    """

    def event(key, device, us, annotation=False):
        return SimpleNamespace(
            key=key, device_type=device, self_device_time_total=us, is_user_annotation=annotation
        )

    cpu, cuda = torch.autograd.DeviceType.CPU, torch.autograd.DeviceType.CUDA
    events = [event("aten::conv2d", cpu, 30), event("step", cuda, 99, annotation=True)]
    events += [event("winograd", cuda, 20), event("relu", cuda, 25), event("winograd", cuda, 10)]
    assert list(training.self_times(events, on_gpu=True).items()) == [
        ("winograd", 30),
        ("relu", 25),
    ]
    with pytest.raises(NotHere, match="CUPTI"):
        training.self_times(events[:2], on_gpu=True)


@pytest.mark.parametrize("who", ["baseline fp32", "ours fp32"])
def test_a_side_has_speed_and_memory(who):
    """Each side of the training comparison measures itself."""
    job = {"side": who, "method": "light", "size": (2, 64, 64), "device": "cpu"}
    found = side.main(job | {"backbone": "resnet18", "seconds": 0.1})
    assert found["iterations_per_second"] > 0
    assert found["peak_memory_mb"] > 10


@pytest.mark.parametrize("method", ours.METHODS)
@narrow_backbones()
def test_a_step_moves_every_network(method):
    """The door to our methods builds each of them, with finite losses."""
    step = ours.training_step(ours.Setup(method, (2, 64, 64), CPU))
    before = {name: numerics.weights(network) for name, network in step.networks.items()}
    losses = step.gradients()
    assert all(torch.isfinite(loss) for loss in losses.values())
    step.update()
    for name, network in step.networks.items():
        assert not torch.equal(before[name], numerics.weights(network)), name
