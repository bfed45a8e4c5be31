"""MinEnt: entropy minimization on the target (Vu et al., CVPR 2019)."""

from dataclasses import dataclass

from torch import Tensor

from model.fused_upsampling import at_least_float32, upsampled_softmax
from model.losses.domain import self_information
from model.training_step import Batch
from model.uda.base import Method, MethodOptions, option


@dataclass(frozen=True)
class MinEntOptions(MethodOptions):
    lambda_entropy: float = option(0.01, "weight of the target's entropy", type="positive_float")


class MinEnt(Method):
    """Minimizes the entropy of target predictions, without a discriminator."""

    name = "minent"
    Options = MinEntOptions

    def step(self, source: Batch, target: Batch) -> dict[str, Tensor]:
        # 1. Segmentation loss on the source.
        loss, _ = self.context.add_supervised_gradients(self.model, source)

        # 2. Mean entropy of the target's pixels, from 0 (certain) to 1 (uniform).
        with self.context.autocast():
            logits = self.model.low_resolution(target.image, with_aux=False).logits
        self.monitor_target_logits(logits)
        size = target.image.shape[-2:]
        probabilities = upsampled_softmax(at_least_float32(logits), size)  # (N, C, H, W)
        entropy = self_information(probabilities).sum(1).mean() * self.context.batch_fraction
        self.context.scaler.scale(self.options.lambda_entropy * entropy).backward()
        return {"loss/segmentation": loss, "loss/entropy": entropy.detach()}
