"""The networks of the page, from checkpoints and exported files."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dataset.class_set import ClassSet
from dataset.class_set_file import recorded_class_set
from model.inference.exported_network import EXPORTED_NETWORKS
from model.inference.predictor import load_predictor
from utils.files import told_apart
from utils.training.checkpoint import read_checkpoint
from utils.training.precision import PRECISIONS


@dataclass(frozen=True)
class Network:
    """A network with its classes. ``predict``: (H, W, 3) uint8 RGB -> (H, W) uint8 trainIds."""

    name: str
    predict: Callable[[np.ndarray], np.ndarray]
    device: torch.device
    class_set: ClassSet

    def segment(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        """The trainIds of an image, and the seconds that they took. One image at a time."""
        with _LOCK:
            start = time.perf_counter()
            train_ids = self.predict(image)
            return train_ids, time.perf_counter() - start


_LOCK = threading.Lock()
"""Held while a network computes: visitors wait for one another, image by image."""


def load_networks(
    paths: Sequence[Path], device: torch.device, precision: str
) -> dict[str, Network]:
    """Networks by their names, which tell their files apart; raises what reading them raises."""
    loaded = [load_network_file(path, device, precision) for path in paths]
    names = told_apart([network.name for network in loaded], paths)
    return dict(zip(names, loaded, strict=True))


def load_network_file(path: Path, device: torch.device, precision: str) -> Network:
    """Reads a checkpoint or an exported network, by file suffix; raises what reading it raises."""
    if path.suffix in EXPORTED_NETWORKS:
        exported = EXPORTED_NETWORKS[path.suffix](path, device)
        class_set = recorded_class_set(exported.metadata)
        exported.require_classes(len(class_set))
        name = f"{exported.name}, {exported.precision}"
        return Network(name, exported.segment, device, class_set)
    checkpoint = read_checkpoint(path)
    class_set = recorded_class_set(checkpoint)
    predictor = load_predictor(checkpoint, len(class_set), device, PRECISIONS[precision])
    return Network(checkpoint["name"], predictor.segment, device, class_set)
