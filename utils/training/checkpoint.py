"""Checkpoints: one file of tensors and plain values, written atomically.

It is read with ``weights_only=True``, so that a stranger's file cannot run code.
"""

from pathlib import Path
from typing import Any, Protocol

import torch

from utils.files import atomic_file, is_full
from utils.options.renamed import RENAMED_KEYS, RENAMED_PARTS, new_settings

FORMAT, OLD_FORMAT = "bisenet-domain-adaptation 2", "bisenet-domain-adaptation 1"


class Stateful(Protocol):
    """A network, an optimizer, a scaler."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


def save_checkpoint(path: Path, parts: dict[str, Stateful], **metadata: Any) -> None:
    """Writes the state of every part and the metadata (plain values) to ``path``.

    Raises OSError, the previous file intact, if it cannot be written.
    """
    path = Path(path)
    content = {
        "format": FORMAT,
        "parts": {name: part.state_dict() for name, part in parts.items()},
        **metadata,
    }
    try:
        with atomic_file(path, durable=True) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as failure:
        # torch reports a full disk as a RuntimeError about positions in the file.
        error = failure.__context__ if is_full(failure.__context__) else failure
        kept, remedy = "", "choose another --output"
        if path.exists():  # that of a run: scripts replace no file
            kept = f"The previous {path.name} is intact. "
            remedy = (
                f"move {path.parent} to another place and name that by --output; then continue with"
                " --resume"
            )
        if may_be_full(error):
            remedy = f"make room, or {remedy}"
        raise OSError(
            f"Could not write {path} ({error}). {kept}{remedy[0].upper()}{remedy[1:]}."
        ) from error


def may_be_full(error: BaseException | None) -> bool:
    """Whether the disk may have been full; torch reports that as RuntimeError."""
    return isinstance(error, RuntimeError) or is_full(error)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU; one of format 1 comes in the words of today.

    Raises FileNotFoundError, or ValueError for another file, or a damaged one.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder. Name the file inside, such as {path / 'last.pt'}.")
    if not path.is_file():
        raise FileNotFoundError(
            f"No checkpoint at {path}. Expected a file such as checkpoints/NAME/last.pt."
        )
    if path.suffix in (".onnx", ".pt2"):
        raise ValueError(
            f"{path} is an exported network. Expected the checkpoint that it was made from, such as"
            " checkpoints/NAME/last.pt."
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # for a damaged file: anything from EOFError to UnpicklingError
        raise ValueError(
            f"{path} is no checkpoint, or a damaged one ({reason_of(error)}). Expected a last.pt or"
            " best.pt of ours."
        ) from error
    found = content.get("format", "no format") if isinstance(content, dict) else type(content)
    if found == OLD_FORMAT:
        return _upgraded(content)
    if found != FORMAT:
        raise ValueError(
            f"{path} is no checkpoint of this project (found {found!r}, expected {FORMAT!r})."
            " Weights of other code: see python -m scripts.convert --help."
        )
    return content


def _upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of format 1 in the words of format 2 (utils.options.renamed)."""
    content = dict(content)
    parts = {RENAMED_PARTS.get(name, name): part for name, part in content["parts"].items()}
    content |= {"format": FORMAT, "parts": parts, "settings": new_settings(content["settings"])}
    for old, new in RENAMED_KEYS.items():
        if old in content:
            content[new] = content.pop(old)
    return content


def reason_of(error: Exception) -> str:
    """Reason why torch could not load a file, in one line: torch's own text is long."""
    text = str(error).split("\n")[0]
    if "Weights only load failed" in text:
        return "it is not, or not only, tensors and plain values"
    return text if " " in text else f"{type(error).__name__} {text}".strip()


def plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as values that a checkpoint may hold: paths as text, tuples as lists."""
    return {name: _plain(value) for name, value in settings.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def metadata_of_network(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of its network, for a new one: without parts and state of the run."""
    of_run = {"format", "parts", "random", "meter", "monitors", "inference_network"}
    of_run |= {"collapse_monitor"}  # of older checkpoints
    return {name: value for name, value in checkpoint.items() if name not in of_run}
