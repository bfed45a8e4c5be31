import pytest
import torch

from model.bisenet import BiSeNet
from utils.training.optim import poly_decay, set_learning_rate, sgd, warm_up


def test_poly_decay():
    assert poly_decay(0, 100) == 1
    assert poly_decay(25, 100) == pytest.approx(0.75**0.9)
    assert (
        poly_decay(100, 100) == poly_decay(150, 100) == 0
    )  # past the horizon: no complex number, no rise
    assert [poly_decay(step, 100, per=10) for step in (10, 19)] == [poly_decay(10, 100)] * 2


def test_every_group_decays_from_its_own_rate():
    groups = [{"params": [torch.zeros(1)], "lr": 0.1}, {"params": [torch.zeros(1)], "lr": 1.0}]
    optimizer = torch.optim.SGD(groups)
    for factor in (1.0, 0.5, 0.25):
        set_learning_rate([optimizer], factor)
        assert [group["lr"] for group in optimizer.param_groups] == [0.1 * factor, factor]


def test_a_restored_optimizer_decays_from_the_first_rate():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    set_learning_rate([optimizer], 0.5)
    other = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    other.load_state_dict(optimizer.state_dict())
    set_learning_rate([other], 0.25)
    assert other.param_groups[0]["lr"] == 0.25


def test_warm_up_rises_to_1_and_stays():
    assert [warm_up(step, 3) for step in range(5)] == [0.25, 0.5, 0.75, 1, 1]
    assert warm_up(0, 0) == 1


def test_new_layers_are_those_outside_the_backbone():
    model = BiSeNet()
    slow, fast = sgd(model, 0.1, 0.9, 5e-4, head_lr_mult=10).param_groups
    assert (slow["lr"], fast["lr"]) == (0.1, 1.0)
    assert {id(p) for p in slow["params"]} == {
        id(p) for p in model.context_path.backbone.parameters()
    }
    assert len(slow["params"]) + len(fast["params"]) == len(list(model.parameters()))
    (alone,) = sgd(model, 0.1, 0.9, 5e-4).param_groups
    assert (alone["momentum"], alone["weight_decay"], len(alone["params"])) == (
        0.9,
        5e-4,
        len(list(model.parameters())),
    )
