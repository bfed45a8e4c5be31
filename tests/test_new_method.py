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
def install(tmp_path, monkeypatch):
    """Writes the text of a method into a folder that belongs to model.uda during a test."""
    (tmp_path / "methods").mkdir()
    monkeypatch.setattr(uda, "__path__", [*uda.__path__, str(tmp_path / "methods")])

    def write(text: str) -> None:
        (tmp_path / "methods/toy_method.py").write_text(text)
        monkeypatch.setattr(train_da, "METHODS", find_methods())

    yield write
    sys.modules.pop("model.uda.toy_method", None)


@pytest.fixture
def toy(install):
    """The toy method."""
    install(TOY)


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


def test_untyped_options_are_numbers_where_they_say_so(install, tmp_path, capsys):
    """On the command line, and in a recipe: a run is repeated with what it had. % is shown."""
    options = [
        'toy_steps: int = option(2, "the first 50 % of the steps")',
        'toy_scale: float | None = option(None, "a scale")',
        'toy_factor: float = option(1, "a factor")',
        'toy_sizes: tuple = option((1, 2), "sizes", nargs="+")',
        'toy_text: str = option("3", "a text")',
    ]
    switch = '    toy_switch: bool = option(False, "a switch")'
    install(TOY.replace(switch, "\n    ".join([switch, *options])))
    given = ["--toy-steps", "7", "--toy-scale", "2", "--toy-factor", "0.5", "--toy-sizes", "3"]
    words = ["--gta5", "x", "--cityscapes", "y", "--method", "toy"]
    found = train_da.chosen_options(train_da.parse_arguments([*words, *given]))
    assert (found.toy_steps, found.toy_scale, found.toy_factor) == (7, 2.0, 0.5)
    assert found.toy_sizes == (3,)
    (tmp_path / "recipe.toml").write_text("[train_da]\ntoy_steps = 2\ntoy_text = '3'\n")
    recipe = ["--recipe", str(tmp_path / "recipe.toml")]
    found = train_da.chosen_options(train_da.parse_arguments([*words, *recipe]))
    assert (found.toy_steps, found.toy_scale, found.toy_text) == (2, None, "3")
    with pytest.raises(SystemExit):
        train_da.parse_arguments([*words, "--help-all"])
    assert "the first 50 % of the steps (default: 2)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("line", ['    name = "minent"', ""])
def test_two_methods_of_one_name_are_refused(install, line):
    """Otherwise a copied file would train the method that it was copied from."""
    text = TOY.replace('    name = "toy"', line).replace("class Toy(Method)", "class Toy(MinEnt)")
    with pytest.raises(TypeError, match="MinEnt and model.uda.toy_method.Toy are both called"):
        install(
            text.replace("import torch\n", "import torch\nfrom model.uda.minent import MinEnt\n")
        )


def test_a_method_needs_a_name_and_a_step_alone(install, gta5_root, cityscapes_root, tmp_path):
    """No docstring, no options."""
    text = TOY.replace('    """A method for a test."""', "").replace("    Options = ToyOptions", "")
    install(
        text.replace("self.options.toy_weight", "1").replace("self.options.toy_switch", "False")
    )
    adapt(gta5_root, cityscapes_root, tmp_path, "--max-steps", 1)
    assert read_checkpoint(tmp_path / "run/last.pt")["finished"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('self.networks["ema"] = torch.nn.Conv2d(1, 1, 1)', "networks .toy, ema.*optimizer for"),
        ("self.state = lambda: {}", "lacks toy, toy_optimizer, which a resumed run"),
    ],
)
def test_what_a_method_trains_is_stepped_and_saved(
    install, line, message, gta5_root, cityscapes_root, tmp_path
):
    """Before the first step."""
    install(TOY.replace("    def step", f"        {line}\n\n    def step"))
    with pytest.raises(ValueError, match=message):
        adapt(gta5_root, cityscapes_root, tmp_path, "--max-steps", 1)
    assert not (tmp_path / "run/last.pt").exists()
