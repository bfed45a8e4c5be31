"""scripts/summarise/: tables and report out of run folders, with and without the data."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

import eval as evaluation
from dataset.image_io import read_image
from dataset.labels import COLORS
from dataset.listing import ImageList
from scripts.predict import __main__ as predict
from scripts.select import __main__ as select
from scripts.summarise import __main__ as entry
from scripts.summarise import pictures
from tests.conftest import write_cityscapes
from tests.helpers.networks import write_checkpoint
from tests.helpers.records import run_record

pytestmark = pytest.mark.usefixtures("narrow_networks")

ROWS = {"source-only": "source-only", "ada": "ADA"}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """What scripts.reproduce leaves of two rows, two seeds of one and one seed of the other, and
    the data they were scored on.
    """
    made = tmp_path_factory.mktemp("made")
    write_cityscapes(made / "cityscapes", {"val": 3})
    for seed, run in ((0, "source-only"), (1, "source-only"), (0, "ada")):
        last = write_checkpoint(made / f"comparison/seed{seed}/{run}/last.pt", name=run, seed=seed)
        (last.parent / "config.json").write_text(json.dumps([run_record(seed)]))
        with SummaryWriter(str(last.parent)) as writer:
            for step in range(5):
                writer.add_scalar("loss/segmentation", 3 - step / 2, step)
        words = [
            last,
            "--cityscapes",
            made / "cityscapes",
            "--json",
            last.parent.with_suffix(".json"),
            "--workers",
            0,
            "--device",
            "cpu",
        ]
        evaluation.main(evaluation.parse_arguments([*map(str, words), "--precision", "fp32"]))
    return made


def test_images_of_equal_last_names_have_pictures_each(tmp_path):
    """0001 of two drives are told apart by the drive, whichever of them are shown."""
    names = ["drive1/0001", "drive1/0002", "drive2/0001"]
    images = ImageList(tmp_path, names, [f"{name}.png" for name in names])
    assert pictures.picture_names(images, [0, 1, 2]) == ["drive1_0001", "0002", "drive2_0001"]
    assert pictures.picture_names(images, [2]) == ["drive2_0001"]


@pytest.fixture
def cityscapes_root(made, tmp_path) -> Path:
    return shutil.copytree(made / "cityscapes", tmp_path / "cityscapes")


@pytest.fixture
def folder(made, cityscapes_root, tmp_path) -> Path:
    folder = shutil.copytree(made / "comparison", tmp_path / "comparison")
    plan = {
        "preset": "demo",
        "published": False,
        "rows": ROWS | {"oracle": "oracle"},
        "cityscapes": str(cityscapes_root),
        "list": None,
    }
    (folder / "comparison.json").write_text(json.dumps(plan))
    return folder


def run(*words) -> None:
    entry.main(entry.parse_arguments([*map(str, words), "--device", "cpu", "--precision", "fp32"]))


def test_pictures_show_what_the_networks_predict(folder, cityscapes_root, tmp_path):
    run(folder, "--pictures", 2)
    frames = sorted(path.name for path in (folder / "pictures").iterdir())
    assert frames == [
        f"lindau_{n:06}_000019_leftImg8bit" for n in (0, 2)
    ]  # the ends of three images
    street = next((cityscapes_root / "leftImg8bit/val").rglob(f"{frames[1]}.png"))
    words = [
        street,
        "--model",
        folder / "seed0/ada/last.pt",
        "--output",
        tmp_path / "out",
        "--save",
        "color",
        "--no-legend",
    ]
    predict.main(
        predict.parse_arguments([*map(str, words), "--device", "cpu", "--precision", "fp32"])
    )
    shown = np.array(Image.open(folder / "pictures" / frames[1] / "ada.png").convert("RGB"))
    assert np.array_equal(shown, read_image(tmp_path / f"out/{frames[1]}_color.png"))
    assert {tuple(color) for color in shown.reshape(-1, 3).tolist()} <= {
        tuple(color) for color in COLORS.tolist()
    }
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png") == 2 * 3
    assert page.count("data:image/jpeg") == 2


def test_pictures_of_a_layout_of_ones_own(folder, cityscapes_root, tmp_path):
    """Those of scripts.reproduce with a preset that scores with --layout FILE."""
    (cityscapes_root / "leftImg8bit").rename(cityscapes_root / "pictures")
    layout = tmp_path / "own.toml"
    layout.write_text(
        """class_set = "cityscapes19"
        [splits.train]
        images = "pictures/train/{key}_leftImg8bit.png"
        [splits.val]
        images = "pictures/val/{key}_leftImg8bit.png"
        labels = "gtFine/val/{key}_gtFine_labelIds.png"
        """
    )
    plan = json.loads((folder / "comparison.json").read_text())
    (folder / "comparison.json").write_text(json.dumps(plan | {"layout": str(layout)}))
    run(folder, "--pictures", 1)
    (frame,) = (folder / "pictures").iterdir()
    assert {path.stem for path in frame.iterdir()} >= {"image", "ada", "source-only"}


def test_merged_scores_have_tables_and_no_pictures(folder):
    """The networks' own classes are others; --pictures would show them in the wrong colors."""
    for scores in folder.glob("seed*/*.json"):
        content = json.loads(scores.read_text())
        scores.write_text(json.dumps(content | {"merge": {"name": "m"}}))
    run(folder)
    assert "Left out: the networks have other classes" in (folder / "report.html").read_text()
    assert not (folder / "pictures").exists()
    assert (folder / "tables.md").exists()


