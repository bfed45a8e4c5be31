import pytest
import torch

from model.discriminator import build_discriminator
from model.inference.cost import count_parameters, ptflops_macs
from scripts.baselines import baseline_discriminator


@pytest.mark.parametrize(
    ("kind", "count", "gmac"), [("full", 2_781_121, 15.47), ("light", 191_364, 1.11)]
)
def test_costs_are_those_of_table_2(kind, count, gmac):
    discriminator = build_discriminator(kind, 19)
    assert count_parameters(discriminator) == count
    assert round(ptflops_macs(discriminator, (19, 512, 1024)) / 1e9, 2) == gmac


def test_light_equals_the_published_one():
    torch.manual_seed(0)
    ours, theirs = build_discriminator("light").double(), baseline_discriminator().double()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    probabilities = torch.randn(2, 19, 64, 96, dtype=torch.float64).softmax(1)
    torch.testing.assert_close(ours(probabilities), theirs(probabilities), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["full", "light"])
@pytest.mark.parametrize("size", [(32, 32), (33, 65), (97, 201)])
def test_any_size_gives_one_logit_a_pixel(kind, size):
    assert build_discriminator(kind)(torch.rand(2, 19, *size)).shape == (2, 1, *size)


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="full, light"):
        build_discriminator("heavy")
