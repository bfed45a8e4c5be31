"""ResNet backbone of the context path: torchvision's, without average pooling and classifier."""

import hashlib
import http.client
import urllib.error
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from model.weights import load_strict

_WEIGHTS = {
    "resnet18": torchvision.models.ResNet18_Weights.IMAGENET1K_V1,
    "resnet101": torchvision.models.ResNet101_Weights.IMAGENET1K_V1,
}
BACKBONES = tuple(_WEIGHTS)


class ResNet(nn.Module):
    """torchvision's ResNet without pooling and classifier; parameter names are torchvision's.

    (N, 3, H, W) -> feat16 (layer3: N, 256 | 1024, H/16, W/16), feat32 (layer4: N, 512 | 2048, H/32,
    W/32), for resnet18 | resnet101.
    """

    def __init__(self, name: str):
        super().__init__()
        resnet = getattr(torchvision.models, name)(weights=None)
        self.channels32 = resnet.fc.in_features
        for layer in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            setattr(self, layer, getattr(resnet, layer))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))  # (N, 64, H/4, W/4)
        feat8 = self.layer2(self.layer1(x))
        feat16 = self.layer3(feat8)
        feat32 = self.layer4(feat16)
        return feat16, feat32


def build_backbone(name: str, weights: str | None) -> tuple[ResNet, int, int]:
    """Builds a backbone; returns it with the channels of feat16 and of feat32.

    ``weights``: None (random), "imagenet", or a file with a torchvision state dict.
    Raises ValueError for an unknown name or weights of another network, FileNotFoundError for a
    missing file, ConnectionError when the ImageNet weights are neither cached nor downloadable.
    """
    if name not in BACKBONES:
        raise ValueError(f"Unknown backbone {name!r}; expected one of {', '.join(BACKBONES)}.")
    backbone = ResNet(name)
    if weights is not None:
        state = _imagenet_weights(name) if weights == "imagenet" else _read_weights(Path(weights))
        # BiSeNet has no classifier.
        state = {key: value for key, value in state.items() if not key.startswith("fc.")}
        remedy = "Give the file of the backbone that --backbone names."
        load_strict(backbone, state, f"({name} from {weights})", remedy)
    return backbone, backbone.channels32 // 2, backbone.channels32


def _imagenet_weights(name: str) -> dict[str, Tensor]:
    weights = _WEIGHTS[name]
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    file = cache / weights.url.rsplit("/", 1)[-1]
    otherwise = (
        f"fetch {weights.url} on a machine with internet and give the file: --backbone-weights"
        " FILE. To train from random weights: --backbone-weights none."
    )
    try:
        return weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as e:
        raise ConnectionError(
            f"Could not download the ImageNet weights of {name} ({e}). Put the file into {cache},"
            f" or {otherwise}"
        ) from e
    except OSError as error:
        raise OSError(
            f"Could not read or write {file} ({error.strerror or error}), where torch keeps"
            " downloaded weights. Make that folder readable and writable with some 200 MB free,"
            f" name another with the environment variable TORCH_HOME, or {otherwise}"
        ) from error
    except Exception as error:  # a damaged file raises anything from EOFError to UnpicklingError
        found = "is there, but damaged" if file.exists() else "arrived damaged, or was another file"
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"{file} {found} ({reason}): perhaps a web page, or a download that was cut short."
            f" Delete it if it is there and start again, which fetches it again; or {otherwise}"
        ) from error


def weights_origin(weights: str) -> dict[str, list[str]]:
    """What is known of backbone weights' training, as metadata of checkpoints.

    {} for random ones and torchvision's own, which saw ImageNet alone. {"unknown_weights": [name]}
    for another file: a state dict does not tell its training images.
    """
    if weights in ("none", "imagenet") or _is_torchvisions(Path(weights)):
        return {}
    return {"unknown_weights": [Path(weights).name]}


def _is_torchvisions(path: Path) -> bool:
    """Whether a file has the content of torchvision's: the hash stands in the name of that."""
    if not path.is_file():
        return False  # whoever reads it raises
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    hashes = [Path(each.url).stem.rsplit("-", 1)[-1] for each in _WEIGHTS.values()]
    return digest.startswith(tuple(hashes))


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(
            f"No backbone weights at {path}. Expected a torchvision ResNet state dict (.pth),"
            " 'imagenet' or 'none'."
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises anything from EOFError to UnpicklingError
        raise ValueError(
            f"{path} cannot be read as a state dict ({error}). Expected a torchvision ResNet state"
            " dict (.pth)."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(
            f"{path} holds no state dict of tensors. Expected a torchvision ResNet state dict"
            " (.pth); for a checkpoint of this project use --init."
        )
    return state
