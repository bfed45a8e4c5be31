"""The choice of an engine: the fastest that agrees, its set-up counted."""

import pytest
import torch

from model.inference import engines
from model.inference.engines import Engine, EngineChoice, choose_engine
from model.inference.predictor import load_predictor
from tests.helpers.networks import write_checkpoint
from utils.training.checkpoint import read_checkpoint

CPU = torch.device("cpu")
IMAGES = torch.zeros(1, 40, 50, 3, dtype=torch.uint8)


class Clock:
    """Time passes only where ``segment`` says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def segment(self, seconds: float, changed: int = 0):
        """A network that takes ``seconds`` and gives another class to ``changed`` pixels."""

        def run(images):
            self.now += seconds
            classes = torch.zeros(images.shape[:3], dtype=torch.uint8)
            classes.view(-1)[:changed] = 1
            return classes

        return run

    def engine(self, name, seconds, changed=0, setup_s=10.0):
        def build():
            self.now += setup_s
            return self.segment(seconds, changed)

        return Engine(name, build, setup_s=setup_s, gain=0.5)


def chosen(choice: EngineChoice, images: int) -> str:
    choice.expect(images)
    for _ in range(min(images, 4)):
        choice(IMAGES)
    return choice.engine


@pytest.mark.parametrize(
    ("seconds", "changed", "images", "engine"),
    [
        (0.5, 0, 250, "fast"),
        (0.5, 2, 250, "fast"),  # 0.1 % of 2000 pixels
        (0.5, 3, 250, "eager"),
        (0.96, 0, 250, "eager"),
        (2.0, 0, 250, "eager"),
        (0.5, 0, 30, "eager"),
    ],
)
def test_the_fastest_engine_that_agrees_is_chosen(seconds, changed, images, engine):
    """At least 5 % faster, at most 0.1 % of the pixels changed, enough images for its set-up."""
    clock = Clock()
    other = clock.engine("fast", seconds, changed)
    assert chosen(EngineChoice(clock.segment(1.0), [other], clock=clock), images) == engine


def test_the_fastest_of_several_is_chosen():
    clock = Clock()
    others = [clock.engine("a", 0.7), clock.engine("b", 0.5), clock.engine("c", 0.6)]
    assert chosen(EngineChoice(clock.segment(1.0), others, clock=clock), 250) == "b"


def test_few_images_prepare_nothing():
    """The set-up of an engine must be worth it."""
    clock = Clock()

    def build():
        pytest.fail("was prepared")

    other = Engine("fast", build, setup_s=10, gain=0.5)
    choice = EngineChoice(clock.segment(1.0), [other], clock=clock)
    assert chosen(choice, 41) == "eager"
    assert clock.now == 4


def test_an_engine_that_cannot_be_prepared_is_left_out():
    """No compiler, no ONNX Runtime."""

    def build():
        raise ValueError("ONNX needs onnx, which is not installed")

    clock = Clock()
    others = [Engine("absent", build, 10, 0.5), clock.engine("b", 0.5)]
    assert chosen(EngineChoice(clock.segment(1.0), others, clock=clock), 250) == "b"


def test_half_precision_is_compared_with_float32():
    """An engine may be as far from float32 as the eager network is, not farther."""
    for changed, engine in ((20, "fast"), (21, "eager")):
        clock = Clock()
        other = clock.engine("fast", 0.5, changed)
        choice = EngineChoice(clock.segment(1.0, 20), [other], clock.segment(3.0), clock=clock)
        assert chosen(choice, 250) == engine


def test_every_image_is_segmented_once_and_alike():
    """Those of another size by the eager network: an engine may be made for one size."""
    clock = Clock()
    choice = EngineChoice(clock.segment(1.0), [clock.engine("fast", 0.5, 2)], clock=clock)
    choice.expect(250)
    changed = [int(choice(IMAGES).sum()) for _ in range(4)]
    assert changed == [0, 0, 2, 2]
    assert int(choice(torch.zeros(1, 50, 40, 3, dtype=torch.uint8)).sum()) == 0
    assert int(choice(IMAGES).sum()) == 2


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return read_checkpoint(write_checkpoint(tmp_path_factory.mktemp("run") / "last.pt"))


@pytest.mark.parametrize(("dtype", "names"), [("float32", ["onnx"]), ("bfloat16", ["compiled"])])
def test_what_is_tried_depends_on_the_precision(checkpoint, monkeypatch, dtype, names):
    found = []
    monkeypatch.setattr(engines, "EngineChoice", lambda *words, **_: found.append(words))
    predictor = load_predictor(checkpoint, 19, CPU, getattr(torch, dtype))
    choose_engine(predictor, checkpoint, 19)
    assert [engine.name for engine in found[0][1]] == names


@pytest.mark.slow  # tests/scripts/test_export.py has the law of the exported network
def test_onnx_runtime_gives_the_classes_of_the_network(checkpoint):
    """And refuses half precision."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="optional: pip install -r requirements-export.txt")
    eager = load_predictor(checkpoint, 19, CPU)
    choice = choose_engine(eager, checkpoint, 19, "onnx")
    torch.manual_seed(0)
    images = torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8)
    assert choice.engine == "onnx"
    assert (choice(images) != eager(images)).float().mean() < 1e-3
    half = load_predictor(checkpoint, 19, CPU, torch.bfloat16)
    with pytest.raises(ValueError, match="--engine onnx computes in float32 on the CPU"):
        choose_engine(half, checkpoint, 19, "onnx")


@pytest.mark.slow  # test_the_fastest_engine_that_agrees_is_chosen has the law of the choice
def test_a_compiled_network_gives_the_classes_of_the_network(checkpoint):
    eager = load_predictor(checkpoint, 19, CPU)
    choice = choose_engine(eager, checkpoint, 19, "compiled")
    images = torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8)
    assert (choice(images) != eager(images)).float().mean() < 1e-3
