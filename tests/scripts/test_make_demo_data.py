"""The command that writes generated streets as data sets."""

import errno
import json
import os
import shlex
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import train
import train_da
from dataset.demo.scene import CAMERA, GAME, street
from dataset.labels import COLORS, LABEL_COLORS, LABEL_IDS, LAST_LABEL_ID, NUM_CLASSES
from scripts import make_demo_data

SMALL = ("--size", "48", "96", "--source-images", "5", "--target-train", "4", "--target-val", "2")
SMALL_FILES = 2 * (5 + 4 + 2)


def run(output, *more):
    """The command with few and small images, in this process."""
    make_demo_data.main(["--output", str(output), *SMALL, "--workers", "1", *more])


def contents(folder):
    """{path below folder: bytes} of all files."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A complete data set; not to be changed."""
    output = tmp_path_factory.mktemp("demo") / "whole"
    run(output)
    return output


def test_official_layout(whole):
    target = [
        f"train/{city}/{city}_{i:06d}_000019"
        for city, i in (("aldenmoor", 0), ("brackwater", 0), ("corvenstadt", 0), ("aldenmoor", 1))
    ]
    target += [f"val/dunmerell/dunmerell_{i:06d}_000019" for i in (0, 1)]
    expected = {
        f"gta5/{folder}/{i:05d}.png" for folder in ("images", "labels") for i in range(1, 6)
    }
    expected |= {f"cityscapes/leftImg8bit/{name}_leftImg8bit.png" for name in target}
    expected |= {f"cityscapes/gtFine/{name}_gtFine_labelIds.png" for name in target}
    assert set(contents(whole)) == {*expected, "demo.json"}


def test_files_are_as_the_originals(whole):
    image, label = (
        Image.open(whole / "gta5" / folder / "00002.png") for folder in ("images", "labels")
    )
    assert (image.mode, label.mode, image.size, label.size) == ("RGB", "P", (96, 48), (96, 48))
    drawn, label_ids = street(np.random.default_rng([0, 0, 1]), GAME, (48, 96))
    assert (np.asarray(image) == drawn).all()
    assert (np.asarray(label) == label_ids).all()
    palette = np.array(label.getpalette()).reshape(-1, 3)
    assert (palette[list(LABEL_IDS)] == COLORS[:NUM_CLASSES]).all()
    assert (palette == LABEL_COLORS).all()
    assert palette[LAST_LABEL_ID].tolist() == [0, 0, 142]

    name = "val/dunmerell/dunmerell_000001_000019"
    image = Image.open(whole / "cityscapes" / "leftImg8bit" / f"{name}_leftImg8bit.png")
    label = Image.open(whole / "cityscapes" / "gtFine" / f"{name}_gtFine_labelIds.png")
    assert (image.mode, label.mode) == ("RGB", "L")
    drawn, label_ids = street(np.random.default_rng([0, 2, 1]), CAMERA, (48, 96))
    assert (np.asarray(image) == drawn).all()
    assert (np.asarray(label) == label_ids).all()


def test_workers_do_not_change_the_pictures(whole, tmp_path):
    run(tmp_path / "two", "--workers", "2")
    assert contents(tmp_path / "two") == contents(whole)


def test_fewer_images_are_the_first_of_more(whole, tmp_path):
    run(tmp_path / "fewer", "--source-images", "2")
    fewer, more = contents(tmp_path / "fewer"), contents(whole)
    assert all(more[path] == data for path, data in fewer.items() if path != make_demo_data.RECORD)


