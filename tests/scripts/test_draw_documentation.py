import json
from pathlib import Path

import cv2
import pytest

from scripts import draw_documentation as entry
from scripts import make_demo_data
from tests.helpers.forked import ForkingSubprocess
from tests.helpers.networks import write_checkpoint
from tests.helpers.records import run_record, score_row

ROWS = {"source-only": "source-only", "ada": "ADA"}


def run(*words) -> None:
    entry.main(entry.parse_arguments([*map(str, words)]))


@pytest.fixture
def demo(tmp_path) -> Path:
    """The folder of a demo that has trained and scored two rows."""
    data, folder = tmp_path / "data", tmp_path / "demo"
    settings = "--size 64 128 --source-images 3 --target-train 2 --target-val 2 --workers 1"
    make_demo_data.main(["--output", str(data), *settings.split()])
    for run in ROWS:
        write_checkpoint(folder / f"seed0/{run}/last.pt", name=run)
        (folder / f"seed0/{run}/config.json").write_text(json.dumps([run_record()]))
        scores = {"rows": [score_row()], "images": 2, "split": "val", "classes": []}
        (folder / f"seed0/{run}.json").write_text(json.dumps(scores))
    (folder / "curves_val_miou.svg").write_text("<svg/>")  # in place of a training's events
    plan = {
        "preset": "demo",
        "published": False,
        "rows": ROWS,
        "cityscapes": str(data / "cityscapes"),
        "gta5": str(data / "gta5"),
        "list": None,
    }
    (folder / "comparison.json").write_text(json.dumps(plan))
    return folder


def test_every_picture_of_the_pages_is_drawn(demo, tmp_path, monkeypatch):
    monkeypatch.setattr(entry, "subprocess", ForkingSubprocess)
    run(demo, "--output", tmp_path / "images")
    methods, transfer = (
        cv2.imread(str(tmp_path / "images" / name)) for name in ("methods.png", "transfer.jpg")
    )
    assert (
        methods.shape[1] // (600 + 7) == 3
    )  # image, truth and two methods, with gaps between them
    assert transfer.shape[1] == 4 * 300
    assert (tmp_path / "images/curves.svg").read_text() == "<svg/>"


def test_a_demo_that_is_not_finished(demo, tmp_path):
    (demo / "seed0/ada/last.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"ada/last.pt. The demo is not finished"):
        run(demo, "--output", tmp_path / "images")
    (demo / "comparison.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"run ./scripts/demo.sh"):
        run(demo, "--output", tmp_path / "images")
    assert not (tmp_path / "images").exists()


def test_pictures_of_licensed_images_are_refused(demo, cityscapes_root, tmp_path):
    plan = json.loads((demo / "comparison.json").read_text())
    (demo / "comparison.json").write_text(json.dumps(plan | {"cityscapes": str(cityscapes_root)}))
    with pytest.raises(ValueError, match=r"did not draw"):
        run(demo, "--output", tmp_path / "images")
