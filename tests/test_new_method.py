"""A new method is one new file in model/uda, and no other edit."""

import sys
from dataclasses import dataclass

import pytest
import torch

import train_da
from model import uda
from model.uda.base import find_methods, option
from tests.helpers.cli import run_train_da
from utils.options.parser import add_method_arguments, new_parser
from utils.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.usefixtures("narrow_networks")

TOY = '''
"""Scales the target's logits towards zero; has a weight that learns, a flag, a state, a warning."""

from dataclasses import dataclass

import torch

from model.uda.base import Method, MethodOptions, option


@dataclass(frozen=True)
class ToyOptions(MethodOptions):
    toy_weight: float = option(0.5, "weight of the toy loss", type="positive_float")
    toy_switch: bool = option(False, "a switch")

    def check(self, run):
        if run.bn == "frozen":
            raise ValueError("the toy needs BatchNorm")


class Toy(Method):
    """A method for a test."""

    name = "toy"
    Options = ToyOptions

    def __init__(self, model, options, setting):
        super().__init__(model, options, setting)
        self.networks["toy"] = torch.nn.Conv2d(19, 1, 1)
        self.optimizers["toy_optimizer"] = torch.optim.SGD(self.networks["toy"].parameters(), 0.1)

    def step(self, source, target):
        loss, _ = self.context.add_supervised_gradients(self.model, source)
        logits = self.model.low_resolution(target.image, with_aux=False).logits
        toy = self.networks["toy"](logits.float()).square().mean() * self.context.batch_fraction
        (self.options.toy_weight * toy).backward()
        return {"loss/segmentation": loss, "loss/toy": toy.detach()}

    def warnings(self, step, values):
        return [f"WARNING: toy loss {values['loss/toy']:.3f}"] if self.options.toy_switch else []
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The file in a folder that belongs to model.uda for the time of a test."""
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods/toy_method.py").write_text(TOY)
    monkeypatch.setattr(uda, "__path__", [*uda.__path__, str(tmp_path / "methods")])
    monkeypatch.setattr(train_da, "METHODS", find_methods())
    yield
    train_da.METHODS.pop("toy")
    del sys.modules["model.uda.toy_method"]


def adapt(gta5, cityscapes, output, *flags):
    """Adapts with the toy method, in this process."""
    data = ["--gta5", gta5, "--cityscapes", cityscapes]
    run_train_da(output, *data, "--method", "toy", *flags)


def test_a_method_from_one_file_trains(toy, gta5_root, cityscapes_root, tmp_path, capsys):
    """Its flags are parsed, its network learns, its state is saved, its warning is shown."""
    flags = ("--toy-weight", 0.25, "--toy-switch")
    adapt(gta5_root, cityscapes_root, tmp_path, *flags, "--max-steps", 2)
    adapt(gta5_root, cityscapes_root, tmp_path, *flags, "--max-steps", 3, "--resume")
    last = read_checkpoint(tmp_path / "run/last.pt")
    assert last["settings"]["toy_weight"] == 0.25
    assert {"toy", "toy_optimizer"} <= last["parts"].keys()
    assert not torch.equal(last["parts"]["toy"]["bias"], torch.zeros(1))
    assert "WARNING: toy loss" in capsys.readouterr().out
    assert "ema" not in last["settings"]  # of another method


def test_flags_of_a_new_method_are_refused_elsewhere(toy, capsys):
    with pytest.raises(SystemExit):
        train_da.parse_arguments(["--gta5", "x", "--cityscapes", "y", "--toy-weight", "0.5"])
    assert "--toy-weight: of --method toy" in capsys.readouterr().err


def test_a_new_method_refuses_a_run_it_does_not_fit(toy, capsys):
    """Its own check sees the settings of the run; train_da.py knows nothing of it."""
    flags = ["--gta5", "x", "--cityscapes", "y", "--method", "toy", "--bn", "frozen"]
    with pytest.raises(SystemExit):
        train_da.parse_arguments(flags)
    assert "the toy needs BatchNorm" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    ['option(0.5, "momentum", type="probability")', 'option(0.99, "momentum", type="path")'],
)
def test_methods_that_share_a_flag_declare_it_alike(toy, line):
    """Otherwise one of them would run with the other's default."""
    toy_options = train_da.METHODS["toy"].Options
    namespace = {"option": option, "dataclass": dataclass, "Base": toy_options}
    exec(f"@dataclass(frozen=True)\nclass Other(Base):\n    ema: float = {line}", namespace)
    other = type("OtherToy", (train_da.METHODS["toy"],), {"Options": namespace["Other"]})
    other.__doc__ = "Another one."
    with pytest.raises(TypeError, match="declares ema as .*they are one flag"):
        add_method_arguments(new_parser("", ""), train_da.METHODS | {"toy": other})
