"""Laws of scripts.describe: what it says of known data, of unknown data, and of bad input."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.class_set import color_key
from dataset.class_set_file import load_class_set
from dataset.image_io import read_image
from dataset.layout import data_images, find_pairs
from dataset.layout_file import load_layout
from dataset.listing_check import check_listing
from scripts import prepare
from scripts.describe import __main__ as describe
from scripts.describe import picture as drawn
from tests.conftest import write_cityscapes, write_gta5

SIZE = (24, 32)
IDS = np.repeat(np.array([0, 1, 2, 255], np.uint8), 6)[:, None].repeat(SIZE[1], 1)
"""A label: four stripes."""
COLORS = {0: (0, 128, 0), 1: (200, 30, 30), 2: (90, 90, 200), 255: (0, 0, 0)}


def run(capsys, *words: object) -> str:
    """The text that the script prints."""
    describe.main(describe.parse_arguments(list(map(str, words))))
    return capsys.readouterr().out


def write_pairs(root: Path, label: np.ndarray, count: int = 5, mask: str = "masks/#_m.png") -> Path:
    """``count`` noisy photos with one label, in a tree of no known layout."""
    for number in range(count):
        rng = np.random.default_rng(number)
        for path, pixels in (
            (f"photos/{number:03}.jpg", rng.integers(0, 256, (*SIZE, 3), np.uint8)),
            (mask.replace("#", f"{number:03}"), label),
        ):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / path)
    return root


def colored(label: np.ndarray) -> np.ndarray:
    table = np.zeros((256, 3), np.uint8)
    for value, color in COLORS.items():
        table[value] = color
    return table[label]


def color_keys(picture: np.ndarray) -> set[int]:
    """The colors in a picture."""
    return set(np.unique(picture.astype(np.int32) @ (65536, 256, 1)).tolist())


def share_of(text: str, name: str) -> float:
    """The percentage in a row of a table."""
    return float(re.search(rf"^\| {re.escape(name)} +\| +([\d.]+) \|", text, re.MULTILINE)[1])


def saved_toml(text: str, folder: Path) -> tuple[Path, Path]:
    """The suggested files, as a user would save them: (layout, class set)."""
    _, rest = text.split("A class set to start from (classes.toml):")
    classes, rest = rest.split("A layout to start from (layout.toml):")
    layout = rest.split("Save and edit")[0]
    (folder / "classes.toml").write_text(classes)
    (folder / "layout.toml").write_text(layout)
    return folder / "layout.toml", folder / "classes.toml"


def test_a_known_data_set(gta5_root, capsys):
    """Layout and reason, numbers, sizes, encoding, classes with their shares."""
    text = run(capsys, gta5_root)
    assert "Layout: gta5 (GTA5), recognized by images/, labels/" in text
    assert "These fit, too, when they are named: --layout folders (6 pairs)" in text
    assert "| train |      6 |      6 |     6 |            24966 |" in text
    assert "Sizes (height x width) of 6 images: 72x136: 6" in text
    assert "Labels: 6 of 6 labels were read" in text
    assert "Class set: cityscapes19, read as [encodings.labelIds]" in text
    labels = [np.asarray(Image.open(path)) for path in sorted(gta5_root.glob("labels/*"))]
    assert share_of(text, "road") == pytest.approx(100 * np.mean(np.stack(labels) == 7), abs=1e-3)
    assert "to start from" not in text


@pytest.mark.parametrize("mask", ["masks/#.png", "labels/#_mask.png"])
def test_common_folders_without_a_pair_are_guessed(mask, tmp_path, capsys):
    """images/ alone does not make it GTA5, whose labels this tree has not."""
    write_pairs(tmp_path, IDS, mask=mask)
    (tmp_path / "photos").rename(tmp_path / "images")
    text = run(capsys, tmp_path)
    assert f"train: images/{{key}}.jpg with {mask.replace('#', '{key}')} (5)" in text
    with pytest.raises(FileNotFoundError, match="scripts.describe suggests"):
        data_images(tmp_path, "train")


def test_splits_and_missing_labels(tmp_path, capsys):
    """Every split has its numbers; a label without image is named, with what to do."""
    root = write_cityscapes(tmp_path / "c", {"train": 3, "val": 2})
    image = next(root.glob("leftImg8bit/val/*/*"))
    image.unlink()
    text = run(capsys, root)
    assert re.search(r"\| train \| +3 \| +3 \| +3 \|", text)
    assert re.search(r"\| val +\| +1 \| +2 \| +1 \|", text)
    label = image.name.replace("leftImg8bit", "gtFine_labelIds")
    assert re.search(f"val: 1 labels without image, such as .*{label}. Training needs", text)
    assert "test: No images under" in text


def test_a_target_without_labels(tmp_path, capsys):
    """A known tree without labels: why there are none, and that a target needs none."""
    root = write_cityscapes(tmp_path / "c", {"train": 3}, labels=False)
    text = run(capsys, root, "--picture", tmp_path / "p.png")
    assert "gtFine_trainvaltest.zip" in text
    assert "Images alone are enough for --target" in text
    assert read_image(tmp_path / "p.png").shape[1] == drawn.PICTURE_WIDTH


def test_a_folder_of_images(tmp_path, capsys):
    """One folder, of no layout: nothing to write, only to be given as the target."""
    root = write_pairs(tmp_path, IDS)
    text = run(capsys, root / "photos")
    assert "Layout: none of the built-in ones" in text
    assert "How near each came: no file of any" in text
    assert "train: {key}.jpg, no labels (5)" in text
    assert "Images alone are enough for --target" in text
    assert "to start from" not in text


@pytest.mark.parametrize(
    ("label", "read", "ignored"),
    [
        (IDS, "index", 1),
        (colored(IDS), "color", 0),
        (IDS.astype(np.uint16) * 3, "index", 0),
        (np.stack([IDS, IDS * 0, IDS * 0], -1), "first-channel", 1),
        (np.where(IDS > 0, 255, 0).astype(np.uint8), "index", 0),
        (IDS > 0, "index", 0),
    ],
    ids=["ids", "colors", "16 bits", "red", "mask", "1 bit"],
)
def test_what_is_suggested_can_be_used(label, read, ignored, tmp_path, capsys):
    """The printed files are read as they are: all values are named, and every pair is found."""
    root = write_pairs(tmp_path / "data", label)
    text = run(capsys, root)
    assert "train: photos/{key}.jpg with masks/{key}_m.png (5)" in text
    layout, classes = saved_toml(text, tmp_path)
    tree = find_pairs(load_layout(layout), root, "train")
    assert len(tree.listing(labels=True)) == 5
    assert tree.label_format.rule.read == read
    train_ids = tree.label_format.read_train_ids(root / "masks/000_m.png")
    class_set = load_class_set(classes)
    flat = label.reshape(-1, 3) if label.ndim == 3 else label.reshape(-1, 1)
    assert len(class_set) == len(np.unique(flat, axis=0)) - ignored
    assert set(np.unique(train_ids)) == {*range(len(class_set))} | ({255} if ignored else set())
    check_listing(tree.listing(labels=True))
    again = run(capsys, root, "--layout", layout)
    assert "Class set: classes, read as [encodings.labels]" in again
    assert "PROBLEM" not in again
    assert "to start from" not in again
    assert share_of(again, class_set.names[0]) == pytest.approx(25, abs=51)


def test_rare_black_is_ignored_in_colors(tmp_path, capsys):
    """Black on a sixth of the pixels is suggested as ignored, and its share is told."""
    label = np.concatenate([colored(IDS[:18]), np.zeros((4, SIZE[1], 3), np.uint8)])
    label = np.concatenate([label, np.full((2, SIZE[1], 3), 50, np.uint8)])
    text = run(capsys, write_pairs(tmp_path / "data", label))
    assert re.search(r"ignored = \[\[0, 0, 0\]\] # 16.7 % of the pixels, in 5 of 5 labels", text)


def test_colors_of_a_palette_are_kept(tmp_path, capsys):
    """A class set of palette labels has the palette's colors."""
    root = write_pairs(tmp_path / "data", IDS)
    for path in root.glob("masks/*"):
        image = Image.fromarray(IDS, "P")
        image.putpalette([9, 8, 7, 100, 0, 0, 0, 100, 0] + [1] * 759)
        image.save(path)
    _, classes = saved_toml(run(capsys, root), tmp_path)
    assert load_class_set(classes).colors == ((9, 8, 7), (100, 0, 0), (0, 100, 0))


