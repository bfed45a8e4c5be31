"""Predictions of a checkpoint and of the command, to compare exported networks with."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from model.inference.predictor import Predictor
from model.loading import load_network
from scripts.predict import __main__ as predict
from tests.conftest import scene
from utils.training.checkpoint import read_checkpoint


def classes(checkpoint: Path, images: torch.Tensor) -> np.ndarray:
    """Predictions of the network of ``checkpoint``: (N, H, W, 3) uint8 -> (N, H, W) trainIds."""
    model, normalize = load_network(read_checkpoint(checkpoint))
    return Predictor(model, normalize, torch.device("cpu"))(images).numpy()


def predicted_train_ids(network: Path, size: tuple[int, int], folder: Path) -> np.ndarray:
    """Label map that scripts.predict writes into ``folder`` for a generated image of ``size``."""
    folder.mkdir()
    Image.fromarray(scene(0, size)[0]).save(folder / "x.png")
    words = [folder / "x.png", "--model", network, "--output", folder, "--save", "trainIds"]
    words += ["--device", "cpu"]
    if network.suffix == ".pt":  # an exported network has a precision already
        words += ["--precision", "fp32"]
    predict.main(predict.parse_arguments([*map(str, words)]))
    return np.array(Image.open(folder / "x_trainIds.png"))
