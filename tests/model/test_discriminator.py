"""Discriminators against the baseline and Table II."""

import pytest
import torch

from model.discriminator import build_discriminator
from model.inference.cost import count_parameters, ptflops_macs
from scripts.baselines import baseline_discriminator


@pytest.mark.parametrize(
    ("kind", "count", "gmac"), [("full", 2_781_121, 15.47), ("light", 191_364, 1.11)]
)
def test_costs_are_those_of_table_2(kind, count, gmac):
    """Parameters and MACs at 512x1024."""
    discriminator = build_discriminator(kind, 19)
    assert count_parameters(discriminator) == count
    assert round(ptflops_macs(discriminator, (19, 512, 1024)) / 1e9, 2) == gmac


def test_light_equals_the_baseline():
    """Equal weights give equal logits."""
    torch.manual_seed(0)
    light, baseline = build_discriminator("light").double(), baseline_discriminator().double()
    weights = light.state_dict().values()
    baseline.load_state_dict(dict(zip(baseline.state_dict(), weights, strict=True)))
    probabilities = torch.randn(2, 19, 64, 96, dtype=torch.float64).softmax(1)
    expected = baseline(probabilities)
    torch.testing.assert_close(light(probabilities), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["full", "light"])
@pytest.mark.parametrize("size", [(32, 32), (33, 65), (97, 201)])
def test_one_logit_for_each_pixel(kind, size):
    """For any size of at least 32x32."""
    assert build_discriminator(kind)(torch.rand(2, 19, *size)).shape == (2, 1, *size)


def test_unknown_kind_is_refused():
    """The error lists the kinds."""
    with pytest.raises(ValueError, match="full, light"):
        build_discriminator("heavy")
