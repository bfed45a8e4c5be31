"""Presets: TOML files of comparisons. ``scripts/presets/`` has the built-in ones.

A preset of one's own may extend another one::

    base = "imagenet"
    description = "the rows of imagenet on my own streets"
    evaluation = "--layout streets.toml"
    [parts]
    target_data = "--target {cityscapes} --target-layout streets.toml"
    target_images = ""
    oracle_images = ""

Its parts replace those of the same name; ``common`` is added to that of ``base``; a row replaces
the one of its name, or comes after the others; every other key replaces that of ``base``.
"""

import argparse
import difflib
import re
import shlex
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from dataset.toml_file import read_toml

PRESET_FOLDER = Path(__file__).parents[1] / "presets"
OLD_PRESETS = {"beyond": "extended", "beyond-gpu": "extended-gpu"}
ROOTS = {"gta5", "cityscapes"}
"""Filled into all commands: the data sets."""
PLACEHOLDERS = ROOTS | {"steps", "twice_steps", "output"}
"""Filled into training commands: also steps of a row and twice as many, the seed's folder."""
ADDED_FLAGS = ("--seed", "--output", "--name", "--resume")
"""Added to all training commands, which must not give them themselves."""
TRAINING_SCRIPTS = ("train.py", "train_da.py")
KINDS = {str: "a text", bool: "true or false", int | None: "a whole number"}
"""Types of fields, in words."""


@dataclass(frozen=True)
class Row:
    """A row: its training command without the arguments that all rows share."""

    name: str
    command: str
    scored: bool = True
    """False: trained as a start for other rows, and in no table."""
    single_seed: bool = False
    """True: trained with the first of the seeds only."""

    @property
    def folder(self) -> str:
        """ "source-only + LAB" -> "source-only-lab"."""
        return self.name.lower().replace(" + ", "-").replace(" ", "-")

    @property
    def origins(self) -> list[str]:
        """Folders of the seed that the command names: of rows that this one begins from."""
        return re.findall(r"\{output\}/([^/\s]+)/", self.command)


@dataclass(frozen=True)
class Preset:
    """A comparison: its rows and the arguments that their commands share."""

    name: str
    description: str
    rows: tuple[Row, ...]
    steps: int | None = None
    """Default of --steps; None: the steps are those of the recipes."""
    common: str = ""
    """Arguments of every training command, before those of the row."""
    evaluation: str = ""
    """Arguments of every evaluation command; ROOTS are filled in."""
    published: bool = False
    """Whether tables show the paper's rows too."""


def read_preset(path: Path) -> Preset:
    """Reads a preset from TOML: the fields of ``Preset``, [parts] that commands can name, ``base``.

    Raises ValueError for unknown fields and placeholders, FileNotFoundError for an unknown base.
    """
    try:
        content = _content(path, ())
        parts = content.pop("parts", {})
        _refuse_unused(parts, content, path)
        for key in ("common", "evaluation"):
            content[key] = _expand(content.get(key, ""), parts)
        rows = content.pop("rows")
        for kind, fields in ((Preset, content), *((Row, row) for row in rows)):
            _require_types(kind, fields, path)
        rows = [Row(**row | {"command": _expand(row["command"], parts)}) for row in rows]
        preset = Preset(path.stem, rows=tuple(rows), **content)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path} is no preset ({error}). Compare it with {PRESET_FOLDER / 'demo.toml'}."
        ) from error
    fields = placeholders(preset.common, *(row.command for row in preset.rows))
    for known, found in ((PLACEHOLDERS, fields), (ROOTS, placeholders(preset.evaluation))):
        if unknown := found - known:
            raise ValueError(
                f"{path} names {{{min(unknown)}}}. Expected one of its parts, or of"
                f" {', '.join(sorted(known))}."
            )
    if preset.steps is None and fields & {"steps", "twice_steps"}:
        raise ValueError(f"{path} uses {{steps}} without a default. Add a line: steps = 1_000")
    if preset.steps is not None and not fields & {"steps", "twice_steps"}:
        raise ValueError(
            f"{path}: steps = {preset.steps}, but no command names {{steps}}. Name it, or remove"
            " that line."
        )
    _require_commands(preset, path)
    _require_folders(preset.rows, path)
    return preset


def _require_types(kind: type, fields: dict[str, Any], path: Path) -> None:
    """Raises ValueError for a value of another type than the field of ``kind`` has."""
    for name, expected in get_type_hints(kind).items():
        if name in fields and not isinstance(fields[name], expected):
            raise ValueError(
                f"{path}: {name} = {fields[name]!r}. Expected {KINDS[expected]}; compare it with"
                f" {PRESET_FOLDER / 'demo.toml'}."
            )


def _require_commands(preset: Preset, path: Path) -> None:
    """Raises ValueError for commands that no shell could read, or of another script, or with flags
    that are added to all.
    """
    texts = {f"the row {row.name!r}": f"{row.command} {preset.common}" for row in preset.rows}
    for where, text in (texts | {"evaluation": preset.evaluation}).items():
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise ValueError(f"{path}: {where}: {error} in {text.strip()!r}.") from error
        if where in texts and words[:1] not in [[script] for script in TRAINING_SCRIPTS]:
            raise ValueError(
                f"{path}: {where} has the command {text.strip()!r}. Expected"
                f" {' or '.join(TRAINING_SCRIPTS)}, then flags."
            )
        if where in texts and (added := added_flags(words)):
            raise ValueError(
                f"{path}: {where} gives {added[0]}, which scripts.reproduce adds itself (--seeds,"
                " --output). Remove it."
            )


