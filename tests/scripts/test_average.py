"""scripts/average.py: the mean of a run's snapshots, with statistics of the target."""

import shutil

import pytest
import torch

from scripts import average as entry
from tests.helpers.networks import write_checkpoint
from utils.training.checkpoint import read_checkpoint

COMMON = ["--workers", "0", "--device", "cpu", "--precision", "fp32"]


def run(*arguments):
    entry.main(entry.parse_arguments([*map(str, arguments), *COMMON]))


def snapshots(folder, **options) -> list:
    """Two snapshots of one run; ``options`` of the second."""
    settings = {"settings": {"seed": 0, "lr": 0.1}, "run": "run"}
    first = write_checkpoint(folder / "step_0000010.pt", "run-step10", 0, step=10, **settings)
    later = {"step": 20, **settings, **options}
    return [first, write_checkpoint(folder / "step_0000020.pt", "run-step20", 1, **later)]


def test_weights_are_the_mean_and_statistics_those_of_the_target(cityscapes_root, tmp_path, capsys):
    """A checkpoint that says what it is made of; the order of the files does not matter."""
    files, output = snapshots(tmp_path, seen_images=["b"]), tmp_path / "mean.pt"
    statistics = ("--cityscapes", cityscapes_root, "--batch-size", 2)
    run(*reversed(files), *statistics, "--output", output)
    content, members = read_checkpoint(output), [read_checkpoint(file) for file in files]
    assert (content["name"], content["run"], content["step"]) == ("run-average", "run", 20)
    assert content["settings"]["averaged"]["steps"] == [10, 20]
    assert {"b"} < set(content["seen_images"])
    assert len(content["seen_images"]) == 5  # two batches of two
    new = set(content["seen_images"]) - {"b"}
    assert all(name.startswith("cityscapes::aachen/") for name in new)
    state, (one, two) = content["parts"]["model"], [m["parts"]["model"] for m in members]
    for name, value in state.items():
        if name.endswith(("running_mean", "running_var")):
            assert not torch.allclose(value, (one[name] + two[name]) / 2), name
        elif value.is_floating_point():
            assert torch.allclose(value, (one[name] + two[name]) / 2), name
    said = capsys.readouterr().out
    assert "2 snapshots, steps 10, 20" in said
    assert f"python eval.py {output}" in said
    with pytest.raises(FileExistsError, match="exists"):
        run(*files, "--output", output)


def test_without_a_target_statistics_are_averaged(tmp_path, capsys):
    """Everything is the mean of the members, and no image is seen."""
    files, output = snapshots(tmp_path), tmp_path / "mean.pt"
    run(*files, "--output", output)
    content, members = read_checkpoint(output), [read_checkpoint(file) for file in files]
    state, (one, two) = content["parts"]["model"], [m["parts"]["model"] for m in members]
    for name, value in state.items():
        if value.is_floating_point():
            assert torch.allclose(value, (one[name] + two[name]) / 2), name
    assert content["seen_images"] == []
    assert "the mean of their BatchNorm statistics" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        entry.parse_arguments([*map(str, files), "--output", "x", "--batches", "3"])
    assert "--batches: without effect without --target" in capsys.readouterr().err


@pytest.mark.parametrize(
    "other",
    [{"run": "another"}, {"settings": {"seed": 1, "lr": 0.1}}, {"num_classes": 7}],
    ids=["run", "seed", "architecture"],
)
def test_different_runs_are_not_averaged(tmp_path, other):
    with pytest.raises(ValueError, match=r"different runs(.|\n)*scripts.make_pseudo_labels"):
        entry.read_members(snapshots(tmp_path, **other))


def test_a_run_that_left_out_an_image_is_one_run(tmp_path):
    """Snapshots from before and after a resume with --leave-out; not those of other images."""
    images = {"data_names": {"data_fingerprint": ["a", "b"]}}
    settings = {"seed": 0, "lr": 0.1}
    first = write_checkpoint(
        tmp_path / "step_0000010.pt",
        "run-step10",
        0,
        step=10,
        run="run",
        settings=settings | {"data_fingerprint": "2 images"},
        **images,
    )
    for words, message in ((["b"], None), ([], "different runs")):
        later = settings | {"data_fingerprint": "1 image", "leave_out": words}
        names = {"data_fingerprint": ["a"]}
        second = write_checkpoint(
            tmp_path / "step_0000020.pt",
            "run-step20",
            1,
            step=20,
            run="run",
            settings=later,
            data_names=names,
        )
        if message is None:
            run(first, second, "--output", tmp_path / "mean.pt")
        else:
            with pytest.raises(ValueError, match=message):
                run(first, second, "--output", tmp_path / "other.pt")


def test_one_checkpoint_is_no_average(tmp_path):
    first, _ = snapshots(tmp_path)
    with pytest.raises(ValueError, match="an average needs two or more"):
        entry.read_members([first, first])


def test_a_step_counts_once(tmp_path, capsys):
    """last.pt of the step of a snapshot is the same network, and no second vote for it."""
    files, output = snapshots(tmp_path), tmp_path / "mean.pt"
    last = shutil.copy(files[1], tmp_path / "last.pt")
    run(*files, last, "--output", output)
    averaged = read_checkpoint(output)["settings"]["averaged"]
    assert averaged["steps"] == [10, 20]
    assert averaged["checkpoints"] == list(map(str, files))
    assert f"NOTE: {last} is left out: it is of step 20, as" in capsys.readouterr().out
    with pytest.raises(ValueError, match="two or more, of different steps"):
        entry.read_members([files[1], last])
