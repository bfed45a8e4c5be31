"""Offline pseudo-labels: the target is learned from labels made beforehand (CBST, ECCV 2018)."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from model.training_step import Batch
from model.uda.base import Method, MethodOptions, RunSettings, TargetNeeds, option


@dataclass(frozen=True)
class PseudoLabelOptions(MethodOptions):
    pseudo_labels: Path | None = option(
        None,
        "labels of the target: ROOT/gtFine/SPLIT/CITY/*_gtFine_labelIds.png (make_pseudo_labels)",
        type="path",
        metavar="ROOT",
        essential=True,
    )

    def check(self, run: RunSettings) -> None:
        if run.pixel_weights != "none":
            raise ValueError(
                f"--pixel-weights {run.pixel_weights} would weigh pseudo-labels, too: wrong labels"
                " of rare classes (class), or those that contradict the network most (ohem), would"
                " win. Give --pixel-weights none, and perhaps --rare-class-sampling"
            )
        if self.pseudo_labels is None:
            raise ValueError(
                "--method pseudo-labels needs --pseudo-labels ROOT, as python -m"
                " scripts.make_pseudo_labels makes it"
            )

    def target_needs(self) -> TargetNeeds:
        return TargetNeeds(label_root=self.pseudo_labels)


class OfflinePseudoLabels(Method):
    """Supervised on both domains (Zou et al., ECCV 2018).

    The target's batches bring trainIds of any origin, 255 where there is none.
    """

    name = "pseudo-labels"
    Options = PseudoLabelOptions

    def step(self, source: Batch, target: Batch) -> dict[str, Tensor]:
        # 1. Segmentation loss on the source: the mean over its labelled pixels.
        loss, _ = self.context.add_supervised_gradients(self.model, source)

        # 2. Segmentation loss on the target: the mean over ALL its pixels, so that few labels
        #    weigh little.
        pixels = target.label.numel() / self.context.batch_fraction
        target_loss, target_output = self.context.add_supervised_gradients(
            self.model, target._replace(valid_pixels=pixels)
        )
        self.monitor_target_logits(target_output.logits)
        return {"loss/segmentation": loss, "loss/pseudo_labels": target_loss}
