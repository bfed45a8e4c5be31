"""scripts.prepare as a user meets it: what it reports and what it survives."""

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.cityscapes import cityscapes
from dataset.gta5 import gta5
from dataset.image_io import read_image
from dataset.label_io import read_label
from dataset.labels import TRAIN_ID_OF
from scripts.prepare import main, parse_arguments
from tests.conftest import scene, write_cityscapes, write_gta5
from tests.helpers.forked import run_forked

REPOSITORY = Path(__file__).parents[2]


def prepare(*arguments: object) -> None:
    main(parse_arguments([str(argument) for argument in arguments]))


def command(*arguments: object, **options) -> subprocess.CompletedProcess:
    """The command in a process of its own, with the ``options`` of run_forked."""
    return run_forked("scripts.prepare", *arguments, **options)


def arrays(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in root.rglob("*.npy")}


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.npy")}


@pytest.mark.parametrize("workers", [1, 2])
def test_prepares_and_reports(gta5_root, tmp_path, capsys, workers):
    prepare("--gta5", gta5_root, "--output", tmp_path / "p", "--workers", workers)
    text = capsys.readouterr().out
    assert "6 images of gta5 to prepare" in text
    assert re.search(r"needed, .* free", text)
    assert "6 good images, 0 problems" in text
    assert "72x136: 6" in text
    share = 100 * np.mean([(TRAIN_ID_OF[scene(n, (72, 136))[1]] == 0).mean() for n in range(1, 7)])
    assert re.search(rf"road +\| +{share:.3f}", text)
    assert "6 images of gta5 prepared now, 0 there already" in text
    assert len(gta5(tmp_path / "p")) == 6
    assert not list(tmp_path.rglob("*.writing"))


def test_a_second_run_does_nothing(gta5_root, tmp_path, capsys):
    prepare("--gta5", gta5_root, "--output", tmp_path / "p")
    before = arrays(tmp_path / "p")
    journal = (tmp_path / "p/prepared/gta5-1-of-1.jsonl").stat().st_mtime_ns
    prepare("--gta5", gta5_root, "--output", tmp_path / "p")
    assert "0 images of gta5 prepared now, 6 there already" in capsys.readouterr().out
    assert len(before) == 12
    assert arrays(tmp_path / "p") == before
    assert (tmp_path / "p/prepared/gta5-1-of-1.jsonl").stat().st_mtime_ns == journal


def test_cityscapes_with_both_splits_and_with_a_list(cityscapes_root, tmp_path):
    prepare("--cityscapes", cityscapes_root, "--output", tmp_path / "p")
    assert [len(cityscapes(tmp_path / "p", split)) for split in ("train", "val")] == [5, 3]
    (tmp_path / "list.txt").write_text("aachen/aachen_000003_000019_leftImg8bit.png\n")
    prepare(
        "--cityscapes",
        cityscapes_root,
        "--splits",
        "train",
        "--list",
        tmp_path / "list.txt",
        "--output",
        tmp_path / "few",
    )
    assert cityscapes(tmp_path / "few", "train").names == [
        "aachen/aachen_000003_000019_leftImg8bit"
    ]
    prepare("--cityscapes", cityscapes_root, "--splits", "train", "--output", tmp_path / "few")
    assert len(cityscapes(tmp_path / "few", "train")) == 5
    prepare(
        "--cityscapes",
        cityscapes_root,
        "--splits",
        "train",
        "--list",
        tmp_path / "list.txt",
        "--output",
        tmp_path / "few",
    )
    assert len(cityscapes(tmp_path / "few", "train")) == 5  # a list adds, and takes nothing away


