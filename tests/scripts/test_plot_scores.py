import pytest
from torch.utils.tensorboard import SummaryWriter

from dataset.image_io import read_image
from scripts import plot_scores


def make_run(folder, values):
    with SummaryWriter(str(folder)) as writer:
        for step, value in enumerate(values):
            writer.add_scalar("val/miou", value, 100 * step)
    return folder


def test_curves_are_read_whole_and_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    values = [0.1, 0.3, 0.2]
    run = make_run(tmp_path / "ours", values)
    steps, found = plot_scores.read_curve(run, "val/miou")
    assert steps == [0, 100, 200]
    assert found == pytest.approx(values)
    (tmp_path / "scores.json").write_text("{}")
    arguments = [
        str(run),
        str(tmp_path / "scores.json"),
        "--output",
        str(tmp_path / "plot.png"),
        "--percent",
    ]
    plot_scores.main(plot_scores.parse_arguments(arguments))
    picture = read_image(tmp_path / "plot.png")
    assert picture.shape[0] > 400
    assert (picture != 255).any()


def test_a_run_without_the_scalar(tmp_path):
    run = make_run(tmp_path / "ours", [0.1])
    with pytest.raises(ValueError, match=r"no scalar 'val/none'; it has \['val/miou'\]"):
        plot_scores.read_curve(run, "val/none")


def test_no_run_at_all(tmp_path):
    with pytest.raises(ValueError, match="is a run folder"):
        plot_scores.main(plot_scores.parse_arguments([str(tmp_path / "absent")]))


def test_a_place_that_cannot_be_written_to(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "file").write_text("")
    run = make_run(tmp_path / "ours", [0.1])
    with pytest.raises(OSError, match="Cannot write into"):
        plot_scores.main(
            plot_scores.parse_arguments([str(run), "--output", str(tmp_path / "file/plot.png")])
        )
