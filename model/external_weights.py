"""Converts checkpoints of other implementations: BiSeNet networks and ResNet backbones."""

import re
from typing import Any

import torch
from torch import Tensor

from model.backbone import BACKBONES
from model.bisenet import BiSeNet
from model.weights import load_strict

STATE_DICT_KEYS = ("model_state", "state_dict", "model_state_dict", "model")
"""Keys under which other implementations keep the state dict of a checkpoint."""

_KEY_PATTERNS = (
    (
        r"saptial_path\.convblock([123])\.(conv1|bn)\.",
        lambda m: f"spatial_path.{int(m[1]) - 1}.{'0' if m[2] == 'conv1' else '1'}.",
    ),
    (r"context_path\.features\.", lambda m: "context_path.backbone."),
    (r"attention_refinement_module([12])\.", lambda m: f"context_path.arm{16 * int(m[1])}."),
    (r"supervision([12])\.", lambda m: f"aux{16 * int(m[1])}."),
    (
        r"feature_fusion_module\.convblock\.(conv1|bn)\.",
        lambda m: f"fusion.fuse.{'0' if m[1] == 'conv1' else '1'}.",
    ),
    (r"feature_fusion_module\.(conv[12])\.", lambda m: f"fusion.{m[1]}."),
    (r"conv\.", lambda m: "head."),
)
"""Key prefixes of the reference implementation ("saptial" is its spelling) -> prefixes here."""

_SKIPPED_KEYS = r"context_path\.(features\.fc\.|conv1\.|bn1\.|layer[1-4]\.)"
"""The reference implementation stores its ResNet twice: as ``features``, and layer by layer."""


def unwrap(content: Any) -> dict[str, Tensor]:
    """Extracts the state dict from the result of ``torch.load``, without DataParallel's "module.".

    Raises ValueError if there is none.
    """
    for key in STATE_DICT_KEYS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    is_dict = isinstance(content, dict)
    if not (is_dict and content and all(isinstance(v, Tensor) for v in content.values())):
        found = type(content).__name__
        if is_dict:
            found = f"a dictionary of {', '.join(map(repr, list(content)[:4]))}"
        raise ValueError(
            f"Found {found}; expected a state dict of tensors, or one under"
            f" {', '.join(map(repr, STATE_DICT_KEYS))}."
        )
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def is_reference_implementation(state: dict[str, Tensor]) -> bool:
    """Whether the state dict is of the BiSeNet reference implementation."""
    return any(key.startswith("saptial_path.") for key in state)


def reference_network(state: dict[str, Tensor]) -> BiSeNet:
    """Converts a network of the reference implementation: the same logits, in evaluation mode.

    Raises ValueError for missing, unknown or misshapen tensors.
    """
    renamed, unknown = {}, []
    for key, value in state.items():
        if re.match(_SKIPPED_KEYS, key):
            continue
        for pattern, new_prefix in _KEY_PATTERNS:
            if re.match(pattern, key):
                renamed[re.sub(f"^{pattern}", new_prefix, key)] = value
                break
        else:
            unknown.append(key)
    if unknown or "head.weight" not in renamed or "context_path.arm32.conv.weight" not in renamed:
        raise ValueError(
            f"The file is similar to the reference implementation, but differs: {len(unknown)}"
            f" unknown tensors {unknown[:3]}, {len(renamed)} known. Expected saptial_path,"
            " context_path.features, attention_refinement_module1-2, supervision1-2,"
            " feature_fusion_module and conv."
        )
    channels32 = renamed["context_path.arm32.conv.weight"].shape[0]
    backbone = "resnet101" if channels32 == 2048 else "resnet18"
    model = BiSeNet(renamed["head.weight"].shape[0], backbone)
    remedy = "The file is incomplete, or of another network."
    load_strict(model, renamed, str(model.architecture), remedy)
    return model.eval()


def backbone_state(state: dict[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """Finds a ResNet in a state dict: its name and its torchvision state dict, without ``fc``.

    A common prefix of the keys ("backbone.", "encoder.", ...) is removed. Raises ValueError if
    there is neither a resnet18 nor a resnet101.
    """
    prefixes = {
        key.removesuffix("conv1.weight")
        for key in state
        if re.fullmatch(r"(.*\.)?conv1\.weight", key) and "layer" not in key
    }
    for prefix in sorted(prefixes, key=len):
        backbone = {
            key.removeprefix(prefix): value
            for key, value in state.items()
            if re.match(re.escape(prefix) + r"(conv1|bn1|layer[1-4])\.", key)
        }
        for name in BACKBONES:
            if _shapes(backbone) == _expected_shapes(name):
                return name, backbone
    raise ValueError(
        f"Found {len(state)} tensors, {', '.join(list(state)[:3])}, ...: neither a BiSeNet of the"
        f" reference implementation nor a {' or '.join(BACKBONES)} with torchvision's names (conv1,"
        " bn1, layer1-4). Rename the tensors first; names of other networks are not known."
    )


def _shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors but the batch counters of BatchNorm."""
    return {
        key: tuple(value.shape)
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }


def _expected_shapes(name: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return _shapes(BiSeNet(1, name).context_path.backbone.state_dict())
