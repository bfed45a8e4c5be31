"""Finds files below a folder or by a pattern: the one search of every script.

Linked folders are entered, each real folder once. Hidden files and what operating systems leave
behind are passed over. What is passed over is counted, so that it can be said.
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

_SYSTEM_NAMES = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "lost+found"),
    *("$recycle.bin", "system volume information", "@eadir", "@recycle", "@recently-snapshot"),
    *("#recycle", "#snapshot", "__pycache__"),
}
"""Names, in lower case, of files and folders that operating systems and storage leave behind."""
_SPLIT_FOLDERS = {"train", "training", "val", "valid", "validation", "test", "testing"}
_MAGIC = re.compile(r"[*?\[]")


def is_system_name(name: str) -> bool:
    """Whether a file or folder is hidden, or left behind by an operating system."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def printable(text: object) -> str:
    """Text that can be printed: file names that are not UTF-8 have escapes such as \\xdf."""
    return os.fsencode(str(text)).decode("utf-8", "backslashreplace")


def print_once(text: str) -> None:
    """Prints a line; of several processes that torchrun started, in the first one only."""
    if os.environ.get("RANK", "0") == "0":
        print(text)


@dataclass
class LeftOut:
    """What a search passes over: the number, and the first path, of every kind."""

    kinds: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, kind: str, path: object, number: int = 1) -> None:
        count, first = self.kinds.get(kind, (0, str(path)))
        self.kinds[kind] = count + number, first

    def say(self, place: object) -> None:
        """Prints one line when anything was left out, once for all processes."""
        if self.kinds:
            parts = [f"{n} {kind} (such as {path})" for kind, (n, path) in self.kinds.items()]
            print_once(f"NOTE: left out under {printable(place)}: {printable('; '.join(parts))}.")


@dataclass
class Found:
    """Paths below a folder, relative to it, with "/". ``folders``: those that a pattern matches."""

    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)


class _Walk:
    """One search below a folder; see ``walk``."""

    def __init__(self, folder: Path, left_out: LeftOut, enter: Callable[[str], bool]):
        self.folder, self.left_out, self.enter = folder, left_out, enter
        real = os.path.realpath(folder)
        parents = Path(real).parents
        self.seen = {str(parent) for parent in parents}  # a link to a parent leads in a circle
        self.files: list[str] = []
        self.folders: list[str] = []
        self.links: list[tuple[str, str]] = []
        self.todo = [("", real)]

    def run(self) -> None:
        """Real folders first: a folder that is also linked keeps its own name."""
        while self.todo or self.links:
            if not self.todo:
                self.links.sort(reverse=True)
                self.todo.append(self.links.pop())
            relative, real = self.todo.pop()
            if real in self.seen:
                self.left_out.add("folders that are there by another path too", relative)
                continue
            self.seen.add(real)
            self.read(relative, real)

    def read(self, relative: str, real: str) -> None:
        for entry in self.entries(relative):
            path = f"{relative}/{entry.name}" if relative else entry.name
            if is_system_name(entry.name):
                self.pass_over(entry, path)
            elif not self.is_folder(entry):
                self.files.append(path)
            else:
                self.folders.append(path)
                if not self.enter(path):
                    continue
                if entry.is_symlink():
                    self.links.append((path, os.path.realpath(entry.path)))
                else:
                    self.todo.append((path, os.path.join(real, entry.name)))

    def entries(self, relative: str) -> list[os.DirEntry]:
        """The entries of a folder. Raises OSError for a folder that cannot be read."""
        folder = os.path.join(self.folder, relative) if relative else str(self.folder)
        try:
            with os.scandir(folder) as entries:
                return list(entries)
        except (FileNotFoundError, NotADirectoryError) as error:
            if not relative:
                return []
            raise self.unreadable(folder, error) from error
        except OSError as error:
            raise self.unreadable(folder, error) from error

    def unreadable(self, folder: str, error: OSError) -> OSError:
        return OSError(
            f"The folder {folder} cannot be read ({error.strerror or error}), and its files would"
            f" be missing. Get the permission to read it, or move it out of {self.folder}."
        )

    def is_folder(self, entry: os.DirEntry) -> bool:
        try:
            return entry.is_dir()
        except OSError as error:
            raise self.unreadable(entry.path, error) from error

    def pass_over(self, entry: os.DirEntry, path: str) -> None:
        if self.is_folder(entry):
            self.left_out.add("hidden or system folders", path)
        elif "." in entry.name.lstrip(".") and entry.name.lower() not in _SYSTEM_NAMES:
            self.left_out.add("hidden or system files", path)


def walk(
    folder: Path, left_out: LeftOut, enter: Callable[[str], bool] = lambda path: True
) -> Found:
    """All files below ``folder``, and its folders; nothing when it is no folder.

    ``enter``: whether to look into the folder of a relative path. Links that lead nowhere count as
    files, whose reader raises. Raises OSError for a folder that cannot be read.
    """
    search = _Walk(Path(folder), left_out, enter)
    search.run()
    return Found(sorted(search.files), sorted(search.folders))


