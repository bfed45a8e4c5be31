"""How BatchNorm behaves in training: over the images of one process, over those of all processes,
or not at all.
"""

import torch
from torch import nn

BATCH_NORMS = ("local", "sync", "frozen")


def with_batch_norm(model: nn.Module, kind: str, device: torch.device) -> nn.Module:
    """``model`` with its BatchNorms set to ``kind``; names and values of its state stay.

    "local": each process normalizes its own images. "sync": the images of all processes together,
    on CUDA only. "frozen": the running statistics are used and never move; weights and biases still
    learn. Raises ValueError for "sync" on a CPU.
    """
    if kind == "sync":
        if device.type != "cuda":
            raise ValueError(
                "--bn sync needs CUDA: torch has no synchronized BatchNorm on a CPU. Use --bn local"
                " or --bn frozen, or --device cuda."
            )
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model.frozen_batch_norm = kind == "frozen"
    return model.train(model.training)