def test_run_folders_alone_make_the_same_page(folder, cityscapes_root):
    """Neither data nor checkpoints are needed once the pictures are drawn."""
    run(folder)
    before = {
        name: (folder / name).read_text()
        for name in (
            "report.html",
            "tables.md",
            "tables.csv",
            "tables.tex",
            "curves_loss_segmentation.svg",
        )
    }
    shutil.rmtree(cityscapes_root)
    for last in folder.rglob("last.pt"):
        last.unlink()
    run(folder)
    assert {name: (folder / name).read_text() for name in before} == before


def test_the_report_names_what_is_missing(folder, cityscapes_root):
    """The report names rows and seeds without scores, curves or pictures."""
    shutil.rmtree(cityscapes_root)
    run(folder)
    page = (folder / "report.html").read_text()
    assert "Not trained and scored yet: ADA with seed 1; oracle." in page
    assert "None: the scored images are not available" in page
    assert "No scores during training of source-only, ADA" in page
    assert "Segmentation loss" in page
    plan = json.loads((folder / "comparison.json").read_text())
    (folder / "comparison.json").write_text(json.dumps(plan | {"single_seed": ["ADA"]}))
    run(folder)
    assert "Not trained and scored yet: oracle." in (folder / "report.html").read_text()


def test_a_seed_that_still_trains_cuts_no_curve(tmp_path):
    """Curves are of the scored seeds, or of all while none is scored."""
    for seed, steps in ((0, 5), (1, 2)):
        with SummaryWriter(str(tmp_path / f"seed{seed}/ada")) as writer:
            for step in range(steps):
                writer.add_scalar("loss/segmentation", seed, step)

    def drawn():
        ranges, _ = entry.read_seed_ranges(tmp_path, {"ada": "ADA"})
        return ranges["loss/segmentation"]["ADA"]

    assert (drawn().runs, drawn().steps.tolist()) == (2, [0, 1])
    (tmp_path / "seed0/ada.json").write_text("{}")
    assert (drawn().runs, drawn().steps.tolist()) == (1, [0, 1, 2, 3, 4])


def test_older_records_are_read(folder):
    """A comparison.json of an earlier version says "one_seed"."""
    record = json.loads((folder / "comparison.json").read_text())
    (folder / "comparison.json").write_text(json.dumps(record | {"one_seed": ["ADA"]}))
    assert entry.read_comparison(folder)["single_seed"] == ["ADA"]


def test_a_later_checkpoint_is_drawn_anew_and_others_are_not(folder, monkeypatch):
    run(folder)
    drawn = []
    monkeypatch.setattr(
        pictures,
        "load_predictor",
        lambda checkpoint, *rest: drawn.append(checkpoint["name"]) or load(checkpoint, *rest),
    )
    run(folder)
    assert drawn == []
    write_checkpoint(folder / "seed0/ada/last.pt", name="ada", seed=3)
    run(folder)
    assert drawn == ["ada"]


load = pictures.load_predictor


def test_a_folder_without_its_note_and_rows_not_named_in_it(folder):
    (folder / "comparison.json").unlink()
    run(folder, "--pictures", 0)
    table = (folder / "tables.md").read_text()
    assert "| ada " in table
    assert "| source-only " in table


