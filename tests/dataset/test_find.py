"""The one search for files: what is found, what is left out and said, what is an error."""

import os
import re
from pathlib import Path

import pytest

from dataset.cityscapes import cityscapes
from dataset.find import LeftOut, find_files, match, walk
from dataset.gta5 import gta5
from dataset.image_io import IMAGE_SUFFIXES
from dataset.listing_check import check_listing
from dataset.synthia import synthia_tree
from dataset.unlabelled import find_images, find_inputs, unlabelled_images
from tests.conftest import write_cityscapes, write_gta5


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_linked_folders_are_entered_once(tmp_path):
    """A link to another disk is followed; links to a parent or a sibling add nothing."""
    root = touch(tmp_path / "root", "a/1.png", "b/2.png")
    touch(tmp_path / "disk", "3.png")
    for name, goal in (("c", tmp_path / "disk"), ("d", tmp_path / "disk"), ("a/up", root)):
        (root / name).symlink_to(goal, target_is_directory=True)
    (root / "above").symlink_to(tmp_path, target_is_directory=True)
    (root / "0").symlink_to(root / "b", target_is_directory=True)
    left_out = LeftOut()
    assert walk(root, left_out).files == ["a/1.png", "b/2.png", "c/3.png"]
    assert [count for count, _ in left_out.kinds.values()] == [4]


def test_a_linked_root_is_a_root(tmp_path):
    """Data sets whose folders, or files, are links are read like others."""
    write_gta5(tmp_path / "disk", 2)
    (tmp_path / "root").mkdir()
    for folder in ("images", "labels"):
        (tmp_path / "root" / folder).symlink_to(tmp_path / "disk" / folder)
    assert gta5(tmp_path / "root").names == gta5(tmp_path / "disk").names


LEFT_BY_SYSTEMS = [
    *("._1.png", ".hidden/2.png", ".ipynb_checkpoints/1-checkpoint.png", "@eaDir/1.png/x.png"),
    *("Thumbs.db", ".DS_Store", "__MACOSX/1.png", "$RECYCLE.BIN/3.png", "lost+found/4.png"),
]


def test_what_systems_leave_behind_is_no_data(tmp_path, capsys):
    """Hidden and system files are passed over at every door, and counted."""
    roots = {
        "gta5": write_gta5(tmp_path / "gta5", 2) / "images",
        "cityscapes": write_cityscapes(tmp_path / "city", {"train": 2})
        / "leftImg8bit/train/aachen",
        "target": touch(tmp_path / "target", "1.png"),
    }
    for folder in roots.values():
        touch(folder, *LEFT_BY_SYSTEMS)
    touch(tmp_path / "gta5/labels", *LEFT_BY_SYSTEMS)
    assert len(gta5(tmp_path / "gta5")) == 2
    assert len(cityscapes(tmp_path / "city", "train")) == 2
    assert len(unlabelled_images([str(tmp_path / "target")])) == 1
    assert len(find_images(f"{tmp_path}/target/**")) == 1
    assert [path.name for path in find_inputs([str(tmp_path / "target")], ())[0]] == ["1.png"]
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("NOTE: left")]
    assert len(said) == 6
    assert all("6 hidden or system folders" in line for line in said)
    assert all(
        "1 hidden or system files (such as ._1.png)" in line.replace("aachen/", "") for line in said
    )


def test_other_files_among_images_are_counted(tmp_path, capsys):
    """Files that are no images of the data set are said with their number and an example."""
    root = write_gta5(tmp_path / "gta5", 2)
    touch(root, "images/00003.bmp", "images/notes.txt")
    gta5(root)
    assert "2 other files (such as 00003.bmp)" in capsys.readouterr().out
    root = write_cityscapes(tmp_path / "city", {"train": 2})
    touch(root, "leftImg8bit/train/aachen/extra.png")
    cityscapes(root, "train")
    assert "1 other files (such as aachen/extra.png)" in capsys.readouterr().out


def test_nothing_left_out_is_nothing_said(gta5_root, cityscapes_root, capsys):
    """The official layouts, with all files that belong to them, are read without a word."""
    touch(cityscapes_root, "gtFine/train/aachen/aachen_000000_000019_gtFine_polygons.json")
    gta5(gta5_root), cityscapes(cityscapes_root, "train")
    assert capsys.readouterr().out == ""


def test_suffixes_have_any_case(tmp_path):
    """*.JPG and *.PNG are images, of data sets too."""
    root = write_gta5(tmp_path, 3)
    for number, (image, label) in enumerate((("PNG", "png"), ("Png", "PNG")), start=1):
        (root / f"images/{number:05}.png").rename(root / f"images/{number:05}.{image}")
        (root / f"labels/{number:05}.png").rename(root / f"labels/{number:05}.{label}")
    check_listing(gta5(root))
    assert len(gta5(root)) == 3


