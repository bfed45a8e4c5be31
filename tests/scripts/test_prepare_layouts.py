"""scripts.prepare for any data set: recognized, named, or described in a file."""

import json

import numpy as np
import pytest
from PIL import Image

from dataset.class_set_file import load_class_set
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
    assert "NOTE: train is left out" in text
    assert "add --splits train --without-labels" in text
    prepare("--source", root, "--without-labels", "--check")
    text = capsys.readouterr().out
    assert "dark-zurich-train under" in text
    assert "NOTE" not in text
    prepare("--source", root, "--without-labels", "--check", "--splits", "train_day")
    assert "dark-zurich-train_day under" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no split 'extra'; expected one of train, train_twilight"):
        prepare("--source", root, "--check", "--splits", "extra")


def test_a_command_that_would_prepare_nothing(tmp_path, capsys):
    """Splits of other names must be named; those that a data set has not are never passed over."""
    root, file = write_tree(tmp_path / "raw", "kitti"), tmp_path / "mine.toml"
    text = '[splits.training]\nimages = "training/image_2/{key}.png"\nLABELS\n'
    text += '[splits.testing]\nimages = "testing/image_2/{key}.png"\n'
    labels = 'labels = "training/semantic/{key}.png"'
    file.write_text(text.replace("LABELS", labels))
    words = ("--source", root, "--layout", file, "--check")
    with pytest.raises(ValueError, match="no split train or val with labels: .*of training by"):
        prepare(*words)
    with pytest.raises(ValueError, match="no split train or val: .*some of training, testing by"):
        prepare(*words, "--without-labels")
    prepare(*words, "--without-labels", "--splits", "testing")
    assert "mine-testing under" in capsys.readouterr().out
    file.write_text(text.replace("LABELS", ""))
    with pytest.raises(ValueError, match="with labels: .*--without-labels"):
        prepare(*words)
    root = write_tree(tmp_path / "one", "folders")
    words = ("--source", root, "--layout", "folders", "--check", "--splits")
    with pytest.raises(ValueError, match="--splits val: .* has the one split train. Leave"):
        prepare(*words, "val")
    prepare(*words, "train")


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


LETTERS = """
classes = ["a", "b"]
colors = [[1, 1, 1], [2, 2, 2]]
[encodings.ids]
read = "index"
classes = {a = 1, b = 2}
"""


@pytest.fixture
def letters(tmp_path):
    """(flags, class set file, prepared root): two labels of the values 1 and 2, prepared."""
    root, file = write_tree(tmp_path / "raw", "folders"), tmp_path / "c.toml"
    for path in (root / "labels").rglob("*.png"):
        Image.fromarray(np.arange(16 * 24, dtype=np.uint8).reshape(16, 24) % 2 + 1).save(path)
    file.write_text(LETTERS)
    flags = ("--source", root, "--layout", "folders", "--class-set", file)
    prepare(*flags, "--output", tmp_path / "p")
    return flags, file, tmp_path / "p"


def stored_values(prepared, file):
    """The first trainIds of the labels, as a run with the class set of the file reads them."""
    folders = load_layout("folders")
    images = data_images(prepared, "train", layout=folders, class_set=load_class_set(file))
    return [images.label_format.read_train_ids(images[i].label)[0, 0] for i in range(2)]


def test_a_corrected_class_set_makes_labels_again(letters, capsys):
    """Prepared labels with the values of before are never trained on, nor kept."""
    flags, file, output = letters
    assert stored_values(output, file) == [0, 0]
    file.write_text(LETTERS.replace("{a = 1, b = 2}", "{a = 2, b = 1}"))
    with pytest.raises(ValueError, match=r"stale.*\[encodings.ids\] of the class set c has.*again"):
        stored_values(output, file)
    capsys.readouterr()
    prepare(*flags, "--output", output)
    assert "2 images of folders prepared now, 0 there already" in capsys.readouterr().out
    assert stored_values(output, file) == [1, 1]


def test_a_corrected_class_set_of_a_layout(letters, tmp_path):
    """A run that names the layout alone finds the change, too, and another encoding of it."""
    _, file, output = letters
    layout = tmp_path / "own.toml"
    text = 'name = "folders"\nclass_set = "c.toml"\n[splits.train]\n'
    text += 'images = "images/{key}.jpg"\nlabels = "labels/{key}.png"\n'
    layout.write_text(text)
    assert len(data_images(output, "train", layout=load_layout(layout))) == 2
    file.write_text(LETTERS.replace("{a = 1, b = 2}", "{a = 2, b = 1}"))
    with pytest.raises(ValueError, match="stale"):
        data_images(output, "train", layout=load_layout(layout))
    file.write_text(LETTERS.replace('"b"]', '"z"]').replace("b = 2", "z = 2"))
    with pytest.raises(ValueError, match="the classes of c, which are not those"):
        data_images(output, "train", layout=load_layout(layout))
    more = '[encodings.other]\nread = "index"\nclasses = {a = 2, b = 1}\n'
    file.write_text(LETTERS + more)
    layout.write_text(text.replace("[splits", 'encoding = "other"\n[splits'))
    with pytest.raises(ValueError, match=r"stale.*\[encodings.other\]"):
        data_images(output, "train", layout=load_layout(layout))
    file.unlink()
    assert len(data_images(output, "train", layout=load_layout(layout))) == 2


def test_other_colors_of_the_same_classes(letters, capsys):
    """Labels hold no colors: they stay, and the journal records the new ones."""
    flags, file, output = letters
    file.write_text(LETTERS.replace("[2, 2, 2]", "[3, 3, 3]"))
    prepare(*flags, "--output", output)
    assert "0 images of folders prepared now, 2 there already" in capsys.readouterr().out
    images = data_images(output, "train", layout=load_layout("folders"))
    assert images.class_set.colors[1] == (3, 3, 3)


def test_journals_that_name_no_encoding(letters, capsys):
    """Those of earlier versions are read; the values of the encoding of that name are compared."""
    flags, file, output = letters
    journal = next(output.glob("prepared/*.jsonl"))
    header, *rest = journal.read_text().splitlines()
    header = json.loads(header)
    assert header.pop("encoding") == "ids"
    journal.write_text("\n".join([json.dumps(header), *rest]) + "\n")
    assert stored_values(output, file) == [0, 0]
    file.write_text(LETTERS.replace("{a = 1, b = 2}", "{a = 2, b = 1}"))
    with pytest.raises(ValueError, match="stale"):
        stored_values(output, file)
    capsys.readouterr()
    prepare(*flags, "--output", output)
    assert "2 images of folders prepared now" in capsys.readouterr().out


def test_another_encoding_of_the_same_class_set(letters):
    """The encoding in use counts, not all that the class set has."""
    _, file, output = letters
    file.write_text(LETTERS + '[encodings.more]\nread = "index"\nclasses = {a = 7, b = 8}\n')
    assert stored_values(output, file) == [0, 0]


def test_prepared_trainids_and_images_alone(letters):
    """A root whose labels are trainIds takes no images without labels: what they are is kept."""
    flags, _, output = letters
    with pytest.raises(FileExistsError, match="with the classes of c, not with images alone"):
        prepare(*flags[:4], "--without-labels", "--output", output)
