"""The layout of a folder: named, recognized, or guessed from its files."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from dataset.describe.guess import Guess, guess_layout
from dataset.describe.suggest import suggested_layout
from dataset.find import is_system_name
from dataset.layout_file import Layout, builtin_layouts, load_layout
from dataset.prepared.journal import FOLDER as PREPARED
from dataset.prepared.journal import is_prepared
from dataset.recognition import Nearness, detect, nearness

MOST_FOLDERS = 100
"""Folders in which known data sets are looked for."""


@dataclass(frozen=True)
class Found:
    """The layout of a folder: why it is this one, or the guess that it was made from."""

    layout: Layout
    reason: str
    guess: Guess | None = None


def find_layout(root: Path, word: str | None) -> Found:
    """The layout that is named, recognized, or guessed.

    Raises FileNotFoundError for a root that does not exist, ValueError for one of several data
    sets and for one without images.
    """
    if not root.is_dir():
        kind = "is a file" if root.exists() else "does not exist"
        raise FileNotFoundError(f"{root} {kind}. Expected a folder with images.")
    if word is not None:
        return Found(load_layout(word), "named by --layout")
    try:
        layout = detect(root)
    except FileNotFoundError:
        if is_prepared(root):
            raise
        guess = guess_layout(root)
        guess.notes.extend(data_sets_inside(root))
        return found_by(guess)
    except ValueError as error:
        raise ValueError(f"{error} Or name one of them here: --layout NAME.") from error
    if is_prepared(root):
        return Found(layout, f"a root prepared by scripts.prepare ({PREPARED}/)")
    guess = guess_of_pairs(root, layout)
    if guess is not None:
        return found_by(guess)
    patterns = (p for split in layout.splits.values() for p in (*split.images, *split.labels))
    folders = sorted({p.folder for p in patterns if p.folder and (root / p.folder).is_dir()})
    return Found(layout, f"recognized by {', '.join(f'{folder}/' for folder in folders)}")


def found_by(guess: Guess) -> Found:
    """The layout of a guess."""
    return Found(layout_of(guess), "guessed from names and contents of the files", guess)


def guess_of_pairs(root: Path, layout: Layout) -> Guess | None:
    """The guess for a tree that has folders of ``layout`` with common names, but no pair of it.

    Such are images/ with masks/, or labels/ whose files are called otherwise. None: no such tree.
    """
    if not layout.by_name_alone or nearness(layout, root).pairs:
        return None
    try:
        guess = guess_layout(root)
    except ValueError:  # no images, or only label maps
        return None
    return guess if guess.has_labels else None


def data_sets_inside(root: Path) -> list[str]:
    """Notes about folders of ``root``, one or two levels down, that are known data sets."""
    folders = [path for pattern in ("*", "*/*") for path in sorted(root.glob(pattern))]
    folders = [path for path in folders if path.is_dir() and not is_system_name(path.name)]
    found = []
    for folder in folders[:MOST_FOLDERS]:
        try:
            found.append(f"{folder.relative_to(root)}/ alone is {detect(folder).title}")
        except (FileNotFoundError, ValueError):
            continue
    return [f"{'; '.join(found)}: describe such a folder by itself"] if found else []


def layout_of(guess: Guess) -> Layout:
    """The layout of guessed patterns."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "guessed.toml"
        file.write_text(suggested_layout(guess.splits, False), encoding="utf-8")
        return load_layout(file)


def near_layouts(root: Path, found: Found) -> list[Nearness]:
    """What a root holds of every other layout, where it holds anything."""
    layouts = [load_layout(name) for name in builtin_layouts() if name != found.layout.name]
    near = []
    for layout in layouts:
        try:
            near.append(nearness(layout, root))
        except ValueError:  # two labels of an image, by these patterns: it is not this layout
            continue
    return [part for part in near if part.pairs or (found.guess and (part.images or part.labels))]