def test_changed_added_and_removed_sources(gta5_root, tmp_path, capsys):
    prepare("--gta5", gta5_root, "--output", tmp_path / "p")
    before = arrays(tmp_path / "p")
    image, _ = scene(50, (72, 136))
    Image.fromarray(image).save(gta5_root / "images/00002.png")
    for folder in ("images", "labels"):
        shutil.copy(gta5_root / folder / "00003.png", gta5_root / folder / "00009.png")
        (gta5_root / folder / "00001.png").unlink()
    prepare("--gta5", gta5_root, "--output", tmp_path / "p")
    text = capsys.readouterr().out
    assert "2 images of gta5 prepared now, 4 there already" in text
    assert "images/00001.png does not exist any more" in text
    listing = gta5(tmp_path / "p")
    assert listing.names == ["00002", "00003", "00004", "00005", "00006", "00009"]
    assert np.array_equal(read_image(listing[0].image), image)
    after = arrays(tmp_path / "p")
    assert {name for name in before if before[name] != after[name]} == {
        "images/00002.npy",
        "labels/00002.npy",
    }


def test_shards_need_no_merging(gta5_root, tmp_path, capsys):
    prepare("--gta5", gta5_root, "--output", tmp_path / "whole")
    for part in (3, 1):
        prepare("--gta5", gta5_root, "--output", tmp_path / "p", "--shard", f"{part}/3")
    with pytest.raises(
        ValueError,
        match=(
            r"is incomplete: of gta5, shard 2/3 was never prepared. Run scripts.prepare with"
            r" --shard 2/3"
        ),
    ):
        gta5(tmp_path / "p")
    prepare("--gta5", gta5_root, "--output", tmp_path / "p", "--shard", "2/3")
    made = [
        int(count)
        for count in re.findall(r"(\d+) images of gta5 prepared now", capsys.readouterr().out)
    ]
    assert sum(made[1:]) == 6
    assert max(made[1:]) < 6
    whole, sharded = gta5(tmp_path / "whole"), gta5(tmp_path / "p")
    assert sharded.names == whole.names
    assert np.array_equal(sharded.statistics.lab, whole.statistics.lab)
    assert contents(tmp_path / "p") == contents(tmp_path / "whole")
    with pytest.raises(FileExistsError, match="holds gta5 in 3 shards, not in 1"):
        prepare("--gta5", gta5_root, "--output", tmp_path / "p")