def match(pattern: str, left_out: LeftOut) -> tuple[Path, Found]:
    """What ``pattern`` matches: a file, all files below a folder, or a glob pattern.

    Returns a folder and the paths below it. In a pattern ``**`` matches any depth. Leading folders
    that exist are taken as they stand, though they contain brackets. Raises OSError.
    """
    pattern = os.path.expanduser(pattern)
    path = Path(os.path.abspath(pattern))
    if path.is_dir():
        return path, walk(path, left_out)
    if path.is_file():
        return path.parent, Found([path.name])
    parts = list(path.parts)
    depth = len(parts) - 1
    while depth > 1 and not os.path.isdir(os.path.join(*parts[:depth])):
        depth -= 1
    folder, wanted = Path(*parts[:depth]), parts[depth:]
    if not any(_MAGIC.search(part) for part in wanted):
        return folder, Found()
    try:
        expression = re.compile(_expression(wanted))
    except re.error as error:
        raise ValueError(
            f"{pattern} is no pattern ({error}): in brackets, expected single characters or a range"
            " such as [0-9]. Correct it; a bracket itself is [[]."
        ) from error
    found = walk(folder, left_out, lambda entry: _may_contain(wanted, entry.split("/")))
    return folder, Found(
        [file for file in found.files if expression.fullmatch(file)],
        [entry for entry in found.folders if expression.fullmatch(entry)],
    )


def _part_expression(part: str) -> str:
    """The regular expression of one part of a glob pattern."""
    text, place = "", 0
    while place < len(part):
        end = part.find("]", place + 2)
        if part[place] == "[" and end > 0:
            inside = re.sub(r"([\\\[&|~])", r"\\\1", part[place + 1 : end])
            text += "[" + ("^" + inside[1:] if inside[0] == "!" else inside) + "]"
            place = end
        else:
            text += {"*": "[^/]*", "?": "[^/]"}.get(part[place], re.escape(part[place]))
        place += 1
    return text


def _expression(parts: list[str]) -> str:
    """The regular expression of a glob pattern; ``**`` stands for any number of folders."""
    text = ""
    for number, part in enumerate(parts):
        if part == "**":
            text += ".+" if number == len(parts) - 1 else "(?:.+/)?"
        else:
            text += _part_expression(part) + ("/" if number < len(parts) - 1 else "")
    return text


def _may_contain(parts: list[str], folders: list[str]) -> bool:
    """Whether a folder can contain files that the pattern ``parts`` matches."""
    for number, name in enumerate(folders):
        if number >= len(parts) - 1:
            return number < len(parts) and parts[number] == "**"
        if parts[number] == "**":
            return True
        if not re.fullmatch(_part_expression(parts[number]), name):
            return False
    return True


def find_files(
    root: Path, folder: str, ending: str, suffixes: Iterable[str], say: bool = True
) -> dict[str, str]:
    """Files ``*{ending}{suffix}`` below ``root/folder``, sorted: {key: path below root}.

    The key is the path below the folder, without ending and suffix; suffixes are compared without
    case. ``say``: whether to print what is left out. Raises ValueError for two files of one key,
    OSError for a folder that cannot be read.
    """
    left_out, found = LeftOut(), []
    for path in walk(Path(root) / folder, left_out).files:
        stem, suffix = os.path.splitext(path)
        if suffix.lower() not in suffixes or not stem.endswith(ending):
            left_out.add("other files", path)
            continue
        found.append((stem[: len(stem) - len(ending)], f"{folder}/{path}"))
    refuse_twins(found, root)
    if say:
        left_out.say(Path(root) / folder)
    return dict(sorted(found))


def say_joined_splits(paths: Iterable[str], place: object) -> None:
    """Prints once when images that are used lie in folders of several splits, train/ and val/.

    ``paths`` of the images below ``place``, perhaps without suffix.
    """
    by_depth: dict[int, set[str]] = defaultdict(set)
    for path in paths:
        for depth, part in enumerate(path.split("/")[:-1]):
            if part.lower() in _SPLIT_FOLDERS:
                by_depth[depth].add(part)
    folders = next((sorted(names) for names in by_depth.values() if len(names) > 1), None)
    if folders:
        joined = ", ".join(f"{name}/" for name in folders)
        print_once(
            f"NOTE: {printable(place)}: images of {joined} are used together. To use some of them"
            " alone, give their folder or a list of their names, or name the splits in a layout"
            " (docs/data.md)."
        )


def refuse_twins(
    found: Iterable[tuple[str, str]], root: Path, twins: list[tuple[str, str]] | None = None
) -> None:
    """Raises ValueError for two files of one key; ``found``: (key, path below ``root``).

    ``twins``: receives the two paths instead.
    """
    paths: dict[str, str] = {}
    doubled = []
    for key, path in found:
        if key in paths:
            doubled.append((paths[key], path))
        paths[key] = path
    if twins is not None:
        twins += doubled
    elif doubled:
        first, second = doubled[0]
        raise ValueError(
            f"{root} holds {len(doubled)} files twice, which differ in their suffix only: the first"
            f" {first} and {second}. It is unclear which one is meant: remove one of each."
        )
