"""Converts checkpoints of other implementations: BiSeNet networks and backbones."""

import re
from typing import Any

from torch import Tensor

from model.backbone import BACKBONES, backbone_name, expected_state, used_tensors
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
    """Finds a backbone in a state dict: its name and its torchvision state dict, no classifier.

    A common prefix of the keys ("backbone.", "encoder.", ...) is removed. MobileNetV2 is also found
    under other names, if its tensors have torchvision's order, shapes and last words ("weight",
    "running_mean", ...). Raises ValueError if there is no backbone of BACKBONES.
    """
    prefixes = {
        key.removesuffix(first)
        for key in state
        for first in ("conv1.weight", "features.0.0.weight")
        if re.fullmatch(r"(.*\.)?" + re.escape(first), key) and "layer" not in key
    }
    for prefix in sorted(prefixes, key=len):
        without = {
            key.removeprefix(prefix): value
            for key, value in state.items()
            if re.match(re.escape(prefix) + r"(conv1|bn1|layer[1-4]|features)\.", key)
        }
        if name := backbone_name(without):
            return name, used_tensors(without, name)
        if renamed := mobilenet_in_order(without):
            return "mobilenet_v2", renamed
    raise ValueError(
        f"Found {len(state)} tensors, {', '.join(list(state)[:3])}, ...: neither a BiSeNet of the"
        f" reference implementation nor one of {', '.join(BACKBONES)} with torchvision's names"
        " (conv1, bn1, layer1-4; features). Rename the tensors first; names of other networks are"
        " not known."
    )


def mobilenet_in_order(state: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """torchvision's names for MobileNetV2's tensors under other names; None if they differ.

    Earlier implementations number the same layers otherwise ("features.1.conv.3.weight" instead of
    "features.1.conv.1.weight"). Order, shapes and the last word of each name must agree.
    """
    expected = expected_state("mobilenet_v2")
    pairs = list(zip(expected.items(), state.items(), strict=False))
    agree = len(state) >= len(expected) and all(
        key.rsplit(".", 1)[-1] == other.rsplit(".", 1)[-1] and value.shape == found.shape
        for (key, value), (other, found) in pairs
    )
    return {key: found for (key, _), (_, found) in pairs} if agree else None
