"""TOML files that flags name: the project's own by their names, or a user's by their paths."""

import difflib
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any


def read_toml(word: str | Path, folder: Path, kind: str) -> tuple[Path, dict[str, Any]]:
    """The file that a flag names, see ``toml_path``, and its content.

    Raises FileNotFoundError, or ValueError for a file that is no TOML.
    """
    path = toml_path(word, folder, kind)
    try:
        content = path.read_bytes()  # PowerShell writes UTF-16, Notepad a mark before UTF-8
        is_utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
        return path, tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is no TOML file ({error}). Correct it, and save it as UTF-8; see {folder}."
        ) from error


def refuse_unknown_keys(content: Mapping[str, Any], known: Collection[str], origin: str) -> None:
    """Raises ValueError for a key of ``content`` that is not ``known``. ``origin``: its file."""
    unknown = sorted(set(content) - set(known))
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"{origin} has the key {unknown[0]!r}, which nothing reads; expected only"
            f" {', '.join(sorted(known))}.{hint}"
        )


def toml_path(word: str | Path, folder: Path, kind: str) -> Path:
    """The file that a flag names: a built-in name, or a path of a user's TOML file.

    Raises FileNotFoundError with the nearest built-in name.
    """
    text = str(word)
    builtin = sorted(path.stem for path in folder.glob("*.toml"))
    if text in builtin:
        return folder / f"{text}.toml"
    path = Path(text).expanduser()
    if path.is_file():
        return path
    near = difflib.get_close_matches(text, builtin, 1)
    hint = f"; did you mean {near[0]}?" if near else "."
    raise FileNotFoundError(
        f"No {kind} {text!r}{hint} Expected one of {', '.join(builtin)}, or a TOML file."
    )
