"""Merges: which classes of one class set are which class of another, to score across class sets.

A merge is a TOML file; ``merges/`` has the built-in ones::

    from = "cityscapes19"
    to = "mine.toml"
    ignored = ["sky"]
    [merge]
    flat = ["road", "sidewalk"]
    ...

Or it is the file of a class set that is based on another one (see class_set.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset.class_set import ClassSet
from dataset.class_set_file import beside, load_class_set
from dataset.merge_rules import as_names, check_merge
from dataset.toml_file import read_toml

MERGES = Path(__file__).with_name("merges")
_KEYS = {"name", "title", "source", "from", "to", "merge", "ignored"}


@dataclass(frozen=True)
class ClassMerge:
    """How the classes of ``old`` become those of ``new``.

    ``members``: {new class: old classes}; an old class that no new one has is ignored.
    """

    name: str
    old: ClassSet
    new: ClassSet
    members: dict[str, tuple[str, ...]]

    def matrix(self) -> np.ndarray:
        """(C_old, C_new) float32 of 0 and 1: probabilities of ``old`` @ it are those of ``new``."""
        matrix = np.zeros((len(self.old), len(self.new)), np.float32)
        for name, members in self.members.items():
            rows = [self.old.names.index(member) for member in members]
            matrix[rows, self.new.names.index(name)] = 1
        return matrix

    def text(self) -> str:
        """What the merge does, in one line for a table."""
        sums = [
            f"{name} = {' + '.join(members)}"
            for name, members in self.members.items()
            if members != (name,)
        ]
        taken = {member for members in self.members.values() for member in members}
        ignored = [name for name in self.old.names if name not in taken]
        return "; ".join([*sums, *([f"ignored: {', '.join(ignored)}"] if ignored else [])])

    def as_dict(self) -> dict[str, Any]:
        """The merge as plain values, for a JSON file and for tables."""
        members = {name: list(members) for name, members in self.members.items()}
        return {
            "name": self.name,
            "from": self.old.name,
            "to": self.new.name,
            "merge": members,
            "text": self.text(),
        }

    def require(self, class_set: ClassSet, owner: str) -> None:
        """Raises ValueError unless ``class_set``, that of ``owner``, is the one that is merged."""
        if class_set.names != self.old.names:
            raise ValueError(
                f"{owner} has the {len(class_set)} classes of {class_set.name}"
                f" ({', '.join(class_set.names)}); the merge {self.name} is from the"
                f" {len(self.old)} classes of {self.old.name} ({', '.join(self.old.names)}). Give"
                " a merge from its classes."
            )


def load_merge(word: str | Path) -> ClassMerge:
    """A built-in merge by its name, or one from a TOML file: a merge, or a class set with one.

    Raises FileNotFoundError for neither, ValueError for a file that is no sound merge.
    """
    path, content = read_toml(word, MERGES, "merge")
    name = str(content.get("name", path.stem))
    if "based_on" in content:
        new = load_class_set(path)
        old = load_class_set(beside(content["based_on"], str(path)))
    else:
        old, new = _both_sets(content, path)
    merge = {key: as_names(value, key, str(path)) for key, value in content["merge"].items()}
    ignored = as_names(content.get("ignored", []), "ignored", str(path))
    check_merge(old.names, new.names, merge, ignored, str(path))
    return ClassMerge(name, old, new, {key: tuple(merge[key]) for key in new.names})


def _both_sets(content: Mapping[str, Any], path: Path) -> tuple[ClassSet, ClassSet]:
    """The class sets that a merge is from and to. Raises ValueError."""
    unknown = sorted(set(content) - _KEYS)
    missing = [key for key in ("from", "to", "merge") if key not in content]
    if unknown or missing or not isinstance(content["merge"], Mapping):
        found = f"the key {unknown[0]!r}" if unknown else f"no {(missing or ['[merge]'])[0]!r}"
        raise ValueError(
            f'{path} has {found}. Expected from = "cityscapes19", to = "camvid11", a section'
            ' [merge] with lines such as car = ["car", "truck"], and perhaps ignored = [...];'
            " or a class set with based_on."
        )
    old, new = (load_class_set(beside(content[key], str(path))) for key in ("from", "to"))
    return old, new
