"""What a .pt2 file may hold: torch.export.load can run code that a stranger put into it.

Read before torch opens the file. A program that scripts.export wrote holds tensors, sizes and
operators of torch.ops.aten; pickled objects, compiled libraries, operators that could open a file
and other functions are refused.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

_PROGRAMS = re.compile(r"models/\w+\.json|serialized_exported_program\.json")
_CONFIGS = re.compile(r"data/(weights|constants)/\w+_config\.json")
_PICKLES = re.compile(
    r"data/(sample_inputs|weights|constants)/\w+\.pt"
    r"|serialized_(state_dict|constants|example_inputs)\.pt"
)
_RAW = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_PLAIN = re.compile(
    r"extra/\w+|extra_files/\w+|version|byteorder|archive_format|archive_version|\.data/\w+"
)

_FUNCTIONS = re.compile(
    r"torch\.ops\.(aten|prims)\.\w+(\.\w+)?|torch\.sym_\w+|math\.\w+"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_|not_)"
    r"|_operator\.getitem"
)
_SYMBOL_NAME = re.compile(r"'[a-z_]+\d+'")
_EXPRESSION = re.compile(r"[\w\s+\-*/%(),=<>&|~]*")
_WORDS = re.compile(
    r"Symbol|Integer|Rational|Float|True|False|None|positive|negative|nonnegative|integer|zero"
    r"|evaluate|Add|Mul|Pow|Min|Max|Mod|Abs|floor|ceiling|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|Piecewise"
    r"|FloorDiv|ModularIndexing|Where|PythonMod|CleanDiv|CeilToInt|FloorToInt|CeilDiv|IntTrueDiv"
    r"|FloatTrueDiv|LShift|RShift|TruncToFloat|TruncToInt|RoundToInt|RoundDecimal|ToFloat|FloatPow"
    r"|PowByNatural|Identity|[a-z]{1,2}\d+"
)
"""Words of the sizes in a program, which torch evaluates as Python."""


def read_metadata(path: Path, key: str) -> str | None:
    """The text that was stored under ``key``; None if there is none.

    Raises ValueError for a file that could run code, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive)
            metadata = next(
                (
                    archive.read(member).decode()
                    for name, member in members.items()
                    if name in (f"extra/{key}", f"extra_files/{key}")
                ),
                None,
            )
            foreign = _foreign_content(archive, members) if metadata else None
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, KeyError, NotImplementedError) as e:
        raise ValueError(
            f"{path} cannot be loaded by torch.export ({reason_of(e)}). Export it again."
        ) from e
    if foreign:
        raise ValueError(
            f"{path} is not loaded: it holds {foreign}, which could run code on this machine, and"
            " which python -m scripts.export does not write. Ask its author for the checkpoint"
            " (last.pt) or for an .onnx file, which hold no code."
        )
    return metadata


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by their names below its one folder."""
    members = {}
    for member in archive.infolist():
        folder, _, name = member.filename.partition("/")
        if not name or name in members or not archive.filelist[0].filename.startswith(f"{folder}/"):
            raise ValueError(f"unexpected file {member.filename!r}")
        members[name] = member
    return members


def _foreign_content(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> str | None:
    """The first thing that could run code, in words; None if there is none."""
    pickles = {name for name in members if _PICKLES.fullmatch(name)}
    for name, member in members.items():
        if _CONFIGS.fullmatch(name):
            folder = name.rsplit("/", 1)[0]
            for entry in json.loads(archive.read(member))["config"].values():
                if entry["use_pickle"]:
                    pickles.add(f"{folder}/{entry['path_name']}")
        elif _PROGRAMS.fullmatch(name):
            found = _foreign_function(json.loads(archive.read(member)))
            if found:
                return found
        elif not any(kind.fullmatch(name) for kind in (_PICKLES, _RAW, _PLAIN)):
            return f"the file {name}"
    for name in sorted(pickles):
        content = archive.read(members[name])
        try:
            torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception:  # anything from EOFError to UnpicklingError
            return f"pickled objects that are no tensors ({name})"
    return None


def _foreign_function(program: Any) -> str | None:
    """The first function that is no operator on tensors, or expression that is no size."""
    for node in _dictionaries(program):
        target = node.get("target")
        is_function = isinstance(target, str) and "inputs" in node
        if is_function and (not _FUNCTIONS.fullmatch(target) or _takes_text(target)):
            return f"the function {target[:80]!r}"
        expression = node.get("expr_str")
        if isinstance(expression, str) and not _is_size(expression):
            return f"the expression {expression[:80]!r}"
    return None


def _takes_text(target: str) -> bool:
    """Whether an operator takes a text: some open the file of that name, even to write into it.

    The messages of assertions are no names of files.
    """
    operator, parts = torch.ops, [*target.split("."), "default"]
    for part in parts[2:5]:  # after torch.ops: namespace, name and overload
        operator = getattr(operator, part, None)
    if not isinstance(operator, torch._ops.OpOverload) or parts[3].startswith("_assert"):
        return False
    return any("str" in str(argument.type) for argument in operator._schema.arguments)


def _is_size(expression: str) -> bool:
    """Whether an expression computes a size from sizes: torch evaluates it as Python."""
    plain = _SYMBOL_NAME.sub("1", expression)
    words = re.findall(r"[A-Za-z_]\w*", plain)
    return bool(_EXPRESSION.fullmatch(plain)) and all(map(_WORDS.fullmatch, words))


def _dictionaries(value: Any) -> Iterator[dict]:
    """Every dictionary in a JSON value."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _dictionaries(item)


def reason_of(error: Exception) -> str:
    """The first line of an error's text, or its type: an EOFError of a cut file has no text."""
    return (str(error).splitlines() or [type(error).__name__])[0]
