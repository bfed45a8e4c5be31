"""scripts.prepare for any data set: recognized, named, or described in a file."""

import pytest
from PIL import Image

from dataset.layout import data_images
from dataset.layout_file import load_layout
from scripts.prepare import main, parse_arguments
from tests.helpers.trees import TREES, write_tree


def prepare(*arguments: object) -> None:
    main(parse_arguments([*map(str, arguments), "--workers", "1"]))


def test_a_recognized_root(tmp_path, capsys):
    """Both splits with labels are prepared, and the report names the classes of the data set."""
    root = write_tree(tmp_path / "raw", "idd-lite")
    prepare("--source", root, "--output", tmp_path / "p")
    text = capsys.readouterr().out
    assert "raw: IDD-Lite, train and val" in text
    assert "idd-lite-val under" in text
    assert "roadside object" in text
    for split in ("train", "val"):
        images = data_images(tmp_path / "p", split)
        assert images.names == data_images(root, split).names
        assert images.class_set.name == "idd-lite7"


def test_splits_that_have_labels(tmp_path, capsys):
    """Dark Zurich's train is prepared without labels only; other splits when they are named."""
    root = write_tree(tmp_path / "raw", "dark-zurich")
    prepare("--source", root, "--check")
    text = capsys.readouterr().out
    assert "dark-zurich-val under" in text
    assert "dark-zurich-train" not in text
    prepare("--source", root, "--without-labels", "--check")
    assert "dark-zurich-train under" in capsys.readouterr().out
    prepare("--source", root, "--without-labels", "--check", "--splits", "train_day")
    assert "dark-zurich-train_day under" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no split 'extra'; expected one of train, train_twilight"):
        prepare("--source", root, "--check", "--splits", "extra")


def test_lists_and_shards(tmp_path, capsys):
    """As for the data sets of the paper: one split for a list, every shard to be complete."""
    root = write_tree(tmp_path / "raw", "acdc")
    names = data_images(root, "train").names
    (tmp_path / "list.txt").write_text(TREES["acdc"]["train"][1][0])
    with pytest.raises(ValueError, match="--list needs --splits with one split"):
        prepare("--source", root, "--list", tmp_path / "list.txt", "--check")
    few = ("--list", tmp_path / "list.txt", "--splits", "train", "--output", tmp_path / "few")
    prepare("--source", root, *few)
    assert data_images(tmp_path / "few", "train").names == names[1:]
    for shard in ("1/2", "2/2"):
        prepare("--source", root, "--output", tmp_path / "p", "--shard", shard)
    assert data_images(tmp_path / "p", "train").names == names


def test_a_named_layout_and_a_class_set(tmp_path, capsys):
    """images/ and labels/ of any classes; a value that no class has is named with its file."""
    root = write_tree(tmp_path / "raw", "folders")
    for path in (root / "labels").rglob("*.png"):
        Image.new("L", (24, 16), 1).save(path)
    flags = ("--source", root, "--layout", "folders", "--class-set", "camvid11")
    prepare(*flags, "--output", tmp_path / "p")
    assert "building" in capsys.readouterr().out
    Image.new("L", (24, 16), 99).save(path)
    with pytest.raises(SystemExit):
        prepare(*flags, "--check")
    text = capsys.readouterr().out
    assert "1 good images, 1 problems" in text
    assert f"{path.relative_to(root).as_posix()} has values" in text


def test_a_file_that_describes_the_tree(tmp_path):
    """The prepared root is read with the same file."""
    root = write_tree(tmp_path / "raw", "camvid-original")
    file = tmp_path / "mine.toml"
    file.write_text(
        'class_set = "camvid11"\nencoding = "colors32"\n[splits.train]\n'
        'images = "701_StillsRaw_full/{key}.png"\nlabels = "LabeledApproved_full/{key}_L.png"\n'
    )
    prepare("--source", root, "--layout", file, "--output", tmp_path / "p")
    images = data_images(tmp_path / "p", "train", layout=load_layout(file))
    assert images.names == data_images(root, "train").names


def test_a_layout_without_its_root(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--gta5", "x", "--layout", "acdc", "--check"])
    assert "--layout describes the tree of --source ROOT" in capsys.readouterr().err


def test_two_files_of_one_name_are_a_finding(tmp_path, capsys):
    """--check reports them once, in the split that they are of, and goes on."""
    root = write_tree(tmp_path / "raw", "acdc")
    image = TREES["acdc"]["val"][0][0]
    (root / image).with_suffix(".JPG").touch()
    with pytest.raises(SystemExit):
        prepare("--source", root, "--check")
    text = capsys.readouterr().out
    assert "acdc-train under" in text
    assert text.count("two of one name: 1") == text.count("it is unclear which one is meant") == 1
    with pytest.raises(ValueError, match="holds 1 files twice"):
        prepare("--source", root, "--output", tmp_path / "p")