def test_builtin_encodings_are_offered(tmp_path, capsys):
    """Built-in class sets that name all values are listed, the one with most classes first."""
    label = np.arange(24, dtype=np.uint8)[:, None].repeat(32, 1) % 11
    text = run(capsys, write_pairs(tmp_path / "data", label))
    assert "name all values: 11 of 11 classes of camvid11 [ids]; " in text
    assert "cityscapes19 [trainIds]" in text


def test_other_classes_in_a_known_tree(tmp_path, capsys):
    """images/ and labels/ with ids of other classes: GTA5's tree, a class set is suggested."""
    root = write_gta5(tmp_path / "g", 3)
    for path in root.glob("labels/*"):
        Image.fromarray(np.full((72, 136), 2, np.uint8) + (np.arange(136) > 60)).save(path)
    text = run(capsys, root)
    assert "PROBLEM: " in text
    assert "Class set: none; cityscapes19 does not fit" in text
    assert "A class set to start from" in text
    assert "A layout to start from" not in text


def test_values_that_no_class_names(tmp_path, capsys):
    """They are named with share and file, and have a color of their own in the picture."""
    root = write_pairs(tmp_path / "data", IDS)
    (tmp_path / "two.toml").write_text(
        'classes = ["low", "high"]\n[encodings.ids]\nread = "index"\nignored = 255\n'
        "classes = {low = 0, high = 1}\n"
    )
    (tmp_path / "layout.toml").write_text(
        'class_set = "two.toml"\n[splits.train]\nimages = "photos/{key}.jpg"\n'
        'labels = "masks/{key}_m.png"\n'
    )
    picture = tmp_path / "p.png"
    text = run(capsys, root, "--layout", tmp_path / "layout.toml", "--picture", picture)
    assert "No class names the values 2, on 25 % of the pixels, first in" in text
    assert "masks/000_m.png has values that [encodings.ids] of two does not name: 2" in text
    assert share_of(text, "low") == share_of(text, "high") == share_of(text, "(ignored)") == 25
    expected = {drawn.UNNAMED_COLOR, *load_class_set(tmp_path / "two.toml").colors}
    assert set(map(color_key, expected)) <= color_keys(read_image(picture))


