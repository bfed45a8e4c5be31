import pytest

from utils.panels import MOST_PANELS, panel_interval


@pytest.mark.parametrize("pictures", [1, 2])
@pytest.mark.parametrize("steps", [1, 39, 40, 41, 25_000, 250_001])
def test_a_run_draws_no_more_panels_than_it_may(steps, pictures):
    interval = panel_interval(1, steps, pictures)
    moments = [step for step in range(steps) if step == 0 or (step + 1) % interval == 0]
    assert len(moments) * pictures <= MOST_PANELS
    assert panel_interval(10**9, steps, pictures) == 10**9