@pytest.mark.parametrize("twin", ["00001.jpg", "00001.PNG"])
def test_twins_of_one_name_are_an_error(gta5_root, twin):
    """Two files that differ in their suffix only: neither is chosen in silence."""
    touch(gta5_root, f"images/{twin}")
    with pytest.raises(ValueError, match="holds 1 files twice.*00001.*remove one of each"):
        gta5(gta5_root)


@pytest.mark.parametrize("door", ["cityscapes", "unlabelled", "inputs", "pattern"])
def test_an_unreadable_folder_is_an_error(cityscapes_root, monkeypatch, door):
    """A folder without permission to read is named, not left out."""
    closed = cityscapes_root / "leftImg8bit/train/aachen"
    scandir = os.scandir

    def refuse(folder):
        if os.fspath(folder) == str(closed):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    images = cityscapes_root / "leftImg8bit"
    search = {
        "cityscapes": lambda: cityscapes(cityscapes_root, "train", labels=False),
        "unlabelled": lambda: unlabelled_images([str(images)]),
        "inputs": lambda: find_inputs([str(images)], ()),
        "pattern": lambda: unlabelled_images([f"{images}/**/*.png"]),
    }[door]
    with pytest.raises(
        OSError, match="aachen cannot be read .Permission denied.*Get the permission"
    ):
        search()
    monkeypatch.undo()
    assert search()


def test_a_pattern_reads_only_folders_it_can_match(tmp_path, monkeypatch):
    """An unreadable folder elsewhere does not disturb ``root/a/*.png``."""
    touch(tmp_path, "a/1.png", "a/deep/2.png", "b/3.png")
    scandir, read = os.scandir, []
    monkeypatch.setattr(os, "scandir", lambda path: read.append(str(path)) or scandir(path))
    assert match(f"{tmp_path}/?/*.png", LeftOut())[1].files == ["a/1.png", "b/3.png"]
    assert {path.rsplit("/", 1)[-1] for path in read} == {tmp_path.name, "a", "b"}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("[day] (1)/*.png", ["a.png"]),
        ("[day] (1)/**", ["a.png", "b/c.png"]),
        ("[[]day] (1)/*.png", ["[day] (1)/a.png"]),
        ("**/*.png", ["[day] (1)/a.png", "[day] (1)/b/c.png", "x1.png"]),
        ("x[0-9].png", ["x1.png"]),
        ("x[!2].png", ["x1.png"]),
        ("*/?/c.*", ["[day] (1)/b/c.png"]),
        ("x2.png", []),
    ],
)
def test_patterns_are_those_of_a_shell(tmp_path, pattern, expected):
    """Leading folders that exist are taken as they stand, brackets included."""
    touch(tmp_path, "[day] (1)/a.png", "[day] (1)/b/c.png", "x1.png")
    assert match(f"{tmp_path}/{pattern}", LeftOut())[1].files == expected


def test_archives_unpacked_too_deep_are_read(tmp_path):
    """images/images/1.png with labels/10_labels/1.png are pairs, and called 1."""
    root = write_gta5(tmp_path / "gta5", 2)
    for folder, inner in (("images", "images/images"), ("labels", "labels/10_labels")):
        (root / folder).rename(root / "moved")
        (root / inner).parent.mkdir()
        (root / "moved").rename(root / inner)
    assert gta5(root).names == ["00001", "00002"]
    root = write_cityscapes(tmp_path / "city", {"train": 2})
    names = cityscapes(root, "train").names
    (root / "leftImg8bit/train").rename(root / "moved")
    (root / "leftImg8bit/train").mkdir()
    (root / "moved").rename(root / "leftImg8bit/train/train")
    assert cityscapes(root, "train").names == cityscapes(root, "train", labels=False).names == names


def test_names_that_are_not_utf8_are_names(tmp_path):
    """A file name of a zip from Windows is found, read, and can be listed."""
    root = write_gta5(tmp_path, 2)
    for folder in ("images", "labels"):
        path = os.fsencode(root / folder)
        os.rename(path + b"/00001.png", path + b"/stra\xdfe.png")
    listing = gta5(root)
    check_listing(listing)
    assert [os.fsencode(name) for name in listing.names] == [b"00002", b"stra\xdfe"]
    assert listing.select(["stra\xdfe"], "list").names == listing.names[1:]
    assert listing.fingerprint()