def test_a_label_counts_once_for_a_class_of_several_values(tmp_path, capsys):
    """A class is in all labels that hold any of its values, not in those of one value alone."""
    root = write_pairs(tmp_path / "data", np.zeros(SIZE, np.uint8), count=6)
    for number in (1, 2, 3):  # one label holds 0 and 1, one 2 alone, one 1 alone, three 0 alone
        label = np.full(SIZE, number % 2 or 2, np.uint8)
        label[:12] = 0 if number == 1 else label[:12]
        Image.fromarray(label).save(root / f"masks/{number:03}_m.png")
    (tmp_path / "two.toml").write_text(
        'classes = ["ground", "rest"]\n[encodings.ids]\nread = "index"\n'
        "classes = {ground = [0, 1], rest = 2}\n"
    )
    (tmp_path / "layout.toml").write_text(
        'class_set = "two.toml"\n[splits.train]\nimages = "photos/{key}.jpg"\n'
        'labels = "masks/{key}_m.png"\n'
    )
    text = run(capsys, root, "--layout", tmp_path / "layout.toml")
    assert re.search(r"^\| ground +\| +[\d.]+ \| +5 \|", text, re.MULTILINE)
    assert re.search(r"^\| rest +\| +[\d.]+ \| +1 \|", text, re.MULTILINE)


