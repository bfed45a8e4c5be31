"""The buffers of networks from before a step, to put back if it is not completed."""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor


class SavedBuffers:
    """A copy of ``buffers``, such as the running statistics of BatchNorm."""

    def __init__(self, buffers: Iterable[Tensor]):
        by_dtype = defaultdict(list)  # those of one dtype are copied at once
        for buffer in buffers:
            by_dtype[buffer.dtype].append(buffer)
        self._groups = [(group, [b.clone() for b in group]) for group in by_dtype.values()]

    def save(self) -> None:
        """Replaces the copy by the buffers as they are now."""
        for buffers, copies in self._groups:
            torch._foreach_copy_(copies, buffers)

    def put_back(self) -> None:
        """Gives the buffers the saved values."""
        for buffers, copies in self._groups:
            torch._foreach_copy_(buffers, copies)
