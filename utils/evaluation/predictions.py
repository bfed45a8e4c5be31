"""Saves predictions as Cityscapes' evaluation script and benchmark server expect them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from utils.files import output_folder, write_png


def prediction_files(image_names: Sequence[str], kind: str = "labelIds") -> list[str]:
    """The file of each image's prediction: its name, below its folders where names are equal.

    ``kind``: what the files hold, labelIds or trainIds. Cityscapes' script searches
    CITY_000000_000000*.png anywhere below the folder.
    """
    names = [name.removesuffix("_leftImg8bit") for name in image_names]
    stems = [Path(name).name for name in names]
    count = Counter(stems)
    kept = [stem if count[stem] == 1 else name for stem, name in zip(stems, names, strict=True)]
    return [f"{name}_pred_{kind}.png" for name in kept]


def save_prediction(path: Path, values: np.ndarray) -> None:
    """Writes (H, W) uint8 labelIds or trainIds as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, values)


class PredictionFiles:
    """The files of one model's predictions below ``folder``, one for each image.

    ``stored`` (256,) uint8: trainId -> the value in the files, which are of ``kind``.
    """

    def __init__(self, folder: Path, image_names: Sequence[str], kind: str, stored: np.ndarray):
        self.folder, self.stored = folder, stored
        self.names = prediction_files(image_names, kind)

    def note_others(self) -> None:
        """Notes on the screen PNGs of other evaluations: they would be submitted with these."""
        own = {self.folder / name for name in self.names}
        others = sorted(path for path in self.folder.rglob("*.png") if path not in own)
        if others:
            print(
                f"NOTE: {self.folder} holds {len(others)} other PNGs, first {others[0]}."
                " Cityscapes' script and server would read them, too: remove them, or give another"
                " folder."
            )

    def save(self, index: int, class_map: Tensor) -> None:
        """Writes the class map (H, W) uint8 of the image ``index``."""
        save_prediction(self.folder / self.names[index], self.stored[class_map.cpu().numpy()])


def result_folders(folder: Path | None, names: Sequence[str]) -> list[Path | None]:
    """A folder for the files of each model; None where ``folder`` is None.

    Several models get a subfolder each, called by ``names``: Cityscapes' script wants one
    prediction per image below a folder. Raises ValueError where two of them have the same name.
    """
    if folder is None:
        return [None] * len(names)
    if len(names) == 1:
        return [output_folder(folder)]
    if len(set(names)) < len(names):
        raise ValueError(
            f"Two of the checkpoints have the same name, {sorted(names)}: their files would"
            " overwrite each other. Score them one by one."
        )
    return [output_folder(folder / name) for name in names]
