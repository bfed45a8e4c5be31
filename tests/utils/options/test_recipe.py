"""Recipes: files of settings, checked like flags; flags win; a run's settings.toml repeats it."""

import os
import tomllib

import pytest

import train
import train_da
from utils.options.recipe import RECIPES, read_recipe, settings_toml
from utils.training.run_folder import RunFolder

NEEDED = {
    "train": ["--train-on", "target", "--cityscapes", "y"],
    "train_da": ["--gta5", "x", "--cityscapes", "y"],
}
NEEDED_BY_RECIPE = {"taught": ["--teachers", "z.pt"]}
MODULES = {"train": train, "train_da": train_da}


def parse(script, *words):
    return MODULES[script].parse_arguments([*NEEDED[script], *map(str, words)])


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_setting_of_a_recipe_is_a_flag(path):
    """The recipes that come with the project parse, and give their values."""
    for script, settings in tomllib.loads(path.read_text()).items():
        args = parse(script, "--recipe", path.stem, *NEEDED_BY_RECIPE.get(path.stem, ()))
        for name, value in settings.items():
            assert getattr(args, name) == value


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_value_of_a_recipe_has_a_source(path):
    """A comment beside every value says where it is from."""
    lines = [line for line in path.read_text().splitlines() if " = " in line]
    assert [line for line in lines if "#" not in line] == []


def test_flags_win_over_a_recipe_file(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        "[train_da]\nlr = 0.5\nscales = [1, 2]\nlab = 0.25\nrare_class_sampling = true\n"
    )
    args = parse("train_da", "--recipe", file, "--lr", 0.25)
    assert (args.lr, args.scales, args.lab, args.rare_class_sampling) == (0.25, [1, 2], 0.25, True)
    assert args.max_steps == 25_000  # of the paper's recipe, below


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[train]\nlr = 1", r"has no table \[train_da\]"),
        ("lr = ", "is no valid TOML"),
        ("[train_da]\nlearning_rate = 1", "unknown setting 'learning_rate'"),
        ("[train_da]\nlr = -1", "lr = -1: expected a finite number above 0"),
        ("[train_da]\nlr = 'fast'", "lr = 'fast'"),
        ("[train_da]\nscales = 1.0", "expected a list"),
        ("[train_da]\ncrop_size = [64]", "expected 2 values"),
        ("[train_da]\nbackbone = 'vgg16'", "expected one of resnet18, resnet34"),
        ("[train_da]\nrare_class_sampling = 1", "expected true or false"),
        ("[train_da]\nlr = [1]", "expected a number or a text"),
        ("[train_da]\nscales = [1, 0.001]", "expected at least 1/64"),
        ("[train_da]\ntarget_scales = [0.001]", "expected at least 1/64"),
        ("[train_da]\nno_rare_class_sampling = true", "unknown setting 'no_rare_class_sampling'"),
        ("[train_da]\nmax_steps = 1\nmax-steps = 2", "max-steps is set twice"),
        ("[train_da]\nrecipe = 'strong'", "recipe = 'strong' is not read"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path, capsys, content, message):
    """The error says the recipe, the setting, and what is expected."""
    import re

    file = tmp_path / "mine.toml"
    file.write_text(content)
    with pytest.raises(SystemExit):
        parse("train_da", "--recipe", file)
    assert re.search(message, capsys.readouterr().err)


def test_an_unknown_recipe_is_answered_with_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        parse("train_da", "--recipe", "weak")
    assert "Expected one of paper, authors, strong, taught" in capsys.readouterr().err


def test_settings_are_read_back(tmp_path):
    """What settings_toml writes is what --recipe reads; None and names of the run are left out."""
    settings = {"lr": 1e-5, "scales": [0.5, 1.0], "crop": "random", "name": "a", "lab": 1.0}
    settings |= {"rare_class_sampling": True, "val_list": None, "gta5": 'a "strange" \\ name'}
    file = tmp_path / "settings.toml"
    file.write_text(settings_toml("train_da", "a", settings))
    kept = {key: value for key, value in settings.items() if key not in ("name", "val_list")}
    assert read_recipe(str(file), "train_da") == kept


def test_names_that_are_not_utf8_are_repeated(tmp_path):
    """A run writes them as the bytes that they are, and --recipe reads these."""
    settings = {"gta5": os.fsdecode(b"/data/caf\xe9"), "target": [os.fsdecode(b"stra\xdfe/*")]}
    with RunFolder(tmp_path / "run", resume=False) as folder:
        folder.record_settings(settings_toml("train_da", "run", settings))
        folder.open_events(0)
        folder.log_hparams(settings, [])
    assert read_recipe(str(folder.settings), "train_da") == settings


def test_settings_are_spelled_like_any_spelling_of_their_flags(tmp_path):
    """--source is --gta5; words are joined by "_" or "-"."""
    file = tmp_path / "mine.toml"
    file.write_text('[train_da]\nsource = "x"\ntarget-images = ["y"]\nmax-steps = 7\nlr = 0.5\n')
    args = train_da.parse_arguments(["--recipe", str(file)])
    assert (str(args.gta5), args.target, args.max_steps, args.lr) == ("x", ["y"], 7, 0.5)


def test_options_of_another_method_are_refused_in_a_recipe(tmp_path, capsys):
    """Unless the command line chooses the method: then the recipe is for several."""
    file = tmp_path / "mine.toml"
    file.write_text('[train_da]\ngta5 = "x"\ncityscapes = "y"\nema = 0.9\n')
    train_da.parse_arguments(["--recipe", str(file), "--method", "minent"])
    with pytest.raises(SystemExit):
        train_da.parse_arguments(["--recipe", str(file)])
    assert "--ema: of --method self-training" in capsys.readouterr().err


def test_required_flags_may_come_from_a_recipe(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[train_da]\ngta5 = "x"\ncityscapes = "y"\n')
    args = train_da.parse_arguments(["--recipe", str(file)])
    assert str(args.gta5) == "x"
