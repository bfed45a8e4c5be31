"""python -m scripts.benchmark: results of small measurements."""

import json

import pytest
import torch

from model.bisenet import BiSeNet
from model.inference.cost import convolution_macs
from scripts.baselines import BaselineBiSeNet
from scripts.benchmark import __main__ as benchmark
from scripts.benchmark import methods as benchmark_methods
from scripts.benchmark import model as benchmark_model
from scripts.benchmark import train as benchmark_train
from scripts.benchmark.evaluation import baseline_of, device_notes
from tests.helpers.narrow import narrow_backbones
from tests.helpers.networks import trained_like_network, write_checkpoint
from utils.benchmark.memory import PeakMemory, available_memory
from utils.benchmark.timing import measure, percentiles_ms, ratio

CPU = torch.device("cpu")


def run(*words) -> None:
    benchmark.main(benchmark.parse_arguments([*map(str, words), "--device", "cpu"]))


def test_model(tmp_path, capsys):
    """The result has all configurations, the parameters of the paper, and the best speed-up."""
    words = ["--size", 64, 96, "--backends", "eager", "folded", "--precisions", "fp32"]
    run("model", *words, "--repeats", 3, "--json", tmp_path / "x.json")
    result = json.loads((tmp_path / "x.json").read_text())
    assert result["sides"].keys() == {"baseline eager fp32", "eager fp32", "folded fp32"}
    assert result["parameters_million"] == 12.054042
    ratios = [
        result["sides"][name]["ratio_vs_eager_fp32"] for name in ("eager fp32", "folded fp32")
    ]
    assert result["ratio_best_vs_eager_fp32"] == max(ratios)
    assert result["environment"]["torch"] == torch.__version__
    assert "| folded fp32" in capsys.readouterr().out


def test_model_measures_any_number_of_classes(tmp_path):
    """The baseline has as many classes as the checkpoint."""
    file = write_checkpoint(tmp_path / "last.pt", network=BiSeNet(3))
    words = ["--size", 64, 64, "--backends", "eager", "--precisions", "fp32"]
    run("model", "--checkpoint", file, *words, "--repeats", 1, "--json", tmp_path / "x.json")
    result = json.loads((tmp_path / "x.json").read_text())
    assert result["sides"].keys() == {"baseline eager fp32", "eager fp32"}
    published = "convolution_gmac_closed_form_published_order"
    assert result["convolution_gmac_closed_form"] == pytest.approx(result[published], rel=0.01)


@pytest.mark.parametrize("name", benchmark.SUBCOMMANDS)
def test_results_have_a_folder_before_the_measuring(name, tmp_path, monkeypatch):
    """A new one is made; one that cannot be made ends the command at its start."""
    monkeypatch.setattr(benchmark.SUBCOMMANDS[name], "run", lambda args: None)
    roots = {"data": ["--gta5", "g", "--cityscapes", "c"], "deployment": ["--checkpoint", "c"]}
    words = [name, *roots.get(name, []), "--json"]
    benchmark.main(benchmark.parse_arguments([*words, str(tmp_path / "new/x.json")]))
    assert (tmp_path / "new").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Cannot write into"):
        benchmark.main(benchmark.parse_arguments([*words, str(tmp_path / "file/x.json")]))


def test_an_absent_backend_is_left_out_with_its_reason(tmp_path, monkeypatch, capsys):
    """Other backends are still measured."""

    def absent(*_packages):
        raise ValueError("ONNX needs onnx, which is not installed")

    monkeypatch.setattr(benchmark_model, "require_onnx", absent)
    words = ["--size", 64, 96, "--backends", "onnx", "folded", "--precisions", "fp32"]
    run("model", *words, "--repeats", 1)
    assert "left out: onnx fp32 (ONNX needs onnx" in capsys.readouterr().out


def test_model_refuses_sizes_that_the_baseline_cannot_take():
    """Sizes are multiples of 32."""
    with pytest.raises(ValueError, match="multiples of 32"):
        run("model", "--size", 65, 96)


@pytest.mark.parametrize("name", ["model", "evaluation"])
def test_networks_without_a_baseline_are_refused(name, tmp_path):
    """Other backbones and a wider fusion; deployment measures them."""
    for options in ({"backbone": "resnet34"}, {"fusion_channels": 64}):
        network = BiSeNet(19, **options)
        file = write_checkpoint(tmp_path / "last.pt", network=network)
        with pytest.raises(ValueError, match=r"baseline .*scripts.benchmark deployment"):
            run(name, "--checkpoint", file)


def test_evaluation(cityscapes_root, tmp_path):
    """The score in fp32 is that of the baseline; fp32 has one turn beside another precision."""
    words = ["--cityscapes", cityscapes_root, "--images", 2, "--repeats", 2, "--workers", 0]
    run("evaluation", *words, "--precision", "bf16", "--json", tmp_path / "x.json")
    result = json.loads((tmp_path / "x.json").read_text())
    assert result["ratio_evaluation"] == result["bf16"]["ratio"] > 0
    miou = result["baseline"]["miou_percent"]
    assert result["fp32"]["miou_percent"] == pytest.approx(miou, abs=0.01)
    assert [result[name]["turns"] for name in ("baseline", "fp32", "bf16")] == [2, 1, 2]
    assert result["images"] == 2


