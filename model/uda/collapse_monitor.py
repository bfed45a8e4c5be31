"""Notices, without labels, when a class collapses on the target: class shares of predictions.

Adaptation can collapse: a class that was predicted gives its pixels to another class, and the
teacher confirms the error. The losses do not show it; the class shares of the predictions do.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

COLLAPSE = 1 / 3
"""A class has collapsed if it keeps less than this fraction of its share: it lost two thirds."""
MIN_SHARE = 0.005
"""Smallest share, in the reference, of a class that can collapse."""
STANDARD_ERRORS = 3
"""A loss must exceed so many standard errors: rare classes come and go with the images."""


class CollapseMonitor:
    """Class shares and confidence of target predictions, over a sliding window of steps.

    ``class_names``: the classes, whose number is C. ``reference_end``: number of steps after which
    the shares of the last ``window`` steps become the reference. ``all_reduce_sum``: sums a tensor
    over the processes of the run. It changes nothing in the training and draws no random number.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        reference_end: int,
        window: int,
        device: torch.device,
        all_reduce_sum: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    ):
        self.class_names, self.window = list(class_names), window
        self.earliest_reference_end = max(reference_end, window)
        self._all_reduce_sum = all_reduce_sum
        zeros = torch.zeros(2, len(self.class_names), device=device)
        self._step = zeros  # pixels and sums of probabilities of this step, by predicted class
        self._ring = zeros.repeat(window, 1, 1)  # (window, 2, C): fractions of a step's pixels
        self._filled, self._done = 0, 0
        self._reference: Tensor | None = None  # (2, C): mean and squared standard error of shares
        self._reference_end = 0
        self._warned: list[str] = []

    @property
    def earliest_warning(self) -> int:
        """Number of steps before which no collapse can be noticed: two windows are compared."""
        return self.earliest_reference_end + self.window

    @torch.no_grad()
    def add(self, label: Tensor, probability: Tensor, valid: Tensor | None = None) -> None:
        """Notes predictions of target pixels, of any resolution, of a micro-batch.

        ``label`` (N, H, W) int64, its ``probability`` (N, H, W) float; only ``valid`` pixels
        (N, H, W) bool count, all by default.
        """
        weight = torch.ones_like(probability) if valid is None else valid.to(probability.dtype)
        values = torch.stack([weight, weight * probability]).flatten(1)  # (2, pixels)
        self._step.index_add_(1, label.flatten(), values.to(self._step.dtype))

    def add_logits(self, logits: Tensor, valid: Tensor | None = None) -> None:
        """Notes logits (N, C, h, w) of the target, at the network's resolution.

        ``valid`` (N, H, W) bool, of any resolution: pixels that count, all by default.
        """
        probability, label = logits.detach().float().softmax(1).max(1)
        if valid is not None:
            size = logits.shape[-2:]
            valid = F.interpolate(valid[:, None].float(), size, mode="nearest")[:, 0]  # (N, h, w)
        self.add(label, probability, valid)

    def after_step(self, done: int) -> None:
        """Ends step number ``done``, counted from 1. Does not wait for the device."""
        sums = self._all_reduce_sum(self._step)
        self._ring[done % self.window] = sums / sums[0].sum().clamp(min=1)
        self._step.zero_()
        self._filled, self._done = min(self._filled + 1, self.window), done
        if (
            done >= self.earliest_reference_end
            and self._reference is None
            and self._filled == self.window
        ):
            self._reference, self._reference_end = self._shares(), done

    def _shares(self) -> Tensor:
        """Mean share of the classes over the window, and its squared standard error: (2, C)."""
        variance, mean = torch.var_mean(self._ring[:, 0], dim=0, correction=0)
        return torch.stack([mean, variance / self.window])

    def scalars(self) -> dict[str, float]:
        """Share and mean confidence of each predicted class over the window, by TensorBoard name.

        Confidence is left out for classes that were not predicted. Waits for the device.
        """
        shares, sums = (self._ring.sum(0) / max(1, self._filled)).tolist()
        if sum(shares) == 0:  # the method shows no predictions
            return {}
        values = {}
        for name, share, confidence in zip(self.class_names, shares, sums, strict=True):
            values[f"target_share/{name}"] = share
            if share > 0:
                values[f"target_confidence/{name}"] = confidence / share
        return values

    def warnings(self) -> list[str]:
        """A warning for each class that has newly collapsed, once. Waits for the device."""
        full = self._filled == self.window and self._done >= self._reference_end + self.window
        if self._reference is None or not full:
            return []
        before, before_error = self._reference.tolist()
        now, now_error = self._shares().tolist()
        found = []
        for index, name in enumerate(self.class_names):
            lost = before[index] - now[index]
            error = (before_error[index] + now_error[index]) ** 0.5
            if (
                before[index] >= MIN_SHARE
                and now[index] < COLLAPSE * before[index]
                and lost > STANDARD_ERRORS * error
                and name not in self._warned
            ):
                self._warned.append(name)
                found.append(self._message(index, before, now))
        return found

    def _message(self, lost: int, before: list[float], now: list[float]) -> str:
        names = self.class_names
        gained = max(range(len(names)), key=lambda index: now[index] - before[index])
        first, last = self._done - self.window + 1, self._done
        return (
            f"WARNING: {names[lost]} collapses on the target: {100 * now[lost]:.2g} % of the pixels"
            f" are predicted as {names[lost]} in steps {first} to {last}, after"
            f" {100 * before[lost]:.2g} % up to step {self._reference_end}."
            f" {names[gained]} took most: {100 * before[gained]:.3g} % before,"
            f" {100 * now[gained]:.3g} % now. Later checkpoints may be worse: compare snapshots"
            " (--keep-every), or try another --seed."
        )

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, as tensors and plain values."""
        return {
            "ring": self._ring,
            "filled": self._filled,
            "done": self._done,
            "reference": self._reference,
            "reference_end": self._reference_end,
            "warned": self._warned,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what ``state_dict`` gave; a window of another length begins anew."""
        if state["ring"].shape == self._ring.shape:
            self._ring.copy_(state["ring"])
            self._filled, self._done = state["filled"], state["done"]
        reference = state["reference"]
        self._reference = None if reference is None else reference.to(self._ring.device)
        self._reference_end, self._warned = state["reference_end"], list(state["warned"])


@torch.no_grad()
def label_agreement(logits: Tensor, label: Tensor, valid: Tensor) -> Tensor:
    """Fraction of an image's ``valid`` pixels where logits predict ``label``; mean of the images.

    ``logits`` (N, C, h, w); ``label`` (N, H, W) int64 and ``valid`` (N, H, W) bool are subsampled.
    Returns a scalar; an image without valid pixels counts as 0. Means of micro-batches add up.
    """
    rows, columns = (
        ((torch.arange(small, device=label.device) + 0.5) * (large / small)).long()
        for small, large in zip(logits.shape[-2:], label.shape[-2:], strict=True)
    )
    label, valid = (maps[:, rows][:, :, columns] for maps in (label, valid))  # (N, h, w)
    agrees = (logits.argmax(1) == label) & valid
    return (agrees.sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)).mean()
