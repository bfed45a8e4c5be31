import json

import cv2
import pytest
import torch

from scripts.benchmark.__main__ import SUBCOMMANDS, parse_arguments
from scripts.benchmark.samples import SCALES, WAYS
from tests.conftest import write_cityscapes, write_gta5


@pytest.fixture(autouse=True)
def threads_as_they_were():
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def test_measures_every_way_at_every_scale(tmp_path, capsys):
    gta5_root, cityscapes_root = (
        write_gta5(tmp_path / "g", 4),
        write_cityscapes(tmp_path / "c", {"train": 5}),
    )
    line = [
        "data",
        "--gta5",
        gta5_root,
        "--cityscapes",
        cityscapes_root,
        "--images",
        3,
        "--rounds",
        1,
        "--crop-size",
        48,
        64,
    ]
    line += ["--temporary", tmp_path, "--json", tmp_path / "result.json", "--steps-per-second", 10]
    args = parse_arguments([str(word) for word in line])
    SUBCOMMANDS[args.subcommand].run(args)
    result = json.loads((tmp_path / "result.json").read_text())
    for name in ("ratio_gta5_lab_prepared", "ratio_gta5_lab_raw", "ratio_cityscapes_prepared"):
        assert result[name] > 0
    assert set(result["ms_per_sample"]) == set(WAYS)
    for name, by_scale in result["ms_by_scale"].items():
        assert len(by_scale) == len(SCALES)
        assert result["ms_per_sample"][name] == pytest.approx(sum(by_scale.values()) / len(SCALES))
    prepared, baseline = (
        result["ms_per_sample"][f"gta5_lab_{name}"] for name in ("prepared", "baseline")
    )
    assert result["ratio_gta5_lab_prepared"] == pytest.approx(baseline / prepared)
    assert result["workers_by_steps_per_second"]["10"]["prepared"] >= 1
    assert "gta5_lab_prepared" in capsys.readouterr().out
    assert not list(tmp_path.glob("benchmark-data-*"))
