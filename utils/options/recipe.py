"""Recipes: files of settings. A run writes one, settings.toml, and --recipe repeats it.

A recipe is TOML with a table for each script, ``[train]`` and ``[train_da]``; keys are flags
without their leading dashes, words joined by "_" or "-". Flags given on the command line win.
"""

import argparse
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.options.parser import Parser, user_path

RECIPES = Path(__file__).parent / "recipes"
NOT_REPEATED = frozenset(
    # They belong to one run.
    ("recipe", "name", "output", "resume")
    # They are no flags.
    + ("data_fingerprint", "source_fingerprint", "target_fingerprint", "val_fingerprint")
    + ("batch_norm_group_sizes", "batch_norm_updates", "teacher_names")
)
"""Settings that settings.toml leaves out."""


def recipe_names() -> list[str]:
    """Names of the recipes that come with the project, the default first."""
    names = sorted(path.stem for path in RECIPES.glob("*.toml"))
    return sorted(names, key=lambda name: name != "paper")


def add_recipe_argument(parser: Parser) -> None:
    """--recipe NAME|FILE.toml."""
    parser.add_argument(
        "--recipe",
        default="paper",
        metavar="NAME|FILE.toml",
        help=f"defaults for all flags: {', '.join(recipe_names())}, or a file such as a run's"
        " settings.toml",
    )


def read_recipe(name: str, script: str) -> dict[str, Any]:
    """The settings of a recipe for a script ("train" or "train_da").

    Raises FileNotFoundError for an unknown name or file, ValueError for a file that is no TOML or
    has no table for the script.
    """
    path = user_path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")  # as names of files
        content = tomllib.loads(text)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"--recipe {name}: no such recipe. Expected one of {', '.join(recipe_names())}, or a"
            " file that ends in .toml"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"--recipe {name}: {path} is no valid TOML ({error})") from error
    if not isinstance(content.get(script), dict):
        tables = ", ".join(f"[{table}]" for table in content) or "none"
        raise ValueError(
            f"--recipe {name}: {path} has no table [{script}], which {script}.py reads (found:"
            f" {tables}). Choose another recipe, or the script that it is for"
        )
    return content[script]


def given_settings(parser: Parser, script: str, recipe: str) -> set[str]:
    """Names of the flags that a recipe sets, whatever spelling it has for them."""
    return {parser.action_of_setting(name).dest for name in read_recipe(recipe, script)}


def parse_with_recipe(
    parser: Parser, script: str, argv: Sequence[str] | None
) -> argparse.Namespace:
    """Parses ``argv`` with the settings of its --recipe as defaults; flags given win."""
    parser.set_defaults(**read_recipe("paper", script))  # --help shows these
    finder = argparse.ArgumentParser(add_help=False)
    finder.add_argument("--recipe", default="paper")
    name = finder.parse_known_args(argv)[0].recipe
    if name != "paper":
        try:
            settings = read_recipe(name, script)
        except (ValueError, FileNotFoundError) as error:
            parser.error(str(error))
        parser.set_defaults(**checked_settings(parser, name, settings))
    return parser.parse_args(argv)


def flag_defaults(parser: Parser, script: str) -> dict[str, dict[str, Any]]:
    """{"flag_defaults": plain defaults of all flags}, those of the paper's recipe where it has any.

    A field of utils.training.run_parts.RunOptions.
    """
    parser.set_defaults(**read_recipe("paper", script))
    defaults = {action.dest: action.default for action in parser._actions}
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in defaults.items()}
    return {"flag_defaults": plain}


def checked_settings(parser: Parser, recipe: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a recipe with the types of their flags; ends with a message for a wrong one."""
    checked = {}
    for name, value in settings.items():
        if name == "recipe":
            parser.error(
                f"--recipe {recipe}: recipe = {value!r} is not read, because a recipe cannot extend"
                " another. Copy the settings of that one into the file"
            )
        action = parser.action_of_setting(name)
        if action is None:
            parser.error(
                f"--recipe {recipe}: unknown setting {name!r}. Expected a flag of --help-all,"
                " without its leading dashes"
            )
        if action.dest in checked:
            parser.error(f"--recipe {recipe}: {name} is set twice, under two names. Leave one out")
        action.required = False
        try:
            checked[action.dest] = _converted(action, value)
        except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
            parser.error(f"--recipe {recipe}: {name} = {value!r}: {error}")
    return checked


def _converted(action: argparse.Action, value: Any) -> Any:
    """A value of TOML as its flag would give it."""
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        if not isinstance(value, bool):
            raise ValueError("expected true or false")
        return value
    if action.nargs == "+" or isinstance(action.nargs, int):
        if not isinstance(value, list):
            raise ValueError("expected a list")
        if action.nargs != "+" and len(value) != action.nargs:
            raise ValueError(f"expected {action.nargs} values")
        return [_converted_scalar(action, item) for item in value]
    return _converted_scalar(action, value)


def _converted_scalar(action: argparse.Action, value: Any) -> Any:
    if isinstance(value, bool | list | dict):
        raise ValueError("expected a number or a text")
    convert = user_path if action.type is Path else action.type or str
    converted = convert(str(value))
    if action.choices is not None and converted not in action.choices:
        raise ValueError(f"expected one of {', '.join(map(str, action.choices))}")
    return converted


def settings_toml(script: str, name: str, settings: dict[str, Any]) -> str:
    """The text of a run's settings.toml. Values are plain; None is left out."""
    lines = [
        f"# The settings of the run {name}. To repeat it:",
        f"#   python {script}.py --recipe PATH/OF/THIS/FILE --name ANOTHER_NAME",
        "",
        f"[{script}]",
    ]
    for key, value in settings.items():
        if value is not None and key not in NOT_REPEATED:
            lines.append(f"{key} = {_toml_value(value)}")
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    """JSON's spelling of texts, numbers, lists and booleans is TOML's as well."""
    return json.dumps(value, ensure_ascii=False)
