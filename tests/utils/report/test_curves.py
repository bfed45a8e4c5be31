import time

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from utils.report.curves import Curve, read_curves, seed_range


def test_scalars_come_back_as_they_were_written(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(2000):  # more than TensorBoard keeps by itself
            writer.add_scalar("loss/segmentation", 1 / (1 + step), step)
        writer.add_scalar("val/miou", 0.25, 2000)
    curves = read_curves(tmp_path)
    assert curves.keys() == {"loss/segmentation", "val/miou"}
    assert curves["loss/segmentation"].steps == list(range(2000))
    assert curves["loss/segmentation"].values == pytest.approx(
        [1 / (1 + step) for step in range(2000)]
    )
    (tmp_path / "silent").mkdir()
    assert read_curves(tmp_path / "silent") == {}


def test_a_run_that_went_on_hides_what_it_did_again(tmp_path):
    for first, value in ((0, 1.0), (5, 2.0)):
        time.sleep(1 - time.time() % 1)  # files of one second may be read in another order
        with SummaryWriter(str(tmp_path), purge_step=first or None) as writer:
            for step in range(first, 10):
                writer.add_scalar("loss", value, step)
    found = seed_range([read_curves(tmp_path)["loss"]])
    assert found.mean.tolist() == [1.0] * 5 + [2.0] * 5


def test_a_band_spans_lowest_to_highest_at_shared_steps():
    found = seed_range([Curve([10, 20, 30], [1.0, 2.0, 3.0]), Curve([10, 20, 25], [3.0, 2.0, 9.0])])
    assert found.steps.tolist() == [10, 20]
    assert found.mean.tolist() == [2.0, 2.0]
    assert found.low.tolist() == [1.0, 2.0]
    assert found.high.tolist() == [3.0, 2.0]
    assert found.runs == 2


def test_equal_runs_have_a_band_without_width():
    curve = Curve(list(range(1000)), np.random.default_rng(0).random(1000).tolist())
    found = seed_range([curve, curve, curve])
    assert np.array_equal(found.low, found.high)
    assert len(found.steps) == 160
    assert found.mean.mean() == pytest.approx(np.mean(curve.values), abs=1e-3)


def test_nothing_shared_is_no_band():
    assert seed_range([]) is None
    assert seed_range([Curve([1], [1.0]), Curve([2], [1.0])]) is None
    assert seed_range([Curve([1], [float("nan")])]) is None
