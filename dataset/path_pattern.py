"""Path patterns of data sets, such as ``gt/{condition}/train/{key}_gt_labelIds.png``.

``{key}`` stands for any text, folders included; every other ``{word}`` for one part of a path, or a
piece of it. A word that comes twice means the same text both times. The suffix is an example:
images may have any of IMAGE_SUFFIXES, labels are PNG files.
"""

import os
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from dataset.find import LeftOut, is_system_name, refuse_twins, walk
from dataset.image_io import IMAGE_SUFFIXES

KEY = "key"
_PLACEHOLDER = re.compile(r"\{([a-z_][a-z0-9_]*)\}")


class FoundFile(NamedTuple):
    """A file that a pattern matches: its path below the root, and the text of each placeholder."""

    path: str
    values: dict[str, str]


class PathPattern:
    """One pattern.

    ``folder``: its leading folders without placeholders. ``ending``: the fixed text between its
    last placeholder and the suffix. The key of a file is its path below ``folder`` without ending
    and suffix.
    """

    def __init__(self, text: str):
        """Raises ValueError for a text that is no pattern."""
        self.text = text
        problem = _problem(text)
        if problem:
            raise ValueError(
                f"The pattern {text!r} {problem}. Expected a path such as"
                " images/train/{key}.png, in which {key} stands for what an image and its label"
                " have in common."
            )
        stem, self.suffix = os.path.splitext(text)
        parts = stem.split("/")
        fixed = next(i for i, part in enumerate(parts) if "{" in part)
        self.folder = "/".join(parts[:fixed])
        self.parts = parts[fixed:]
        self.ending = parts[-1].rsplit("}", 1)[-1] if "}" in parts[-1] else f"/{parts[-1]}"
        self.words = frozenset(_PLACEHOLDER.findall(stem))

    @cached_property
    def has_key_alone(self) -> bool:
        """Whether the key of a file is the text of {key}."""
        return "/".join(self.parts) == f"{{{KEY}}}{self.ending}"

    @cached_property
    def expression(self) -> re.Pattern[str]:
        """Matches a path below ``folder`` without suffix."""
        return re.compile(_expression("/".join(self.parts)))

    @cached_property
    def _folder_expressions(self) -> list[re.Pattern[str]]:
        """Match the first folders below ``folder``, up to the part that holds {key}."""
        count = next(i for i, part in enumerate(self.parts) if f"{{{KEY}}}" in part)
        return [
            re.compile(_expression("/".join(self.parts[:number]))) for number in range(1, count + 1)
        ]

    def may_contain(self, folder: str) -> bool:
        """Whether files below ``folder``, a path below the pattern's own, can match."""
        parts, expressions = folder.split("/"), self._folder_expressions
        depth = min(len(parts), len(expressions))
        return not depth or bool(expressions[depth - 1].fullmatch("/".join(parts[:depth])))

    def key_of(self, values: dict[str, str]) -> str | None:
        """The key of the file with these ``values``; None when one of them is missing."""
        if not self.words <= values.keys():
            return None
        return _filled("/".join(self.parts), values).removesuffix(self.ending)

    def path_of(self, values: dict[str, str]) -> str | None:
        """The path of the file with these ``values``; None when one of them is missing."""
        return _filled(self.text, values) if self.words <= values.keys() else None

    def example(self) -> str:
        """The pattern as users read it: "gt/CONDITION/train/*_gt_labelIds.png"."""
        return _PLACEHOLDER.sub(
            lambda match: "*" if match[1] == KEY else match[1].upper(), self.text
        )


