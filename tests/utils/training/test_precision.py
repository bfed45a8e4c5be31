import pytest
import torch

from utils.training.precision import autocast_for, choose_device, choose_precision, scaler_for

CPU = torch.device("cpu")


def test_auto_device_is_what_the_machine_has():
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_cuda_is_refused():
    with pytest.raises(ValueError, match="no CUDA device"):
        choose_device("cuda")


@pytest.mark.parametrize(("hardware", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_precision_on_a_cpu(monkeypatch, hardware, expected):
    monkeypatch.setattr("utils.training.precision._cpu_has_bf16", lambda: hardware)
    assert choose_precision("auto", CPU) == expected
    assert choose_precision("fp32", CPU) == "fp32"


def test_fp16_needs_cuda():
    with pytest.raises(ValueError, match="needs CUDA"):
        choose_precision("fp16", CPU)


def test_autocast_computes_in_the_chosen_arithmetic():
    a = torch.randn(4, 4)
    with autocast_for(CPU, "bf16")():
        assert (a @ a).dtype == torch.bfloat16
    with autocast_for(CPU, "fp32")():
        assert (a @ a).dtype == torch.float32


def test_only_fp16_scales():
    assert not scaler_for(CPU, "bf16").is_enabled()
