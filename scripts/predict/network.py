"""Networks from checkpoints and exported files, ready to segment images of any size."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from dataset.class_set import ClassSet
from dataset.class_set_file import recorded_class_set
from dataset.label_format import prediction_format
from model.inference.exported_network import EXPORTED_NETWORKS
from model.inference.predictor import load_predictor
from model.inference.tiling import in_tiles
from utils.benchmark.memory import check_memory
from utils.training.checkpoint import read_checkpoint
from utils.training.precision import PRECISIONS

Segment = Callable[[np.ndarray], np.ndarray]
"""(H, W, 3) uint8 RGB image of any size -> (H, W) uint8 trainIds."""


class NamedNetwork(NamedTuple):
    """A network ready to segment images, its name in figures, and its classes.

    ``tile``: size in pixels of the tiles that it cuts larger images into; None: it takes them
    whole.
    """

    name: str
    segment: Segment
    class_set: ClassSet
    device: torch.device
    tile: int | None = None

    def require_memory(self, path: Path, size: tuple[int, int]) -> None:
        """Raises ValueError for an image of ``size`` (height, width) that memory cannot take."""
        check_memory(path, size, self.device, self.tile)

    def with_tiles(self, tile: int) -> "NamedNetwork":
        """The network that segments larger images in overlapping tiles of ``tile`` pixels."""
        return self._replace(segment=in_tiles(self.segment, tile), tile=tile)


def load_named_network(path: Path, device: torch.device, precision: str) -> NamedNetwork:
    """Loads a checkpoint or an exported network, by file suffix; raises what reading it raises."""
    if path.suffix in EXPORTED_NETWORKS:
        exported = EXPORTED_NETWORKS[path.suffix](path, device)
        class_set = recorded_class_set(exported.metadata)
        exported.require_classes(len(class_set))
        return NamedNetwork(exported.name, exported.segment, class_set, device)
    checkpoint = read_checkpoint(path)
    class_set = recorded_class_set(checkpoint)
    predictor = load_predictor(checkpoint, len(class_set), device, PRECISIONS[precision])
    return NamedNetwork(checkpoint["name"], predictor.segment, class_set, device)


def require_one_class_set(networks: list[NamedNetwork], paths: list[Path]) -> None:
    """Raises ValueError for networks of different classes, whose colors would mean other things."""
    first = networks[0].class_set
    for network, path in zip(networks, paths, strict=True):
        if network.class_set.names != first.names:
            raise ValueError(
                f"{paths[0]} has the classes of {first.name} ({', '.join(first.names)}), {path}"
                f" those of {network.class_set.name} ({', '.join(network.class_set.names)}): one"
                " picture cannot show both. Compare networks of one class set."
            )


def require_label_ids(network: NamedNetwork, kinds: list[str]) -> None:
    """Raises ValueError for --save labelIds of classes that have none."""
    if "labelIds" in kinds and not prediction_format(network.class_set).holds_label_ids:
        raise ValueError(
            f"--save labelIds: {network.name} has the classes of {network.class_set.name}, which"
            " have no labelIds of Cityscapes. Give --save trainIds."
        )