def test_other_json_files_beside_the_runs_are_left_out(folder, capsys):
    """Such as scores on other images that a user keeps there."""
    names = set(entry.read_comparison(folder)["rows"])
    (folder / "seed0/selection-cities.json").write_text("{}")
    assert set(entry.read_comparison(folder)["rows"]) == names
    assert "seed0/selection-cities.json" in capsys.readouterr().out
    entry.main(entry.parse_arguments([str(folder), "--pictures", "0"]))


def test_scores_of_other_images_are_refused(folder):
    scores = json.loads((folder / "seed1/source-only.json").read_text())
    (folder / "seed1/source-only.json").write_text(json.dumps(scores | {"images": 250}))
    with pytest.raises(
        ValueError,
        match=r"scored on 3 images of val.* on 250 images of val.*cannot stand in one table",
    ):
        run(folder)


def test_as_many_other_images_are_refused(folder):
    """Their names count, not their number alone."""
    file = folder / "seed1/source-only.json"
    other = json.loads(file.read_text()) | {"fingerprint": "3 images, 0123456789ab"}
    file.write_text(json.dumps(other))
    with pytest.raises(ValueError, match=r"names 0123456789ab.*cannot stand in one table"):
        run(folder)


def test_nothing_to_summarise(tmp_path):
    """An absent folder and one without scores."""
    with pytest.raises(FileNotFoundError, match="No folder"):
        run(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="Nothing scored under"):
        run(tmp_path)


def test_a_list_needs_its_images(folder, capsys):
    with pytest.raises(SystemExit):
        run(folder, "--list", "names.txt")
    assert "give both" in capsys.readouterr().err


@pytest.fixture
def unlabelled(tmp_path) -> Path:
    """Two seeds of one row on a target without labels, and what scripts.select wrote of them."""
    write_cityscapes(tmp_path / "target", {"train": 2}, labels=False)
    folder = tmp_path / "comparison"
    for seed in (0, 1):
        last = write_checkpoint(folder / f"seed{seed}/strong/last.pt", f"strong-{seed}", seed)
        warning = "step 5: WARNING: sky collapses on the target"
        record = run_record(seed) | {"warnings": [warning] * seed}
        (last.parent / "config.json").write_text(json.dumps([record]))
        with SummaryWriter(str(last.parent)) as writer:
            writer.add_scalar("loss/segmentation", 1.0, 1)
            writer.add_scalar("val/miou", 0.5, 1)
    words = [*sorted(folder.glob("seed*/strong")), "--cityscapes", tmp_path / "target"]
    words += ["--json", folder / "select.json", "--workers", 0, "--pixels", 30]
    select.main(select.parse_arguments([*map(str, words), "--device", "cpu"]))
    return folder


def test_a_comparison_without_labels_has_no_scores(unlabelled, capsys):
    """Measures, class shares, warnings and pictures; nothing that looks like a score."""
    words = [str(unlabelled), "--device", "cpu", "--pictures", "1"]
    capsys.readouterr()
    entry.main(entry.parse_arguments(words))
    table = (unlabelled / "measures.md").read_text()
    page = re.sub(r"base64,[^\"]*", "", (unlabelled / "report.html").read_text())
    for text in (page, table, capsys.readouterr().out):
        assert "IoU" not in text
        assert "accuracy" not in text
    assert "%" not in table
    assert "nothing on this page is a score" in page
    assert "seed1/strong: step 5: WARNING: sky collapses" in page
    assert "Class shares of the predictions" in page
    assert "Segmentation loss" in page
    assert page.count("<figure>") == 3  # the image, and a prediction of each seed
    assert "strong-0" in table
    assert "strong-1" in table
    assert table.count("-> ") == 1
    assert not list(unlabelled.glob("tables.*"))


def test_without_scores_and_labels_the_way_is_named(tmp_path):
    folder = tmp_path / "comparison"
    folder.mkdir()
    words = [str(folder), "--device", "cpu"]
    with pytest.raises(FileNotFoundError, match=r"without labels: python -m scripts.select"):
        entry.main(entry.parse_arguments(words))
    (folder / "select.json").write_text('{"candidates": []}')
    with pytest.raises(ValueError, match="has no chosen, images, measures"):
        entry.main(entry.parse_arguments(words))
