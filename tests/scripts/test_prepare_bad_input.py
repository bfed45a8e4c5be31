"""What scripts.prepare refuses, and what it says."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.cityscapes import cityscapes
from dataset.gta5 import gta5
from dataset.labels import TRAIN_ID_OF
from dataset.recognition import detect
from scripts.prepare import main, parse_arguments
from tests.conftest import scene, write_gta5
from tests.scripts.test_prepare import arrays, command, prepare


def test_missing_and_empty_roots(tmp_path):
    for root, words in ((tmp_path / "absent", "No folder"), (tmp_path, "01_images.zip")):
        result = command("--gta5", root, "--check")
        assert result.returncode == 1
        assert words in result.stderr
        assert "Traceback" not in result.stderr


def test_files_of_one_name_are_a_finding_among_others(gta5_root, capsys):
    """--check says which, and goes on; preparing refuses them."""
    Image.open(gta5_root / "images/00002.png").save(gta5_root / "images/00002.jpg")
    (gta5_root / "labels/00005.png").write_bytes(b"")
    arguments = ["--gta5", str(gta5_root), "--workers", "1"]
    with pytest.raises(SystemExit):
        main(parse_arguments([*arguments, "--check"]))
    printed = capsys.readouterr().out
    assert "5 good images, 2 problems" in printed
    assert "two of one name: 1\n  images/00002.jpg and images/00002.png: it is unclear" in printed
    with pytest.raises(ValueError, match="files twice"):
        main(parse_arguments([*arguments, "--output", str(gta5_root.parent / "new")]))


def test_a_prepared_root_within_the_raw_one(gta5_root, capsys):
    """Both stay what they are, also when the inner one has the name of the journals' folder."""
    inner = gta5_root / "prepared"
    for made in (6, 0):
        prepare("--gta5", gta5_root, "--output", inner, "--workers", 1)
        assert f"{made} images of gta5 prepared now" in capsys.readouterr().out
    for root, suffix in ((gta5_root, ".png"), (inner, ".npy")):
        assert detect(root).name == "gta5"
        assert gta5(root)[0].image.suffix == suffix


def test_train_ids_throughout(cityscapes_root, tmp_path):
    for path in (cityscapes_root / "gtFine/train").rglob("*.png"):
        label = TRAIN_ID_OF[np.asarray(Image.open(path))]
        Image.fromarray(np.where(label == 255, 0, label)).save(
            path
        )  # without 255, no single file gives itself away
    arguments = ("--cityscapes", cityscapes_root, "--splits", "train", "--workers", 1)
    checked = command(*arguments, "--check")
    assert checked.returncode == 1
    assert "these are trainIds, labelIds (0-34) are expected" in checked.stdout
    with pytest.raises(ValueError, match="these are trainIds"):
        prepare(*arguments, "--output", tmp_path / "p")
    with pytest.raises(ValueError, match="is incomplete"):
        cityscapes(tmp_path / "p", "train")


def test_a_disk_that_is_too_small(gta5_root, tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")(200_000)
    monkeypatch.setattr("dataset.prepared.build.shutil.disk_usage", lambda path: usage)
    with pytest.raises(
        OSError, match=r"has 0.2 MB free; 6 images need 0.3 MB decoded. Free some space"
    ):
        prepare("--gta5", gta5_root, "--output", tmp_path / "p")
    assert arrays(tmp_path / "p") == {}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_fills_up(tmp_path, workers):
    root = write_gta5(tmp_path / "raw", 6, (72, 136))
    image, label = scene(0, (300, 600))
    Image.fromarray(image).save(root / "images/00004.png")
    Image.fromarray(label).save(root / "labels/00004.png")
    # bytes a file may have: enough for the small images and the journal, not for the fourth
    limit = 100_000

    arguments = ("--gta5", root, "--output", tmp_path / "p", "--workers", workers)
    result = command(*arguments, file_limit=limit)
    assert result.returncode == 1
    assert re.search(
        r"error: Could not write .*00004.npy: File too large.*free some", result.stderr
    )
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "p/images/00004.npy").exists()
    with pytest.raises(ValueError, match="is incomplete"):
        gta5(tmp_path / "p")
    assert command(*arguments).returncode == 0
    assert len(gta5(tmp_path / "p")) == 6


def test_a_target_that_cannot_be_written(capsys):
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own folders are closed to other users
    try:
        folder.chmod(0o755)
        root = write_gta5(folder / "raw", 2)
        (folder / "closed").mkdir(mode=0o555)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                if os.getuid() == 0:
                    os.setgid(65534)
                    os.setuid(65534)
                prepare("--gta5", root, "--output", folder / "closed/p", "--workers", 1)
            except OSError as error:
                status = (
                    0
                    if re.search(
                        r"Could not write .*Permission denied.*choose another --output", str(error)
                    )
                    else 2
                )
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert not (folder / "closed/p").exists()
    finally:
        shutil.rmtree(folder)


def test_two_at_once(gta5_root, tmp_path):
    prepare("--gta5", gta5_root, "--output", tmp_path / "p")
    program = (
        f"import fcntl, sys; f = open({str(tmp_path / 'p/prepared/gta5-1-of-1.lock')!r}, 'w');"
        " fcntl.lockf(f, fcntl.LOCK_EX); "
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program + "print('held', flush=True); sys.stdin.read()"],
        stdin=-1,
        stdout=-1,
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(
            BlockingIOError, match=r"Another process is preparing gta5-1-of-1 in .*Wait for it"
        ):
            prepare("--gta5", gta5_root, "--output", tmp_path / "p")
    finally:
        holder.communicate()
    prepare("--gta5", gta5_root, "--output", tmp_path / "p")


def test_roots_that_do_not_fit(gta5_root, tmp_path):
    with pytest.raises(FileExistsError, match="is the raw root itself"):
        prepare("--gta5", gta5_root, "--output", gta5_root)
    prepare("--gta5", gta5_root, "--output", tmp_path / "p")
    with pytest.raises(ValueError, match="is a prepared root already"):
        prepare("--gta5", tmp_path / "p", "--output", tmp_path / "q")
    other = write_gta5(tmp_path / "other", 2)
    with pytest.raises(FileExistsError, match="was prepared from .*gta5, not from .*other"):
        prepare("--gta5", other, "--output", tmp_path / "p")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="is a file; expected a folder"):
        prepare("--gta5", gta5_root, "--output", tmp_path / "file")


@pytest.mark.parametrize(
    "arguments", [("--shard", "0/2"), ("--shard", "3/2"), ("--shard", "two"), ("--workers", "0")]
)
def test_arguments(arguments, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--gta5", "x", "--check", *arguments])
    assert "expected" in capsys.readouterr().err


def test_a_list_needs_one_split(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--cityscapes", "x", "--check", "--list", "y"])
    assert "--list needs --splits with one split" in capsys.readouterr().err
