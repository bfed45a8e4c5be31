"""Domain losses (Eqs. 3 and 5), their least-squares form (LSGAN), and self-information (AdvEnt)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from model.fused_upsampling import at_least_float32

SOURCE, TARGET = 1.0, 0.0
"""Domain labels z of Eq. 3."""


def domain_loss(score: Tensor, domain: float) -> Tensor:
    """Mean binary cross-entropy of domain logits (N, 1, H, W) with z = ``domain`` (Eqs. 3, 5)."""
    score = at_least_float32(score)
    return F.binary_cross_entropy_with_logits(score, torch.full_like(score, domain))


def least_squares_domain_loss(score: Tensor, domain: float) -> Tensor:
    """Mean of (D - z)^2 (LSGAN: Mao et al., ICCV 2017), an alternative to ``domain_loss``.

    Its gradient does not vanish where the discriminator is confident.
    """
    score = at_least_float32(score)
    return F.mse_loss(score, torch.full_like(score, domain))


def self_information(probabilities: Tensor) -> Tensor:
    """-p log2 p / log2 C of class probabilities (N, C, H, W) (AdvEnt: Vu et al., CVPR 2019).

    Its sum over the classes is the normalized entropy of a pixel: 0 (certain) to 1 (uniform).
    """
    num_classes = probabilities.shape[1]
    return -probabilities * probabilities.clamp(min=1e-30).log2() / math.log2(num_classes)
