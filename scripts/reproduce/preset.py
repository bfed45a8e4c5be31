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
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset.toml_file import read_toml

PRESET_FOLDER = Path(__file__).parents[1] / "presets"
OLD_PRESETS = {"beyond": "extended", "beyond-gpu": "extended-gpu"}
ROOTS = {"gta5", "cityscapes"}
"""Filled into all commands: the data sets."""
PLACEHOLDERS = ROOTS | {"steps", "twice_steps", "output"}
"""Filled into training commands: also steps of a row and twice as many, the seed's folder."""


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
        rows = [
            Row(**row | {"command": _expand(row["command"], parts)}) for row in content.pop("rows")
        ]
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
    return preset


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
    """The names in braces in ``texts``."""
    fields = (field for text in texts for _, field, _, _ in string.Formatter().parse(text))
    return {field for field in fields if field is not None}


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
