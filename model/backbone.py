"""Backbones of the context path: torchvision's networks, without pooling and classifier."""

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
    "resnet34": torchvision.models.ResNet34_Weights.IMAGENET1K_V1,
    "resnet50": torchvision.models.ResNet50_Weights.IMAGENET1K_V1,
    "resnet101": torchvision.models.ResNet101_Weights.IMAGENET1K_V1,
    "mobilenet_v2": torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1,
}
BACKBONES = tuple(_WEIGHTS)


class ResNet(nn.Module):
    """torchvision's ResNet without pooling and classifier; parameter names are torchvision's.

    (N, 3, H, W) -> feat16 (layer3: N, ``channels16``, H/16, W/16) and feat32 (layer4: N,
    ``channels32``, H/32, W/32): 256 and 512 channels for resnet18 and resnet34, 1024 and 2048 for
    resnet50 and resnet101.
    """

    UNUSED = ("fc.",)
    """Prefixes of torchvision's tensors that BiSeNet has not."""

    def __init__(self, name: str):
        super().__init__()
        resnet = getattr(torchvision.models, name)(weights=None)
        for layer in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            setattr(self, layer, getattr(resnet, layer))
        self.channels16, self.channels32 = _width(self.layer3), _width(self.layer4)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))  # (N, 64, H/4, W/4)
        feat8 = self.layer2(self.layer1(x))
        feat16 = self.layer3(feat8)
        feat32 = self.layer4(feat16)
        return feat16, feat32


class MobileNetV2(nn.Module):
    """torchvision's MobileNetV2 (Sandler et al., CVPR 2018) without its last 1x1 convolution and
    classifier; parameter names are torchvision's.

    (N, 3, H, W) -> feat16 (features.13: N, 96, H/16, W/16) and feat32 (features.17: N, 320, H/32,
    W/32), both before the next expansion: linear bottlenecks, as in the paper's segmentation
    networks.
    """

    UNUSED = ("features.18.", "classifier.")
    STRIDE_16, STRIDE_32 = "13", "17"
    """The last blocks of these strides, by their names in torchvision's ``features``."""

    def __init__(self, name: str):
        super().__init__()
        features = getattr(torchvision.models, name)(weights=None).features
        self.features = nn.Sequential()
        for block_name, block in features.named_children():
            self.features.add_module(block_name, block)
            if block_name == self.STRIDE_32:
                break
        self.channels16 = _width(self.features.get_submodule(self.STRIDE_16))
        self.channels32 = _width(self.features.get_submodule(self.STRIDE_32))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = image
        for name, block in self.features.named_children():
            x = block(x)
            if name == self.STRIDE_16:
                feat16 = x
        return feat16, x


def _width(stage: nn.Module) -> int:
    """Channels of the output of a stage: those of its last BatchNorm."""
    return [m for m in stage.modules() if isinstance(m, nn.BatchNorm2d)][-1].num_features


def _class(name: str) -> type[ResNet | MobileNetV2]:
    return MobileNetV2 if name.startswith("mobilenet") else ResNet


def build_backbone(name: str, weights: str | None) -> ResNet | MobileNetV2:
    """Builds a backbone. ``channels16`` and ``channels32`` are the widths of its features.

    ``weights``: None (random), "imagenet", or a file with a torchvision state dict.
    Raises ValueError for an unknown name or weights of another network, FileNotFoundError for a
    missing file, ConnectionError when the ImageNet weights are neither cached nor downloadable.
    """
    if name not in BACKBONES:
        raise ValueError(f"Unknown backbone {name!r}; expected one of {', '.join(BACKBONES)}.")
    backbone = _class(name)(name)
    if weights is not None:
        state = _imagenet_weights(name) if weights == "imagenet" else _read_weights(Path(weights))
        _load(backbone, state, name, weights)
    return backbone


def _load(backbone: nn.Module, state: dict[str, Tensor], name: str, weights: str) -> None:
    """Loads all that BiSeNet uses. Raises ValueError for the file of another network."""
    remedy = f"Expected torchvision's state dict of {name}: that is what --backbone names."
    try:
        load_strict(backbone, used_tensors(state, name), f"({name} from {weights})", remedy)
    except ValueError as error:
        found = backbone_name(state)
        if found in (None, name):
            raise
        raise ValueError(
            f"--backbone-weights {weights}: found the weights of a {found}, expected those of a"
            f" {name}. Add --backbone {found}, or give a file of {name}."
        ) from error


def backbone_name(state: dict[str, Tensor]) -> str | None:
    """The backbone whose tensors ``state`` has, by torchvision's names and shapes; None if none.

    Classifiers may be missing, and so may the batch counters of BatchNorm.
    """
    for name in BACKBONES:
        if _shapes(used_tensors(state, name)) == _shapes(expected_state(name)):
            return name
    return None


def used_tensors(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """A torchvision state dict of backbone ``name`` without the tensors that BiSeNet has not."""
    return {key: value for key, value in state.items() if not key.startswith(_class(name).UNUSED)}


def expected_state(name: str) -> dict[str, Tensor]:
    """Names and shapes of the tensors of backbone ``name``, on the meta device."""
    with torch.device("meta"):
        return _class(name)(name).state_dict()


def _shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors but the batch counters of BatchNorm."""
    return {
        key: tuple(value.shape)
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }


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
            f"No backbone weights at {path}. Expected a torchvision state dict (.pth),"
            " 'imagenet' or 'none'."
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises anything from EOFError to UnpicklingError
        raise ValueError(
            f"{path} is damaged, or holds more than tensors ({type(error).__name__}). Expected a"
            " torchvision state dict (.pth). Fetch it again, or give another file."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(
            f"{path} holds no state dict of tensors. Expected a torchvision state dict"
            " (.pth); for a checkpoint of this project use --init."
        )
    return state
