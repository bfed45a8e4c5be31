import pytest
import torch

from utils.distributed import Processes
from utils.monitor import LossMeter, not_finite


@pytest.fixture
def meter():
    return LossMeter(Processes(torch.device("cpu")))


def test_meter_means_and_forgets(meter):
    for step in range(4):
        meter.add(step, {"a": torch.tensor(float(step))}, [])
    meter.check()
    assert meter.read() == {"a": 1.5}
    meter.add(4, {"a": torch.tensor(7.0)}, [])
    assert meter.read() == {"a": 7.0}
    meter.check()


def test_parts_of_a_step_add_up(meter):
    for step, value in ((0, 1.0), (0, 2.0), (1, 5.0)):
        meter.add(step, {"a": torch.tensor(value)}, [f"frame{value}"])
    assert meter.read() == {"a": 4.0}
    assert "step 0: {'a': 3.0} from the frames ['frame1.0', 'frame2.0']" in meter.account()


@pytest.mark.parametrize("look", ["check", "read"])
def test_meter_stops_at_what_is_not_finite_and_names_steps_losses_and_frames(meter, look):
    for step, value in enumerate((1.0, float("nan"), float("inf"))):
        meter.add(step, {"segmentation": torch.tensor(value)}, [f"frame{step}"])
    with pytest.raises(FloatingPointError, match=r"Step 1 .*nan(.|\n)*step 0: .*1\.0.*frame0(.|\n)*step 1: .*nan.*frame1"):
        getattr(meter, look)()


def test_not_finite_names_the_tensors():
    state = {"a": {"x": torch.tensor([1.0, float("inf")]), "y": [torch.ones(2), torch.tensor([float("nan")])], "n": 3, "i": torch.ones(1).long()}}
    assert not_finite(state) == ["a.x", "a.y.1"]
    assert not_finite({"a": {"x": torch.tensor([3e38, -3e38, 3e38])}}) == []
