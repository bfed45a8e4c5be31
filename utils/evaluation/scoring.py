"""One pass of a model over images: counts pixels, saves predictions, draws mistakes.

The processes share the images: each of them calls these functions with the batches of its own.
"""

from collections.abc import Iterable
from typing import Protocol

from torch import Tensor

from utils.evaluation.evaluate import Evaluation, evaluate
from utils.evaluation.predictions import PredictionFiles
from utils.report.worst_images import MistakePictures
from utils.training.distributed import ProcessGroup


class SavedPrediction(Protocol):
    """Images (N, H, W, 3) uint8 -> class maps to score (model.inference.merge.SavedPrediction).

    ``class_map`` (N, H, W) uint8: the last one as it is to be saved.
    """

    class_map: Tensor

    def __call__(self, images: Tensor) -> Tensor: ...


def score_batches(
    predict: SavedPrediction,
    batches: Iterable,
    num_classes: int,
    ignore_index: int,
    processes: ProcessGroup,
    files: PredictionFiles | None = None,
    mistakes: MistakePictures | None = None,
) -> Evaluation:
    """The pixel counts of all processes. Batches are of one image, see ``evaluate``.

    Saves every prediction into ``files``, and adds it to ``mistakes``, where these are given.
    """

    def on_batch(batch, prediction: Tensor, matrix: Tensor) -> None:
        index = int(batch.index[0])
        if files is not None:
            files.save(index, predict.class_map[0])
        if mistakes is not None:
            mistakes.add(index, (batch.image[0], batch.label[0], prediction[0]), matrix)

    own = evaluate(predict, batches, num_classes, ignore_index, on_batch)
    # Counts are integers: their sum is the same for every number of processes.
    return Evaluation(
        processes.all_reduce_sum(own.matrix),
        processes.all_reduce_sum(own.ignored),
    )


def save_batches(
    predict: SavedPrediction, batches: Iterable, files: PredictionFiles, processes: ProcessGroup
) -> int:
    """Saves the predictions of images without labels; their number, of all processes together."""
    count = 0
    for batch in batches:
        predict(batch.image)
        files.save(int(batch.index[0]), predict.class_map[0])
        count += 1
    return processes.all_reduce_sum(count)  # waits until every process has saved its images