def test_missing_labels_are_answered_with_those_there(tmp_path):
    """The error names the endings of the files that were found instead."""
    root = write_cityscapes(tmp_path / "city", {"train": 2})
    for path in [*(root / "gtFine").rglob("*.png")]:
        path.rename(str(path).replace("labelIds", "labelTrainIds"))
    with pytest.raises(FileNotFoundError, match="2 files .*_gtFine_labelTrainIds.png"):
        cityscapes(root, "train")
    touch(tmp_path / "synthia", "RGB/1.tif")
    with pytest.raises(FileNotFoundError, match="1 files .*.tif"):
        synthia_tree(tmp_path / "synthia")


@pytest.mark.parametrize("pattern", ["x[9-0].png", "[z-a]/*.png"])
def test_a_range_that_runs_backwards_is_no_pattern(tmp_path, pattern):
    """The pattern is named, with what was expected."""
    touch(tmp_path, "x1.png", "a/1.png")
    with pytest.raises(ValueError, match=r"no pattern .*bad character range.*such as \[0-9\]"):
        find_images(str(tmp_path / pattern))


def test_the_own_results_are_no_inputs(tmp_path):
    """Files below --output are left out of a folder that contains it."""
    touch(tmp_path, "a.png", "out/a_overlay.png", "drive.MP4", "notes.txt")
    images, videos = find_inputs([str(tmp_path)], (".mp4",), tmp_path / "out")
    assert [path.name for path in (*images, *videos)] == ["a.png", "drive.MP4"]


RESULT = re.compile(r".*_(overlay|color)\.(png|mp4)")


@pytest.mark.parametrize("pattern", ["frames/*.png", "frames", ".", "frames/a*"])
@pytest.mark.parametrize("output", [".", "frames", "frames/out"])
def test_only_results_of_the_output_are_left_out(tmp_path, monkeypatch, output, pattern):
    """In an output at or above the inputs, files with the names of results, and no others."""
    monkeypatch.chdir(tmp_path)
    touch(
        tmp_path, "frames/a.png", "frames/a2.png", f"{output}/a_color.png", f"{output}/a_color.mp4"
    )
    images, videos = find_inputs([pattern], (".mp4",), Path(output), RESULT)
    assert sorted(path.name for path in images) == ["a.png", "a2.png"]
    assert not videos


def test_nothing_but_results(tmp_path):
    """The message says why nothing is left, and what to do."""
    touch(tmp_path, "out/a_overlay.png", "out/more/b_color.png")
    with pytest.raises(ValueError, match=r"left out: 2 results in --output.*another --output"):
        find_inputs([str(tmp_path)], (), tmp_path / "out", RESULT)


def test_predictions_in_any_folder_are_no_images(tmp_path, capsys):
    """Those of an earlier --output, too, where the file that they are of is found with them."""
    touch(tmp_path, "a.png", "x/1.jpg", "y/1.jpg", "b_color.png", "drive.mp4")
    made = ["a_overlay.png", "a_trainIds.png", "x_1_overlay.png", "drive_color.mp4"]
    touch(tmp_path, *(f"first/{name}" for name in made))
    images, videos = find_inputs([str(tmp_path)], (".mp4",), tmp_path / "second")
    found = sorted(path.relative_to(tmp_path).as_posix() for path in (*images, *videos))
    assert found == ["a.png", "b_color.png", "drive.mp4", "x/1.jpg", "y/1.jpg"]
    assert "4 predictions of other files here, by their names (such" in capsys.readouterr().out
    assert len(find_images(str(tmp_path))) == 4
    assert len(find_inputs([str(tmp_path / "first/*")], (".mp4",))[0]) == 3
    assert find_images(str(tmp_path / "first/a_overlay.png"))


@pytest.mark.parametrize("output", ["real/out", "link/out"])
@pytest.mark.parametrize("pattern", ["real", "link", "link/**/*.png"])
def test_results_are_known_through_links(tmp_path, output, pattern):
    """By whichever name the folder is given: results are not segmented again."""
    touch(tmp_path / "real", "a.png", "out/a_overlay.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    images, _ = find_inputs([str(tmp_path / pattern)], (), tmp_path / output)
    assert [path.name for path in images] == ["a.png"]


def test_keys_are_sorted_and_without_ending(tmp_path):
    """The key is the path below the folder without ending and suffix."""
    touch(tmp_path, "x/b/2_end.png", "x/a/1_end.JPG", "x/0.png")
    assert find_files(tmp_path, "x", "_end", IMAGE_SUFFIXES, say=False) == {
        "a/1": "x/a/1_end.JPG",
        "b/2": "x/b/2_end.png",
    }
    assert find_files(tmp_path, "absent", "", IMAGE_SUFFIXES) == {}
