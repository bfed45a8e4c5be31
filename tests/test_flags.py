"""Laws of the command lines: flags are read, help is short, renamed flags say their name."""

import argparse
import ast
import dataclasses
import importlib
from pathlib import Path

import pytest

import train
import train_da
from scripts.predict import __main__ as predict
from utils.options.parser import Parser
from utils.options.renamed import RENAMED_FLAGS, RENAMED_VALUES, new_arguments, new_settings

ROOT = Path(__file__).parents[1]
ENTRIES = ["train", "train_da", "eval"] + [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for pattern in ("*.py", "*/__main__.py")
    for path in sorted((ROOT / "scripts").glob(pattern))
    if "def parse_arguments" in path.read_text() and path.parent.name != "benchmark"
]
BENCHMARKS = [
    f"scripts.benchmark.{path.stem}"
    for path in sorted((ROOT / "scripts/benchmark").glob("*.py"))
    if "def add_arguments" in path.read_text()
]
READ_BY_THE_PARSER = {"help", "help_all", "recipe"}


class Captured(Exception):
    """Carries a script's parser to a test."""


def parser_of(module, monkeypatch) -> Parser:
    """The parser that an entry script makes."""

    def capture(parser, *_):
        raise Captured(parser)

    monkeypatch.setattr(Parser, "parse_args", capture)
    try:
        module.parse_arguments([])
    except Captured as captured:
        return captured.args[0]
    raise AssertionError(f"{module.__name__} parses nothing")


def attributes_read(path: Path) -> set[str]:
    """Attributes of ``args`` that a file reads."""
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Load)
        and isinstance(node.value, ast.Name)
        and node.value.id == "args"
    }


def options_read(module, path: Path) -> set[str]:
    """Fields of the dataclasses that a file fills by ``from_arguments(NAME, vars(args))``."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        called = getattr(node, "func", None)
        if isinstance(called, ast.Name) and called.id == "from_arguments":
            if isinstance(node.args[0], ast.Name):
                options = [getattr(module, node.args[0].id)]
            else:  # METHODS[...].Options
                options = [method.Options for method in module.METHODS.values()]
            names |= {field.name for each in options for field in dataclasses.fields(each)}
    return names


@pytest.mark.parametrize("name", ENTRIES)
def test_every_flag_is_read(name, monkeypatch):
    module = importlib.import_module(name)
    path = Path(module.__file__)
    declared = {action.dest for action in parser_of(module, monkeypatch)._actions}
    read = attributes_read(path) | options_read(module, path) | READ_BY_THE_PARSER
    assert declared <= read, f"declared and never read: {sorted(declared - read)}"


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_flag_of_a_benchmark_is_read(name):
    module, parser = importlib.import_module(name), argparse.ArgumentParser()
    module.add_arguments(parser)
    declared = {action.dest for action in parser._actions} - READ_BY_THE_PARSER
    read = attributes_read(Path(module.__file__))
    assert declared <= read, f"declared and never read: {sorted(declared - read)}"


@pytest.mark.parametrize("name", train_da.METHODS)
def test_every_option_of_a_method_is_read(name):
    """Each field of ``Options`` is read, as an attribute, in a file that the method is made of."""
    method = train_da.METHODS[name]
    modules = {kind.__module__ for kind in (method, *method.Options.__mro__)} - {"builtins"}
    read = {
        node.attr
        for module in modules
        for node in ast.walk(ast.parse(Path(importlib.import_module(module).__file__).read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    assert {field.name for field in dataclasses.fields(method.Options)} <= read


def test_the_flag_law_can_fail(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("print(args.used)\nargs.written = 1\n")
    assert attributes_read(script) == {"used"}


@pytest.mark.parametrize("module", [train, train_da])
def test_help_is_short_and_help_all_is_complete(module, monkeypatch):
    """--help has at most 40 flags, --help-all has all; a help text has at most 110 characters."""
    parser = parser_of(module, monkeypatch)
    shown, everything = parser.format_help(), parser.format_help(all_flags=True)
    essential = {action for action in parser._actions if action.option_strings[0] in shown}
    assert len(essential) <= 40
    for action in parser._actions:
        assert action.option_strings[0] in everything
        assert len(action.help) <= 110, (action.option_strings, len(action.help))


@pytest.mark.parametrize("value", [[], [""]])
def test_an_unset_variable_is_named_as_a_cause(value, capsys):
    """--gta5 $UNSET, and "$UNSET", which would be the current folder."""
    with pytest.raises(SystemExit):
        train_da.parse_arguments(["--cityscapes", "y", "--gta5", *value])
    assert "variable of the shell unset?" in capsys.readouterr().err


@pytest.mark.parametrize("flag", RENAMED_FLAGS)
def test_a_renamed_flag_names_its_new_spelling(flag, capsys):
    argv = ["--gta5", "x", "--cityscapes", "y", flag, "1"]
    with pytest.raises(SystemExit):
        train_da.parse_arguments(argv)
    assert f"{flag} is called {RENAMED_FLAGS[flag]} now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "old"),
    [
        (flag, old)
        for flag, old in RENAMED_VALUES
        if flag not in (*RENAMED_FLAGS, "--train-on", "--save")
    ],
)
@pytest.mark.parametrize("form", ["{} {}", "{}={}"])
def test_a_renamed_value_names_its_new_spelling(flag, old, form, capsys):
    argv = ["--gta5", "x", "--cityscapes", "y", *form.format(flag, old).split()]
    with pytest.raises(SystemExit):
        train_da.parse_arguments(argv)
    new = RENAMED_VALUES[flag, old]
    assert f"{flag} {old} is called {flag} {new} now" in capsys.readouterr().err


def test_a_path_may_begin_with_the_home_folder(tmp_path, monkeypatch):
    """On the command line, also after "=", and in a recipe."""
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = tmp_path / "home.toml"
    recipe.write_text('[train_da]\noutput = "~/runs"\n')
    argv = ["--gta5=~/gta5", "--cityscapes", "~/cityscapes", "--recipe", str(recipe)]
    args = train_da.parse_arguments(argv)
    expected = {"gta5": "gta5", "cityscapes": "cityscapes", "output": "runs"}
    assert {name: getattr(args, name) for name in expected} == {
        name: tmp_path / folder for name, folder in expected.items()
    }


def test_every_new_spelling_exists(monkeypatch):
    known = set()
    for module in (train, train_da, predict):
        with monkeypatch.context() as patch:
            known |= set(parser_of(module, patch)._option_string_actions)
    assert set(RENAMED_FLAGS.values()) <= known
    assert {flag for flag, _ in RENAMED_VALUES} <= known | set(RENAMED_FLAGS)


def test_old_words_are_translated():
    old = "--confidence 0.9 --domain-batches joint --pixel-weights hard --no-rare-classes"
    new = "--pseudo-threshold 0.9 --joint-batch-norm --pixel-weights ohem --no-rare-class-sampling"
    assert new_arguments(old.split()) == new.split()
    assert new_arguments(["--domain-batches", "separate"]) == ["--no-joint-batch-norm"]
    assert new_settings(
        {"domain_batches": "joint", "input": "step2", "target": "5 images", "lr": 0.1}
    ) == {
        "joint_batch_norm": True,
        "input": "unit_rgb",
        "target_fingerprint": "5 images",
        "lr": 0.1,
    }
