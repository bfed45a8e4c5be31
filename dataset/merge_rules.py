"""The rules of a merge: each old class goes to one new class, or is ignored."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from dataset.class_set import REST, ClassSet, Encoding


def as_names(value: Any, key: str, origin: str) -> list[str]:
    """One class name or several, as a list. Raises ValueError."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"{origin}: {key} is {value!r}; expected the name of a class, or a list of names."
        )
    return names


def check_merge(
    old: tuple[str, ...],
    new: tuple[str, ...],
    merge: Mapping[str, list[str]],
    ignored: list[str],
    origin: str,
) -> None:
    """Raises ValueError unless every ``old`` class goes to one ``new`` class, or is ``ignored``.

    ``merge``: {new class: old classes}.
    """
    taken: dict[str, str] = {}
    for key, members in [*merge.items(), ("ignored", ignored)]:
        for member in members:
            if member not in old:
                near = difflib.get_close_matches(str(member), old, 1, 0)
                raise ValueError(
                    f"{origin}: {key} takes {member!r}, which is no class of the set that is"
                    f" merged (nearest: {near[0]!r}); it has {', '.join(old)}."
                )
            if member in taken:
                raise ValueError(
                    f"{origin}: {member!r} goes to {taken[member]!r} and to {key!r}. Leave one out."
                )
            taken[member] = key
    nowhere = [name for name in old if name not in taken]
    if nowhere:
        raise ValueError(
            f"{origin} leaves {', '.join(map(repr, nowhere))} nowhere. Add each to a class in"
            " [merge], or to ignored = [...]."
        )
    empty = [name for name in new if not merge.get(name)]
    unknown = [name for name in merge if name not in new]
    if empty or unknown:
        raise ValueError(
            f"{origin}: classes and [merge] differ: {(empty or unknown)[0]!r} is in one of them"
            " only. Give every class at least one class to merge."
        )


def merged_encodings(
    base: ClassSet, merge: Mapping[str, list[str]], ignored: Iterable[str]
) -> dict[str, Encoding]:
    """The encodings of ``base`` with the values of merged classes, unless none is left."""

    def merged(rule: Encoding) -> Encoding:
        classes = {
            name: tuple(value for member in members for value in rule.classes.get(member, ()))
            for name, members in merge.items()
        }
        more = tuple(value for name in ignored for value in rule.classes.get(name, ()))
        return Encoding(
            rule.read,
            {name: values for name, values in classes.items() if values},
            REST if rule.ignored == REST else (*rule.ignored, *more),
        )

    rules = {name: merged(rule) for name, rule in base.encodings.items()}
    return {name: rule for name, rule in rules.items() if rule.classes}