def added_flags(words: Sequence[str]) -> list[str]:
    """Those of the ADDED_FLAGS that a command line gives, perhaps as --flag=value."""
    return [flag for word in words if (flag := word.split("=")[0]) in ADDED_FLAGS]


def _require_folders(rows: Sequence[Row], path: Path) -> None:
    """Raises ValueError for rows without a folder of their own, or that begin from later rows."""
    if not rows:
        raise ValueError(f"{path} has no rows. Add some: [[rows]]")
    names: dict[str, str] = {}
    folders = [row.folder for row in rows]
    for number, row in enumerate(rows):
        if not row.folder.strip(".") or re.search(r"[/\\]", row.folder):
            raise ValueError(
                f"{path}: the name of the row {row.name!r} makes the folder {row.folder!r}."
                " Expected a name without / and \\, which is not empty."
            )
        if row.folder in names:
            raise ValueError(
                f"{path}: the rows {names[row.folder]!r} and {row.name!r} have the same folder,"
                f" {row.folder!r}. Rename one of them."
            )
        names[row.folder] = row.name
        if later := set(row.origins) & set(folders[number:]):
            raise ValueError(
                f"{path}: the row {row.name!r} begins from {{output}}/{min(later)}, which is not"
                " trained before it. Rows are trained in their order: move that row up."
            )


def _content(word: str | Path, extended_by: tuple[Path, ...]) -> dict[str, Any]:
    """A preset's content, with that of the preset that it extends.

    ``extended_by``: the files that extend it. Raises ValueError, FileNotFoundError.
    """
    path, own = read_toml(word, PRESET_FOLDER, "preset")
    if path.resolve() in extended_by:
        raise ValueError(f"{path} extends itself. Give base another preset.")
    if "base" not in own:
        return own
    base = own.pop("base")
    if base not in preset_names():
        base = path.parent / Path(base).expanduser()  # relative to the file that names it
    content = _content(base, (*extended_by, path.resolve()))
    own_names = [row["name"] for row in own.get("rows", [])]
    if repeated := [name for name in own_names if own_names.count(name) > 1]:
        raise ValueError(f"{path} has two rows {repeated[0]!r}. Rename or remove one of them.")
    rows = {row["name"]: row for row in [*content["rows"], *own.get("rows", [])]}
    joined = {
        "parts": content.get("parts", {}) | own.get("parts", {}),
        "rows": list(rows.values()),
        "common": f"{content.get('common', '')} {own.get('common', '')}",
    }
    return content | own | joined


def _refuse_unused(parts: dict[str, str], content: dict[str, Any], path: Path) -> None:
    """Raises ValueError for a part that neither a command nor another part names."""
    commands = [content.get("common", ""), content.get("evaluation", "")]
    commands += [row["command"] for row in content["rows"]]
    named = placeholders(*commands, *parts.values())
    for part in parts:
        if part not in named:
            near = difflib.get_close_matches(part, named, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{path}: no command names the part {part!r}.{hint} Or remove it.")


def placeholders(*texts: str) -> set[str]:
    """The names in braces in ``texts``. Raises ValueError for a brace alone."""
    fields = set()
    for text in texts:
        try:
            fields |= {field for _, field, _, _ in string.Formatter().parse(text)}
        except ValueError as error:
            raise ValueError(
                f"{error} in {text.strip()!r}. Expected names in braces; write {{{{ for a brace."
            ) from error
    return fields - {None}


def _expand(text: str, parts: dict[str, str]) -> str:
    """Replaces the names of ``parts`` in braces by their texts, also inside parts."""
    for _ in range(len(parts)):
        for name, part in parts.items():
            text = text.replace(f"{{{name}}}", part)
    return text


def preset_names() -> list[str]:
    """Names of the files in scripts/presets/."""
    return sorted(path.stem for path in PRESET_FOLDER.glob("*.toml"))


def preset_argument(word: str) -> Preset:
    """An argparse type: the name of a preset, or the path of a TOML file."""
    if word in OLD_PRESETS:
        raise argparse.ArgumentTypeError(f"{word!r} is now called {OLD_PRESETS[word]!r}")
    path = Path(word) if word.endswith(".toml") else PRESET_FOLDER / f"{word}.toml"
    if not path.is_file():
        raise argparse.ArgumentTypeError(
            f"no preset {word!r}: expected one of {', '.join(preset_names())}, or a FILE.toml"
        )
    try:
        return read_preset(path)
    except (ValueError, FileNotFoundError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def describe_presets() -> str:
    """A line for each preset, for the help."""
    presets = [read_preset(PRESET_FOLDER / f"{name}.toml") for name in preset_names()]
    lines = [
        f"  {preset.name:13} {preset.description}"
        + (f"; {preset.steps:,} steps" if preset.steps else "")
        for preset in presets
    ]
    return "\n".join(["presets (scripts/presets/*.toml):", *lines])