def test_a_ratio_of_two_devices_is_said():
    """The baseline computes on the CPU, wherever ours does."""
    assert device_notes(torch.device("cpu")) == []
    (note,) = device_notes(torch.device("cuda"))
    assert "baseline computes on the CPU and ours on cuda" in note


def test_an_unwritable_output_is_refused_first(tmp_path):
    """The folder of --json is tested before the measurement."""
    (tmp_path / "file").write_text("")
    for name in ("model", "evaluation"):
        with pytest.raises(OSError, match="Cannot write into"):
            run(name, "--json", tmp_path / "file/x.json")
        with pytest.raises(OSError, match="it is a folder"):
            run(name, "--json", tmp_path)


def test_the_baseline_is_the_same_function():
    """Baseline and network have equal logits with equal weights."""
    model = trained_like_network()
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        expected, found = baseline_of(model)(image), model(image).logits
    torch.testing.assert_close(expected, found, rtol=1e-3, atol=1e-3)


def test_macs_in_closed_form_are_those_of_the_paper():
    """25.63 G MACs for the baseline; less the head at full size for BiSeNet, which is unchanged."""
    macs = convolution_macs(BaselineBiSeNet(), (3, 512, 1024))
    assert macs / 1e9 == pytest.approx(25.63, abs=0.005)
    model = BiSeNet()
    head_at_full_size = 19 * 19 * 512 * 1024 * (1 - 1 / 64)
    macs = convolution_macs(model, (3, 512, 1024))
    assert macs / 1e9 == pytest.approx(25.63 - head_at_full_size / 1e9, abs=0.005)
    assert next(model.parameters()).device.type == "cpu"
    assert not model.head._forward_hooks


def test_functions_take_turns_after_a_warm_up():
    """measure: a, b, a, b, ...; the warm-up is not measured."""
    calls = []
    functions = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = measure(functions, CPU, repeats=3, warm_up=1)
    assert calls == ["a", "b"] * 4
    assert len(seconds["a"]) == len(seconds["b"]) == 3


def test_percentiles_and_ratio():
    """Percentiles in milliseconds; the ratio is the median of the quotients."""
    expected = {"min": 1, "p50": 2, "p90": 2.8, "p99": 2.98}
    assert percentiles_ms([0.001, 0.002, 0.003]) == pytest.approx(expected)
    assert ratio([2.0, 8.0, 9.0], [1.0, 2.0, 9.0]) == 2  # of the quotients 2, 4 and 1


def test_memory():
    """PeakMemory measures a tensor of 50 MB."""
    assert available_memory(CPU) > 10_000_000
    with PeakMemory(CPU) as memory:
        torch.ones(50_000_000 // 4).sum()
    assert 40e6 < memory.bytes < 200e6


@narrow_backbones()
def test_methods_are_timed_against_source_only(tmp_path, capsys):
    """Source-only is always measured, first, and is 1."""
    names = ["light ADA", "light ADA, joint batches", "MinEnt", "self-training", "strong"]
    names += ["source-only, hard pixels"]
    sizes = ["--crop-size", 64, 64, "--batch-size", 2, "--repeats", 1, "--precision", "fp32"]
    run("methods", *sizes, "--json", tmp_path / "x.json", "--methods", *names)
    result = json.loads((tmp_path / "x.json").read_text())
    assert result["times_source_only"]["source-only"] == 1
    assert list(result["seconds"]) == ["source-only", *names]
    assert "times source-only" in capsys.readouterr().out


def test_methods_are_timed_with_any_network(monkeypatch):
    """Of every backbone of BiSeNet, and of one width in all rows, also those with their own."""
    networks = []

    def build(*args, **options):
        networks.append((args[1], options["fusion_channels"]))
        return BiSeNet(*args, **options)

    monkeypatch.setattr(benchmark_methods, "BiSeNet", build)
    flags = ["--backbone", "mobilenet_v2", "--fusion-channels", 32, "--methods", "strong"]
    run("methods", *flags, "--crop-size", 32, 32, "--batch-size", 2, "--repeats", 1)
    assert networks == [("mobilenet_v2", 32)] * 2


@pytest.mark.slow  # ten processes, each of which imports torch
@pytest.mark.parametrize(
    ("hardware", "sides"), [("fp32", ("baseline", "fp32")), ("bf16", ("baseline", "fp32", "bf16"))]
)
def test_training_is_compared_in_hardware_precisions(
    tmp_path, monkeypatch, capsys, hardware, sides
):
    """bf16 is measured only if the hardware computes it."""
    monkeypatch.setattr(benchmark_train, "choose_precision", lambda _wanted, _device: hardware)
    sizes = ["--crop-size", 32, 32, "--memory-size", 32, 32]
    sizes += ["--batch-size", 2, "--rounds", 1, "--steps", 1]
    run("train", *sizes, "--json", tmp_path / "x.json")
    result = json.loads((tmp_path / "x.json").read_text())
    assert tuple(result["seconds"]) == tuple(result["peak_mib"]) == sides
    assert result["ratio_time_fp32"] == pytest.approx(
        result["seconds"]["baseline"][0] / result["seconds"]["fp32"][0]
    )
    assert (
        (result["ratio_time_bf16"] is None)
        == (result["ratio_memory"] is None)
        == ("bf16" not in sides)
    )
    assert ("bf16 is left out" in capsys.readouterr().out) == ("bf16" not in sides)
