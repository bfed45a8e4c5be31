"""BatchNorm in training: statistics of one process, of all processes, or frozen."""

import torch
from torch import nn


def with_batch_norm(model: nn.Module, kind: str, device: torch.device) -> nn.Module:
    """Sets the BatchNorm layers of ``model`` to ``kind``; names and values of its state stay.

    "local": statistics of the images of each process. "sync": of the images of all processes, on
    CUDA only. "frozen": the running statistics are used and not updated; weight and bias still
    learn. Returns the model. Raises ValueError for "sync" on a CPU.
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