def _filled(text: str, values: dict[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: values[match[1]], text)


def _problem(text: str) -> str | None:
    """What is wrong with the text of a pattern."""
    stem, suffix = os.path.splitext(text)
    parts = stem.split("/")
    if text.startswith(("/", "~")) or "\\" in text or ".." in parts or "" in parts or "." in parts:
        return 'is no path below the root with "/" between folders'
    if suffix.lower() not in IMAGE_SUFFIXES:
        return f"does not end in one of {', '.join(IMAGE_SUFFIXES)}"
    if f"{{{KEY}}}" not in stem:
        return f"has no {{{KEY}}}"
    if re.search(r"[{}]", _PLACEHOLDER.sub("", stem)):
        return "has a brace that belongs to no {word} of small letters, digits and _"
    if "}{" in stem:
        return "has two placeholders without a character between them"
    return None


def _expression(text: str) -> str:
    """The regular expression of a part of a pattern."""
    expression, seen, place = "", set(), 0
    for match in _PLACEHOLDER.finditer(text):
        expression += re.escape(text[place : match.start()])
        word = match[1]
        if word in seen:
            expression += f"(?P={word})"
        else:
            expression += f"(?P<{word}>{'.+' if word == KEY else '[^/]+'})"
        seen.add(word)
        place = match.end()
    return expression + re.escape(text[place:])


def find_by_pattern(
    root: Path,
    pattern: PathPattern,
    suffixes: Sequence[str],
    other_endings: tuple[str, ...] = (),
    say: bool = True,
    twins: list[tuple[str, str]] | None = None,
    is_other: Callable[[str], bool] = lambda path: False,
) -> dict[str, FoundFile]:
    """The files below ``root`` that ``pattern`` matches, sorted: {key: FoundFile}.

    Where an archive was unpacked into its own folder once more (train/train/...), the repeated
    folders are no part of the key. ``suffixes`` are compared without case. ``other_endings``:
    files with these endings before the suffix are left out and never printed. ``say``: whether to
    print which others are left out. ``twins``: receives files of one key, see ``refuse_twins``.
    ``is_other``: see ``find_first``. Raises ValueError for files of one key, OSError for a folder
    that cannot be read.
    """
    left_out = LeftOut()
    repeated = (f"{pattern.folder}/", f"{pattern.folder.rsplit('/', 1)[-1]}/")

    def enter(folder: str) -> bool:
        inner = [folder.removeprefix(prefix) for prefix in repeated if folder.startswith(prefix)]
        return (
            any(prefix.startswith(f"{folder}/") for prefix in repeated)
            or pattern.may_contain(folder)
            or any(map(pattern.may_contain, inner))
        )

    # Files that can match, by suffix and ending.
    candidates = []  # (path, path without suffix)
    for path in walk(Path(root) / pattern.folder, left_out, enter).files:
        stem, suffix = os.path.splitext(path)
        if suffix.lower() in suffixes and stem.endswith(pattern.ending):
            if not (other_endings and stem.endswith(other_endings)):
                candidates.append((path, stem))
        else:
            left_out.add("other files", path)

    # Their keys, without the repeated folder.
    prefix = _repetition([path for path, _ in candidates], repeated) if pattern.folder else ""
    top = f"{pattern.folder}/" if pattern.folder else ""
    found: list[tuple[str, FoundFile]] = []
    for path, stem in candidates:
        if is_other(top + path):
            continue
        key = stem[len(prefix) :]
        match = pattern.expression.fullmatch(key)
        if match is None:
            left_out.add("other files", path)
            continue
        key = key[: len(key) - len(pattern.ending)]
        found.append((key, FoundFile(top + path, match.groupdict())))
    refuse_twins([(key, file.path) for key, file in found], root, twins)
    if say:
        left_out.say(Path(root) / pattern.folder)
    first = dict(reversed(found))  # of twins the first
    return {key: first[key] for key in sorted(first)}


def first_files(root: Path, pattern: PathPattern, suffixes: Sequence[str]) -> list[FoundFile]:
    """The files that ``pattern`` matches in the first folder that has any; few folders are read.

    [] when there is none in the first hundred folders with files.
    """
    top, folders_with_files = os.path.join(root, pattern.folder), 0
    for folder, inner, names in os.walk(top, followlinks=True):
        below = os.path.relpath(folder, top).replace(os.sep, "/")
        prefix = "" if below == "." else f"{below}/"
        inner[:] = sorted(name for name in inner if pattern.may_contain(prefix + name))
        found = []
        for name in sorted(names):
            stem, suffix = os.path.splitext(prefix + name)
            match = pattern.expression.fullmatch(stem)
            if match and suffix.lower() in suffixes and not is_system_name(name):
                path = prefix + name
                whole = f"{pattern.folder}/{path}" if pattern.folder else path
                found.append(FoundFile(whole, match.groupdict()))
        folders_with_files += bool(names)
        if found or folders_with_files == 100:
            return found
    return []


def _repetition(paths: Sequence[str], prefixes: Sequence[str]) -> str:
    """The first of ``prefixes`` that all ``paths`` begin with, or ""."""
    return next((p for p in prefixes if paths and all(path.startswith(p) for path in paths)), "")