def test_the_picture_shows_pairs_in_class_colors(gta5_root, tmp_path, capsys):
    """Four rows, each an image beside its label in the colors of the classes."""
    text = run(capsys, gta5_root, "--picture", tmp_path / "p.png")
    assert f"Drew 4 of 6 images into {tmp_path / 'p.png'}" in text
    picture = read_image(tmp_path / "p.png")
    assert picture.shape[1] > 2 * drawn.PICTURE_WIDTH
    right = color_keys(picture[:, drawn.PICTURE_WIDTH + 10 :])
    assert set(map(color_key, load_class_set("cityscapes19").colors)) <= right


def test_a_prepared_root_is_described_alike(gta5_root, tmp_path, capsys):
    """The classes of a prepared root have the shares of the raw one."""
    raw = run(capsys, gta5_root)
    output = ["--output", str(tmp_path / "prepared"), "--workers", "1"]
    prepare.main(prepare.parse_arguments(["--gta5", str(gta5_root), *output]))
    capsys.readouterr()
    text = run(capsys, tmp_path / "prepared", "--picture", tmp_path / "p.png")
    assert "Layout: gta5 (GTA5), a root prepared by scripts.prepare" in text
    table = raw[raw.index("| class ") : raw.index("| (ignored)")]
    assert table in text
    assert (tmp_path / "p.png").is_file()


def test_known_data_inside_a_folder(gta5_root, capsys):
    """A folder above a data set is not taken for it, and the data set is named."""
    text = run(capsys, gta5_root.parent)
    assert f"{gta5_root.name}/ alone is GTA5: describe such a folder by itself" in text


def test_files_that_are_there_twice(gta5_root, capsys):
    """Two images of one name are named, and do not end the description."""
    image = next(gta5_root.glob("images/*.png"))
    Image.open(image).save(image.with_suffix(".jpg"))
    text = run(capsys, gta5_root)
    assert "train: 1 files are there twice, with another suffix, such as images/" in text
    assert "| train |      6 |" in text


def test_a_folder_of_two_data_sets(gta5_root, capsys):
    """Where two layouts fit, both are named, and one can be chosen."""
    write_cityscapes(gta5_root, {"val": 1})
    with pytest.raises(ValueError, match="gta5 and cityscapes.* Or name one of them here"):
        run(capsys, gta5_root)
    assert "Layout: gta5 (GTA5), named by --layout" in run(capsys, gta5_root, "--layout", "gta5")


def test_unequal_sizes_and_broken_files(tmp_path, capsys):
    """Pairs of different sizes and files that cannot be read are counted, with an example."""
    root = write_pairs(tmp_path, IDS)
    Image.fromarray(IDS[:-1]).save(root / "masks/002_m.png")
    (root / "masks/004_m.png").write_bytes((root / "masks/003_m.png").read_bytes()[:60])
    (tmp_path / "layout.toml").write_text(
        '[splits.train]\nimages = "photos/{key}.jpg"\nlabels = "masks/{key}_m.png"\n'
    )
    text = run(capsys, root, "--layout", tmp_path / "layout.toml")
    assert "1 of these pairs have an image and a label of different sizes, such as" in text
    assert "002.jpg (24, 32)" in text
    assert "1 labels cannot be read, such as:" in text
    assert "Labels: 4 of 5 labels were read" in text


def write_label_ids(root: Path) -> Path:
    """Photos with labelIds of Cityscapes, and a layout that names no encoding."""
    label = np.repeat(np.array([7, 11, 21, 23, 26, 33], np.uint8), 4)[:, None].repeat(32, 1)
    write_pairs(root, label, mask="masks/#.png")
    layout = root.with_suffix(".toml")
    layout.write_text('[splits.train]\nimages = "photos/{key}.jpg"\nlabels = "masks/{key}.png"\n')
    return layout


