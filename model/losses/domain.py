"""Domain losses of adversarial adaptation (Eqs. 3 and 5), least squares (LSGAN), and
self-information maps (AdvEnt).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from model.fused_upsampling import at_least_float32

SOURCE, TARGET = 1.0, 0.0
"""z of Eq. 3: what the discriminator should answer for each domain."""


def domain_loss(score: Tensor, domain: float) -> Tensor:
    """Eqs. 3 and 5 for one domain: binary cross-entropy of the discriminator's logits (N, 1, H, W)
    with z = ``domain``, the mean.
    """
    score = at_least_float32(score)
    return F.binary_cross_entropy_with_logits(score, torch.full_like(score, domain))


def least_squares_domain_loss(score: Tensor, domain: float) -> Tensor:
    """In the place of ``domain_loss``: (D - z)^2, the mean (Mao et al., ICCV 2017), whose gradient
    does not fade where D is sure.
    """
    score = at_least_float32(score)
    return F.mse_loss(score, torch.full_like(score, domain))


def self_information(probabilities: Tensor) -> Tensor:
    """-p log2 p / log2 C, of the same shape (N, C, H, W): what AdvEnt (Vu et al., CVPR 2019) shows
    its discriminator. Its sum over the classes is the entropy of a pixel, from 0 (sure) to 1
    (uniform).
    """
    return (
        -probabilities * probabilities.clamp(min=1e-30).log2() / math.log2(probabilities.shape[1])
    )
