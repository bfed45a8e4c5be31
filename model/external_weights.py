"""Weights of others: which of their tensors is which of ours."""

import re
from typing import Any

import torch
from torch import Tensor

from model.backbone import BACKBONES
from model.bisenet import BiSeNet
from model.weights import load_strict

WRAPPERS = ("model_state", "state_dict", "model_state_dict", "model")
"""Keys under which a checkpoint of others keeps its state dict."""

_PUBLISHED = (
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
"""Beginnings of the published implementation's keys ("saptial" is its spelling) and what they are
here.
"""


def unwrap(content: Any) -> dict[str, Tensor]:
    """The state dict inside what ``torch.load`` gave, without the "module." of DataParallel. Raises
    ValueError where there is none.
    """
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(value, Tensor) for value in content.values())
    ):
        found = (
            f"a dictionary of {', '.join(map(repr, list(content)[:4]))}"
            if isinstance(content, dict)
            else type(content).__name__
        )
        raise ValueError(
            f"Found {found}; expected a state dict of tensors, or one under"
            f" {', '.join(map(repr, WRAPPERS))}."
        )
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def is_reference_implementation(state: dict[str, Tensor]) -> bool:
    """Whether the state dict is of the published BiSeNet implementation."""
    return any(key.startswith("saptial_path.") for key in state)


def reference_network(state: dict[str, Tensor]) -> BiSeNet:
    """The network of the published implementation: the same logits. Raises ValueError for missing,
    unknown or misshapen tensors.
    """
    renamed, unknown = {}, []
    for key, value in state.items():
        # The ResNet is stored twice, as ``features`` with its unused classifier and part by part.
        if re.match(r"context_path\.(features\.fc\.|conv1\.|bn1\.|layer[1-4]\.)", key):
            continue
        pattern, ours = next(
            ((pattern, ours) for pattern, ours in _PUBLISHED if re.match(pattern, key)),
            (None, None),
        )
        if pattern is None:
            unknown.append(key)
        else:
            renamed[re.sub(f"^{pattern}", ours, key)] = value
    if unknown or "head.weight" not in renamed or "context_path.arm32.conv.weight" not in renamed:
        raise ValueError(
            f"The file is like the published implementation's, but not quite: {len(unknown)}"
            f" unknown tensors {unknown[:3]}, {len(renamed)} known. Expected saptial_path,"
            " context_path.features, attention_refinement_module1-2, supervision1-2,"
            " feature_fusion_module and conv."
        )
    wide = renamed["context_path.arm32.conv.weight"].shape[0] == 2048
    model = BiSeNet(renamed["head.weight"].shape[0], "resnet101" if wide else "resnet18")
    load_strict(
        model, renamed, str(model.architecture), "The file is incomplete, or of another network."
    )
    return model.eval()


def backbone_state(state: dict[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """The name and the torchvision state dict, without ``fc``, of a ResNet. Raises ValueError where
    it is neither of ours.

    A common beginning of all keys ("backbone.", "encoder.", ...) is taken away.
    """
    beginnings = {
        key.removesuffix("conv1.weight")
        for key in state
        if re.fullmatch(r"(.*\.)?conv1\.weight", key) and "layer" not in key
    }
    for beginning in sorted(beginnings, key=len):
        part = {
            key.removeprefix(beginning): value
            for key, value in state.items()
            if key.startswith(beginning)
        }
        part = {
            key: value for key, value in part.items() if re.match(r"(conv1|bn1|layer[1-4])\.", key)
        }
        for name in BACKBONES:
            own = {
                key: value
                for key, value in _backbone_shapes(name).items()
                if not key.endswith("num_batches_tracked")
            }
            if own == {
                key: tuple(value.shape)
                for key, value in part.items()
                if not key.endswith("num_batches_tracked")
            }:
                return name, part
    raise ValueError(
        f"Found {len(state)} tensors, {', '.join(list(state)[:3])}, ...: neither the published"
        f" BiSeNet nor a {' or '.join(BACKBONES)} with torchvision's names (conv1, bn1, layer1-4)."
        " What other networks call their parts cannot be guessed."
    )


def _backbone_shapes(name: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        backbone = BiSeNet(1, name).context_path.backbone
    return {key: tuple(value.shape) for key, value in backbone.state_dict().items()}