def test_labels_are_read_as_in_training(tmp_path, capsys):
    """A layout without encoding: described by the encoding with which training reads them."""
    layout = write_label_ids(tmp_path / "data")
    text = run(capsys, tmp_path / "data", "--layout", layout)
    expected = find_pairs(load_layout(layout), tmp_path / "data", "train").label_format
    assert f"Class set: cityscapes19, read as [encodings.{expected.encoding}]" in text
    assert "PROBLEM" not in text


def test_a_misspelt_encoding_is_refused(tmp_path, capsys):
    """Description and training refuse it alike."""
    layout = write_label_ids(tmp_path / "data")
    layout.write_text('encoding = "labelIDs"\n' + layout.read_text())
    with pytest.raises(ValueError, match=r"encoding is 'labelIDs'.*\(nearest: 'labelIds'\)"):
        run(capsys, tmp_path / "data", "--layout", layout)


def test_the_next_command_keeps_the_flags(tmp_path, capsys):
    """The layout that was named is part of the command that checks the class set."""
    root = write_pairs(tmp_path / "data", np.where(IDS == 1, 77, IDS), mask="masks/#.png")
    layout = tmp_path / "own.toml"
    layout.write_text('[splits.train]\nimages = "photos/{key}.jpg"\nlabels = "masks/{key}.png"\n')
    text = run(capsys, root, "--layout", layout)
    assert text.rstrip().endswith(f"{root} --layout {layout} --class-set classes.toml")


def test_the_picture_shows_what_can_be_read(tmp_path, capsys):
    """A damaged image or label is passed over, as in the text; only without any it is an error."""
    root = write_pairs(tmp_path / "data", IDS, mask="masks/#.png")
    layout = tmp_path / "layout.toml"
    layout.write_text('[splits.train]\nimages = "photos/{key}.jpg"\nlabels = "masks/{key}.png"\n')
    for name in ("photos/000.jpg", "masks/004.png"):
        (root / name).write_bytes((root / name).read_bytes()[:60])
    words = [root, "--layout", layout, "--picture", tmp_path / "new/p.png"]
    assert f"Drew 3 of 5 images into {tmp_path / 'new/p.png'}" in run(capsys, *words)
    assert (tmp_path / "new/p.png").is_file()
    for path in root.glob("photos/*"):
        path.write_bytes(b"no image")
    with pytest.raises(ValueError, match="None of 5 images can be drawn. The first: .*000.jpg"):
        run(capsys, *words)


def test_the_picture_lies_outside_the_data(gta5_root, tmp_path, capsys):
    """An image is not overwritten, and none is added; a folder and other formats are refused."""
    image = next(gta5_root.glob("images/*.png"))
    before = image.read_bytes()
    (tmp_path / "folder.png").mkdir()
    for path, message in (
        (image, "the input"),
        (gta5_root / "p.png", "the input"),
        (tmp_path / "folder.png", "it is a folder"),
    ):
        with pytest.raises(OSError, match=message):
            run(capsys, gta5_root, "--picture", path)
        assert not capsys.readouterr().out
    assert image.read_bytes() == before
    with pytest.raises(SystemExit):
        run(capsys, gta5_root, "--picture", tmp_path / "p.jpg")
    assert "p.jpg: expected a name that ends with .png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["absent"], "absent does not exist. Expected a folder with images"),
        (["a.txt"], "a.txt is a file. Expected a folder"),
        (["empty"], "No image below .*empty: found no file"),
        ([".", "--layout", "gta"], "No layout 'gta'; did you mean gta5"),
        ([".", "--class-set", "camvid"], "No class set 'camvid'; did you mean camvid11"),
        (["masks"], "masks holds 5 label maps, such as 000_m.png, and no image"),
        ([".", "--layout", "bdd100k"], "holds no image of the layout bdd100k"),
    ],
)
def test_bad_input_is_named(words, error, tmp_path, monkeypatch, capsys):
    """What was found, what is expected."""
    write_pairs(tmp_path, IDS)
    (tmp_path / "a.txt").touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises((OSError, ValueError), match=error):
        run(capsys, *words)
