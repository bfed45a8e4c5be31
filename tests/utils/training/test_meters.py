import time

import pytest
import torch

from utils.training.distributed import ProcessGroup
from utils.training.meters import (
    MAX_PICTURES,
    LossMeter,
    StepTimer,
    not_finite,
    panel_interval,
)


@pytest.fixture
def meter():
    return LossMeter(ProcessGroup(torch.device("cpu")))


def test_meter_means_and_forgets(meter):
    for step in range(4):
        meter.add(step, {"a": torch.tensor(float(step))}, [])
    meter.check()
    assert meter.read() == {"a": 1.5}
    meter.forget()
    meter.add(4, {"a": torch.tensor(7.0)}, [])
    assert meter.read() == {"a": 7.0}
    meter.check()


def test_parts_of_a_step_add_up(meter):
    for step, value in ((0, 1.0), (0, 2.0), (1, 5.0)):
        meter.add(step, {"a": torch.tensor(value)}, [f"frame{value}"])
    assert meter.read() == {"a": 4.0}
    assert "step 0: {'a': 3.0} from the images ['frame1.0', 'frame2.0']" in meter.recent_steps()


@pytest.mark.parametrize("look", ["check", "read"])
def test_a_non_finite_loss_stops_with_steps_losses_and_frames(meter, look):
    for step, value in enumerate((1.0, float("nan"), float("inf"))):
        meter.add(step, {"segmentation": torch.tensor(value)}, [f"frame{step}"])
    with pytest.raises(
        FloatingPointError,
        match=r"Step 1 .*nan(.|\n)*step 0: .*1\.0.*frame0(.|\n)*step 1: .*nan.*frame1"
        r"(.|\n)*--resume would only repeat",
    ):
        getattr(meter, look)()


def test_not_finite_names_the_tensors():
    state = {
        "a": {
            "x": torch.tensor([1.0, float("inf")]),
            "y": [torch.ones(2), torch.tensor([float("nan")])],
            "n": 3,
            "i": torch.ones(1).long(),
        }
    }
    assert not_finite(state) == ["a.x", "a.y.1"]
    assert not_finite({"a": {"x": torch.tensor([3e38, -3e38, 3e38])}}) == []


def test_the_timer_separates_waiting_from_computing():
    """Time that is paused, after a reading or between two, is not counted."""

    def slow(count):
        for number in range(count):
            time.sleep(0.02)
            yield number

    clock = StepTimer(slow(4), first_step=10, last_step=14, images_per_step=8, show=False)
    steps = []
    for step, batch in clock:
        steps.append((step, batch))
        time.sleep(0.05)
        if step in (11, 13):
            found = clock.read(step + 1)
        with clock.paused():
            time.sleep(0.3)  # a validation
    assert steps == [(10, 0), (11, 1), (12, 2), (13, 3)]
    assert 0.02 <= found["time/data_wait_s"] < 0.05
    assert 0.05 <= found["time/compute_s"] < 0.15
    assert found["time/hours_left"] == 0
    total = found["time/data_wait_s"] + found["time/compute_s"]
    assert found["time/images_per_second"] == pytest.approx(8 / total)


@pytest.mark.parametrize("pictures", [1, 2])
@pytest.mark.parametrize("steps", [1, 39, 40, 41, 25_000, 250_001])
def test_a_run_draws_no_more_panels_than_it_may(steps, pictures):
    interval = panel_interval(1, steps, pictures)
    moments = [step for step in range(steps) if step == 0 or (step + 1) % interval == 0]
    assert len(moments) * pictures <= MAX_PICTURES
    assert panel_interval(10**9, steps, pictures) == 10**9