def test_complete_is_left_alone(whole, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    run(whole)
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before
    assert "0 drawn now, 11 there already" in capsys.readouterr().out


def test_says_what_to_run_next(tmp_path, capsys):
    run(tmp_path / "new")
    printed = capsys.readouterr().out
    gta5, cityscapes = tmp_path / "new" / "gta5", tmp_path / "new" / "cityscapes"
    assert "11 pairs of 48x96, 11 drawn now" in printed
    assert (
        f"python train.py --train-on source --gta5 {gta5} --backbone resnet18 --backbone-weights"
        " none --lr 2e-2 --crop-size 48 96 --max-steps 1000 --schedule-steps 1000\n" in printed
    )
    assert (
        f"python train_da.py --discriminator light --lab --gta5 {gta5} --cityscapes {cityscapes} "
        in printed
    )


def test_the_next_commands_are_commands():
    """Their own parsers take them, a folder with a space included, crops are never larger than the
    paper's, and both make the same steps.
    """
    source_only, adaptation = (
        shlex.split(command)
        for command in make_demo_data.next_commands(Path("my streets"), (1024, 2048))
    )
    assert (source_only[:2], adaptation[:2]) == (["python", "train.py"], ["python", "train_da.py"])
    for args in (train.parse_arguments(source_only[2:]), train_da.parse_arguments(adaptation[2:])):
        assert (args.gta5, args.backbone, args.backbone_weights, args.lr) == (
            Path("my streets/gta5"),
            "resnet18",
            "none",
            2e-2,
        )
        assert args.crop_size == [512, 1024]
        assert args.max_steps == args.schedule_steps == 1000
    assert (args.cityscapes, args.discriminator, args.lab) == (
        Path("my streets/cityscapes"),
        "light",
        True,
    )


def test_an_interrupted_run_is_continued(whole, tmp_path, monkeypatch, capsys):
    output, drawn, really_draw = tmp_path / "demo", [], make_demo_data.draw_pair

    def draw_three(pair, **settings):
        if len(drawn) == 3:
            raise KeyboardInterrupt
        drawn.append(pair)
        really_draw(pair, **settings)

    monkeypatch.setattr(make_demo_data, "draw_pair", draw_three)
    with pytest.raises(SystemExit) as stop:
        run(output)
    assert stop.value.code == 130
    assert "same command again" in capsys.readouterr().err
    monkeypatch.undo()
    (output / "gta5/images/.00004.png.writing").write_bytes(b"what a killed run leaves behind")
    (output / "gta5/labels/00003.png").write_bytes(b"")
    run(output)
    assert "9 drawn now, 2 there already" in capsys.readouterr().out
    assert contents(output) == contents(whole)


def refused(output, capsys, *more) -> str:
    """Run the command, which must exit with 2 and change nothing; returns its message on one
    line.
    """
    before = contents(output) if output.is_dir() else None
    with pytest.raises(SystemExit) as stop:
        run(output, *more)
    assert stop.value.code == 2
    assert (contents(output) if output.is_dir() else None) == before
    return " ".join(capsys.readouterr().err.split())


def test_a_folder_with_other_things_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("two years of work")
    message = refused(tmp_path, capsys)
    assert "thesis.tex" in message
    assert "Choose another --output" in message


def test_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "is a file; expected a folder" in refused(tmp_path / "file", capsys)


@pytest.mark.parametrize(
    ("flag", "value", "found"),
    [("--seed", "1", "seed 0 (now 1)"), ("--source-images", "6", "source_images 5 (now 6)")],
)
def test_other_settings_are_refused(whole, capsys, flag, value, found):
    assert found in refused(whole, capsys, flag, value)


def test_foreign_pictures_among_the_drawn_are_refused(whole, tmp_path, capsys):
    output = tmp_path / "demo"
    shutil.copytree(whole, output)
    (output / "gta5/images/00099.png").write_bytes(b"")
    message = refused(output, capsys)
    assert "00099.png" in message
    assert "Move them elsewhere" in message


def test_a_spoilt_record_is_refused(tmp_path, capsys):
    (tmp_path / make_demo_data.RECORD).write_text("{")
    assert "delete the folder to draw it again" in refused(tmp_path, capsys)


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (("--size", "20", "96"), "20x96 pixels (height x width) is too small to draw"),
        (("--target-val", "0"), "--target-val is 0; expected 1 to 99999"),
        (("--source-images", "100000"), "--source-images is 100000"),
        (("--seed", "-1"), "--seed: expected at least 0, found -1"),
        (("--workers", "0"), "--workers: expected at least 1, found 0"),
    ],
)
def test_bad_numbers_are_refused(tmp_path, capsys, flags, found):
    assert found in refused(tmp_path / "demo", capsys, *flags)
    assert not (tmp_path / "demo").exists()


def test_too_little_room_is_found_beforehand(tmp_path, monkeypatch, capsys):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 10**9 - 10**5, 10**5))
    message = refused(tmp_path / "demo", capsys)
    assert "0 MB free; 11 pairs of 48x96 need up to" in message
    assert "Free some space" in message
    assert not (tmp_path / "demo").exists()


def test_the_estimate_covers_the_worst_case(tmp_path, monkeypatch):
    """Noise, which no PNG compresses, must fit in what the estimate allows for a pair."""
    height, width = 48, 96
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    monkeypatch.setattr(make_demo_data, "street", lambda rng, look, size: (noise, noise[..., 0]))
    pair = make_demo_data.Pair("source", 0, tmp_path / "image.png", tmp_path / "label.png")
    make_demo_data.draw_pair(pair, (height, width), seed=0)
    assert pair.image.stat().st_size + pair.label.stat().st_size < make_demo_data.worst_case_bytes(
        (height, width)
    )


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_disk_that_fills_up(whole, tmp_path, monkeypatch, capsys, workers):
    output, replace = tmp_path / "demo", os.replace

    def replace_until_full(temporary, path):
        if Path(path).name == "00003.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(temporary, path)

    monkeypatch.setattr(os, "replace", replace_until_full)
    with pytest.raises(SystemExit) as stop:
        run(output, "--workers", workers)
    message = " ".join(capsys.readouterr().err.split())
    assert stop.value.code == 2
    assert "00003.png (No space left on device)" in message
    assert "same command again" in message
    assert not list(output.rglob("*.writing"))
    monkeypatch.undo()
    run(output)
    assert contents(output) == contents(whole)


def test_the_record_tells_how_it_was_made(whole):
    record = json.loads((whole / make_demo_data.RECORD).read_text())
    assert record["size"] == [48, 96]
    assert record["seed"] == 0
    assert len(contents(whole)) == SMALL_FILES + 1