def damage(root: Path) -> dict[str, str]:
    """All kinds of damage in one tree of twelve pairs: {file: what its line in the report must
    say}.
    """
    write_gta5(root, 12)
    images, labels = root / "images", root / "labels"
    (labels / "00001.png").unlink()
    (images / "00002.png").unlink()
    Image.fromarray(np.full((70, 136), 7, np.uint8)).save(labels / "00003.png")
    for path in (images / "00004.png", labels / "00005.png"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    Image.fromarray(np.full((72, 136), 77, np.uint8)).save(labels / "00006.png")
    Image.fromarray(TRAIN_ID_OF[scene(7, (72, 136))[1]]).save(labels / "00007.png")
    (images / "00008.png").write_bytes(b"")
    Image.fromarray(np.full((72, 136, 3), 77, np.uint8)).save(labels / "00009.png")
    content = bytearray((images / "00010.png").read_bytes())
    content[len(content) // 2] ^= 16
    (images / "00010.png").write_bytes(content)
    return {
        "images/00001.png": "has no label",
        "labels/00002.png": "has no image",
        "images/00003.png": "expected equal sizes",
        "images/00004.png": "cannot be decoded",
        "labels/00005.png": "cannot be decoded",
        "labels/00006.png": r"label values \[77\]",
        "labels/00007.png": "holds trainIds",
        "images/00008.png": "cannot be decoded",
        "labels/00009.png": r"RGB \(77, 77, 77\)",
        "images/00010.png": "cannot be decoded",
        "00099": "names 00099.png, which is not under",
    }


@pytest.fixture
def damaged(tmp_path) -> tuple[Path, Path, dict[str, str]]:
    """Root, list file, what is to be reported."""
    expected = damage(tmp_path / "damaged")
    (tmp_path / "list.txt").write_text(
        "\n".join(f"{number:05}.png" for number in (*range(1, 13), 99))
    )
    return tmp_path / "damaged", tmp_path / "list.txt", expected


def test_check_finds_all_kinds_of_damage(damaged, tmp_path):
    """All kinds of damage are found in one pass, each with a remedy; nothing is written."""
    root, names, expected = damaged
    before = sorted(tmp_path.rglob("*"))
    result = command("--gta5", root, "--list", names, "--check", "--workers", 2)
    assert result.returncode == 1
    assert "2 good images, 11 problems" in result.stdout
    for file, words in expected.items():
        lines = [
            line
            for line in result.stdout.splitlines()
            if re.match(rf"  .*{file}\b", line) and re.search(words, line)
        ]
        assert len(lines) == 1, file
        assert re.search(r"[Ff]etch|[Uu]se|[Rr]emove|Expected", lines[0])
    assert len(re.findall(r"^  ", result.stdout, re.MULTILINE)) == len(expected)
    assert sorted(tmp_path.rglob("*")) == before


def test_check_of_a_sound_tree(gta5_root):
    result = command("--gta5", gta5_root, "--check", "--workers", 1)
    assert result.returncode == 0
    assert "6 good images, 0 problems" in result.stdout


def test_bad_images_are_left_out_listed_and_taken_up_once_mended(damaged, tmp_path, capsys):
    root, _, expected = damaged
    prepare("--gta5", root, "--output", tmp_path / "p", "--workers", 2)
    assert gta5(tmp_path / "p").names == ["00011", "00012"]
    left_out = (tmp_path / "p/prepared/gta5-1-of-1.txt").read_text()
    assert all(file in left_out for file in expected if file != "00099")
    Image.fromarray(scene(4, (72, 136))[0]).save(root / "images/00004.png")
    prepare("--gta5", root, "--output", tmp_path / "p", "--workers", 2)
    assert "1 images of gta5 prepared now, 2 there already; left out" in capsys.readouterr().out
    assert gta5(tmp_path / "p").names == ["00004", "00011", "00012"]


def test_the_removed_flag_of_lab_copies_is_refused(gta5_root, tmp_path, capsys):
    """A command of an earlier version ends with the remedy, and not with "unrecognized"."""
    with pytest.raises(SystemExit):
        prepare("--gta5", gta5_root, "--output", tmp_path / "p", "--lab-copies")
    assert "--lab-copies was removed" in capsys.readouterr().err


def test_a_kill_in_the_middle(tmp_path):
    root = write_gta5(tmp_path / "raw", 60, (256, 512))
    output = tmp_path / "p"
    line = [
        sys.executable,
        "-m",
        "scripts.prepare",
        "--gta5",
        root,
        "--output",
        output,
        "--workers",
        "2",
    ]
    process = subprocess.Popen(
        line, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    journal = output / "prepared/gta5-1-of-1.jsonl"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 6:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    recorded = journal.read_bytes().count(b"\n") - 1
    assert 5 <= recorded < 60
    for path in output.rglob("*.npy"):
        if path.parent.parent == output:
            assert np.load(path).shape[:2] == (256, 512)  # whatever has its name is whole
    with pytest.raises(ValueError, match="is incomplete"):
        gta5(output)
    before = arrays(output / "images")
    result = command("--gta5", root, "--output", output)
    assert (
        f"{60 - recorded} images of gta5 prepared now, {recorded} there already" in result.stdout
    ), result.stderr
    after = arrays(output / "images")
    assert sum(before[name] == after[name] for name in before) >= recorded
    assert not list(output.rglob("*.writing"))
    prepare("--gta5", root, "--output", tmp_path / "at once")
    assert contents(output) == contents(tmp_path / "at once")
    assert gta5(output).names == [f"{number:05}" for number in range(1, 61)]


def test_the_test_split_is_not_taken_for_labelled_data(tmp_path, capsys):
    root = write_cityscapes(tmp_path / "c", {"train": 2, "val": 1})
    shutil.copytree(root / "leftImg8bit/val", root / "leftImg8bit/test")
    prepare("--cityscapes", root, "--output", tmp_path / "p")
    assert not (tmp_path / "p/leftImg8bit/test").exists()
    assert read_label(cityscapes(tmp_path / "p", "val")[0].label).max() > 18
