from xml.etree import ElementTree

import pytest
from torch.utils.tensorboard import SummaryWriter

from scripts import plot_scores

SVG = "{http://www.w3.org/2000/svg}"


def make_run(folder, values):
    with SummaryWriter(str(folder)) as writer:
        for step, value in enumerate(values):
            writer.add_scalar("val/miou", value, 100 * step)
    return folder


def run(*words) -> None:
    plot_scores.main(plot_scores.parse_arguments([*map(str, words)]))


def test_each_run_is_a_curve_of_all_its_values(tmp_path):
    """Values that are not finite are left out; files beside the run folders are skipped."""
    runs = [
        make_run(tmp_path / "ours", [0.1, 0.3, 0.2]),
        make_run(tmp_path / "theirs", [0.1, float("nan"), 0.2, 0.4]),
    ]
    steps, values = plot_scores.read_scalar(runs, "val/miou")[runs[0]]
    assert steps == [0, 100, 200]
    assert values == pytest.approx([0.1, 0.3, 0.2])
    (tmp_path / "scores.json").write_text("{}")
    run(*runs, tmp_path / "scores.json", "--percent", "--output", tmp_path / "plot.svg")
    chart = ElementTree.parse(tmp_path / "plot.svg").getroot()
    lines = chart.findall(f"{SVG}polyline")
    assert [line.find(f"{SVG}title").text for line in lines] == ["ours", "theirs"]
    assert [len(line.get("points").split()) for line in lines] == [3, 3]
    texts = [text.text for text in chart.iter(f"{SVG}text")]
    assert "val/miou, %" in texts
    assert "40" in texts


def test_a_scalar_that_no_run_has(tmp_path):
    """The scalars that there are, or that these are no run folders, such as their parent."""
    with pytest.raises(ValueError, match=r"scalar 'val/none'. .*validate-every.*: val/miou\."):
        plot_scores.read_scalar([make_run(tmp_path / "ours", [0.1])], "val/none")
    with pytest.raises(ValueError, match=r"No TensorBoard events in .*checkpoints/\*"):
        plot_scores.read_scalar([tmp_path], "val/miou")


def test_runs_without_the_scalar_are_left_out_and_named(tmp_path, capsys):
    """Adaptation is not scored while it trains: seed0/* holds runs without scores."""
    runs = [make_run(tmp_path / "ours", [0.1, 0.2]), tmp_path / "adapted"]
    with SummaryWriter(str(runs[1])) as writer:
        writer.add_scalar("loss/segmentation", 1.0, 0)
    run(*runs, "--output", tmp_path / "plot.svg")
    said = capsys.readouterr().out
    assert f"left out, because they have no val/miou: {runs[1]}" in said
    assert "Drew 1 curve into" in said


def test_a_run_without_a_finite_value(tmp_path):
    make_run(tmp_path / "ours", [float("nan")])
    with pytest.raises(ValueError, match="ours: all 1 values"):
        run(tmp_path / "ours", "--output", tmp_path / "plot.svg")


def test_no_run_at_all(tmp_path):
    with pytest.raises(ValueError, match="is a run folder"):
        run(tmp_path / "absent", "--output", tmp_path / "plot.svg")


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    make_run(tmp_path / "ours", [0.1])
    with pytest.raises(OSError, match="Cannot write into"):
        run(tmp_path / "ours", "--output", tmp_path / "file/plot.svg")


def test_other_formats_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, "--output", "plot.png")
    assert "expected a name that ends with .svg" in capsys.readouterr().err


def test_runs_of_equal_names_are_told_apart(tmp_path):
    """The legend shows seed0/strong and seed1/strong by their paths."""
    runs = [make_run(tmp_path / f"seed{seed}/strong", [0.1, 0.2]) for seed in range(2)]
    run(*runs, "--output", tmp_path / "plot.svg")
    lines = ElementTree.parse(tmp_path / "plot.svg").getroot().findall(f"{SVG}polyline")
    titles = [line.find(f"{SVG}title").text for line in lines]
    assert titles == [f"strong ({path})" for path in runs]


def test_a_folder_with_the_name_of_a_chart(tmp_path):
    (tmp_path / "plot.svg").mkdir()
    with pytest.raises(OSError, match="it is a folder"):
        run(make_run(tmp_path / "ours", [0.1]), "--output", tmp_path / "plot.svg")
