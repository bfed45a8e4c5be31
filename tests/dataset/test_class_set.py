"""Class sets: files, their faults, and label files read by them."""

import pickle
import tomllib

import cv2
import numpy as np
import pytest
from PIL import Image

from dataset import labels
from dataset.class_set import ClassSet
from dataset.class_set_file import (
    FOLDER,
    builtin_names,
    class_set_of,
    load_class_set,
    recorded_class_set,
)
from dataset.label_format import (
    CITYSCAPES_LABELS,
    LabelFormat,
    fitting_format,
    prediction_format,
    stored_value_of,
)
from dataset.label_io import LabelValuesError
from dataset.layout import data_images
from tests.helpers.trees import write_tree

DRONE = """
classes = ["ground", "building", "tree"]
[encodings.ids]
read = "index"
ignored = [0]
classes = {ground = 1, building = [2, 3], tree = 255}
[encodings.paint]
read = "color"
ignored = [[0, 0, 0]]
classes = {ground = [10, 20, 30], building = [[200, 0, 0], [201, 0, 0]], tree = [0, 90, 0]}
[encodings.wide]
read = "first-channel"
classes = {ground = 0, building = 300, tree = 301}
"""
MERGED = """
based_on = "cityscapes19"
classes = ["flat", "built", "nature", "human", "vehicle"]
ignored = ["pole", "traffic light", "traffic sign", "sky"]
[merge]
flat = ["road", "sidewalk"]
built = ["building", "wall", "fence"]
nature = ["vegetation", "terrain"]
human = ["person", "rider"]
vehicle = ["car", "truck", "bus", "train", "motorcycle", "bicycle"]
"""


def written(folder, text, name="mine.toml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def drone(tmp_path) -> ClassSet:
    return load_class_set(written(tmp_path, DRONE))


def test_the_default_is_cityscapes():
    """The file says what dataset.labels says, value for value."""
    default = load_class_set("cityscapes19")
    assert default.names == labels.CLASS_NAMES
    assert np.array_equal(default.color_table, labels.COLORS)
    assert np.array_equal(default.table("labelIds"), labels.TRAIN_ID_OF)
    assert np.array_equal(CITYSCAPES_LABELS.train_id_of, labels.TRAIN_ID_OF)
    assert np.array_equal(stored_value_of(default), labels.LABEL_ID_OF)


@pytest.mark.parametrize("name", builtin_names())
def test_a_checkpoint_carries_a_class_set_whole(name):
    """As plain values, which give every table again."""
    class_set = load_class_set(name)
    again = recorded_class_set({"name": "net", "class_set": class_set.as_dict()})
    assert again == class_set
    assert again.encodings == class_set.encodings
    assert 2 <= len(class_set) <= 254
    assert len(set(class_set.colors)) == len(class_set)


def test_files_without_classes_have_those_of_cityscapes():
    assert recorded_class_set({"name": "older"}) == load_class_set("cityscapes19")


def test_labels_of_every_kind(drone, tmp_path):
    """Indices, 0/255 masks, palettes, RGB and 16 bits become the same trainIds."""
    expected = np.array([[0, 1, 1, 2], [255, 255, 0, 2]], np.uint8)
    ids = np.array([[1, 2, 3, 255], [0, 0, 1, 255]], np.uint8)
    Image.fromarray(ids).save(tmp_path / "grey.png")
    Image.fromarray(ids).convert("RGB").save(tmp_path / "grey_rgb.png")
    palette = Image.fromarray(ids, "P")
    palette.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    palette.save(tmp_path / "palette.png")
    for name in ("grey", "grey_rgb", "palette"):
        found = LabelFormat(drone, "ids").read_train_ids(tmp_path / f"{name}.png")
        assert np.array_equal(found, expected), name
    colors = {0: (0, 0, 0), 1: (10, 20, 30), 2: (200, 0, 0), 3: (201, 0, 0), 255: (0, 90, 0)}
    painted = np.array([[colors[value] for value in row] for row in ids.tolist()], np.uint8)
    Image.fromarray(painted).save(tmp_path / "rgb.png")
    Image.fromarray(painted).convert("RGBA").save(tmp_path / "rgba.png")
    Image.fromarray(painted).quantize(8).save(tmp_path / "painted_palette.png")
    for name in ("rgb", "rgba", "painted_palette"):
        found = LabelFormat(drone, "paint").read_train_ids(tmp_path / f"{name}.png")
        assert np.array_equal(found, expected), name
    wide = np.array([[0, 300], [301, 0]], np.uint16)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    found = LabelFormat(drone, "wide").read_train_ids(tmp_path / "wide.png")
    assert np.array_equal(found, [[0, 1], [2, 0]])


def test_an_edited_copy_of_the_built_in_set(tmp_path):
    """Its values count, though its name and its classes are those of the built-in one."""
    text = (FOLDER / "cityscapes19.toml").read_text(encoding="utf-8")
    edited = load_class_set(written(tmp_path, text.replace("car = 26", "car = [26, 34]", 1)))
    assert edited == CITYSCAPES_LABELS.class_set
    root = write_tree(tmp_path / "raw", "gta5")
    label_format = data_images(root, "train", class_set=edited).label_format
    assert label_format.train_id_of[[26, 34]].tolist() == [13, 13]
    assert label_format.class_counts(np.zeros((1, 20), int)) is None


def test_an_unknown_value_is_named_with_its_file(drone, tmp_path):
    """With its share of the pixels; one wrong pixel is enough."""
    ids = np.ones((10, 10), np.uint8)
    ids[0, 0], ids[1:3] = 7, 9
    Image.fromarray(ids).save(tmp_path / "a.png")
    with pytest.raises(LabelValuesError, match=r"a\.png .*9 on 20 %, 7 on 1 % of the pixels"):
        LabelFormat(drone, "ids").read(tmp_path / "a.png")
    painted = np.full((10, 10, 3), (10, 20, 30), np.uint8)
    painted[5, 5] = 11, 20, 30
    Image.fromarray(painted).save(tmp_path / "b.png")
    with pytest.raises(LabelValuesError, match=r"b\.png .*RGB \(11, 20, 30\) on 1 %"):
        LabelFormat(drone, "paint").read(tmp_path / "b.png")


@pytest.mark.parametrize("encoding", ["ids", "paint"])
def test_16_bit_colors_are_no_8_bit_values(drone, tmp_path, encoding):
    """Their lower bits would be lost, and all pixels become 0, which may be a class."""
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((2, 2, 3), 3, np.uint16))
    with pytest.raises(
        ValueError, match=r"deep\.png has several channels of 16 bits; expected the"
    ):
        LabelFormat(drone, encoding).read(tmp_path / "deep.png")


def test_the_encoding_that_fits_is_found(drone, tmp_path):
    Image.fromarray(np.array([[1, 2, 0]], np.uint8)).save(tmp_path / "ids.png")
    assert fitting_format(drone, [tmp_path / "ids.png"], tmp_path).encoding == "ids"
    Image.fromarray(np.array([[4, 4]], np.uint8)).save(tmp_path / "none.png")
    with pytest.raises(ValueError, match=r"fit no encoding .*ids.*4 on 100 %.*paint.*wide"):
        fitting_format(drone, [tmp_path / "none.png"], tmp_path)
    with pytest.raises(ValueError, match="does not say which class .*'level3Ids'.* it has ids"):
        LabelFormat(drone, "level3Ids")


def test_masks_of_one_bit_and_of_eight_are_read_alike(tmp_path):
    """White is the foreground in both; where a mask could be of two encodings, it is not lost."""
    mask = np.array([[False, True, True]])
    one_bit, eight_bits, ids = (tmp_path / f"{name}.png" for name in ("one", "eight", "ids"))
    Image.fromarray(mask).save(one_bit)
    Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(eight_bits)
    Image.fromarray(mask.astype(np.uint8)).save(ids)
    binary = load_class_set("binary")
    for paths in ([one_bit], [eight_bits], [ids], [one_bit, ids]):
        label_format = fitting_format(binary, paths, tmp_path)
        assert all(label_format.read_train_ids(path).tolist() == [[0, 1, 1]] for path in paths)
    for path in (one_bit, eight_bits):
        assert LabelFormat(binary, "mask").read_train_ids(path).tolist() == [[0, 1, 1]]
    with pytest.raises(ValueError, match=r"fit 2 encodings of binary: mask, ids\. Say which"):
        fitting_format(binary, [one_bit, eight_bits], tmp_path)


def test_merged_classes_read_every_encoding_of_their_base(tmp_path):
    merged = load_class_set(written(tmp_path, MERGED))
    assert set(merged.encodings) == set(load_class_set("cityscapes19").encodings)
    label_format = LabelFormat(merged, "labelIds")
    assert label_format.train_id_of[[7, 8, 11, 21, 24, 33, 23, 0]].tolist() == [
        *(0, 0, 1, 2, 3, 4, 255, 255)
    ]
    counts = np.arange(20)[None]
    expected = [0 + 1, 2 + 3 + 4, 8 + 9, 11 + 12, sum(range(13, 19)), 5 + 6 + 7 + 10 + 19]
    assert label_format.class_counts(counts).tolist() == [expected]


def test_predictions_are_stored_so_that_they_can_be_read(drone, tmp_path):
    """As labelIds of the 19 classes, else as trainIds; a format pickles for workers."""
    for class_set in (drone, load_class_set("cityscapes19")):
        train_ids = np.array([[0, 1, 2, 255]], np.uint8)
        Image.fromarray(stored_value_of(class_set)[train_ids]).save(tmp_path / "p.png")
        label_format = pickle.loads(pickle.dumps(prediction_format(class_set)))
        assert np.array_equal(label_format.read_train_ids(tmp_path / "p.png"), train_ids)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["ground", "building", "tree"]', '["ground"]', "1 classes; expected 2 to 254.*other"),
        ('"tree"]', '"ground"]', "names the class 'ground' twice"),
        ("tree = 255}", "tree = 3}", r"value 3 is both 'building' and 'tree'"),
        ("tree = 255}", "tree = 0}", "value 0 is both 'tree' and 'ignored'"),
        ("tree = 255}", "tree = [255, 255]}", "value 255 stands twice in 'tree'. Remove one"),
        ("tree = 255}", "bush = 255}", "value for 'bush', which is none of the classes"),
        ('read = "index"', 'read = "ids"', "read is 'ids'; expected one of cityscapes"),
        ("[0, 90, 0]", "[0, 90]", r"expected a color \[red, green, blue\]"),
        ("tree = 255}", "tree = 70000}", "expected values of 0-65535"),
        ("[encodings.ids]", "[encoding.ids]", "the key 'encoding', which nothing reads"),
        ("classes = [", "classes = 3 # [", "needs the names of its classes"),
        (
            '"tree"]\n',
            '"tree"]\ncolors = [[1, 1, 1], [2, 2, 2], [1, 1, 1]]\n',
            r"'ground' and 'tree' both have the color \[1, 1, 1\]",
        ),
        ('"tree"]\n', '"tree"]\ncolors = [[1, 1, 1]]\n', "3 classes and 1 colors"),
    ],
)
def test_a_file_with_a_fault(tmp_path, old, new, message):
    """Each names the file, what was found, and what to do."""
    text = DRONE.replace(old, new, 1)
    assert text != DRONE
    with pytest.raises(ValueError, match=message) as error:
        load_class_set(written(tmp_path, text))
    assert "mine.toml" in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"sky"]', "]", "leaves 'sky' nowhere"),
        ('"truck", ', '"truck", "road", ', "'road' goes to 'flat' and to 'vehicle'"),
        ('"truck"', '"lorry"', "takes 'lorry', which is no class"),
        ('"vehicle"]\n', '"vehicle", "water"]\n', "differ: 'water' is in one of them"),
        ('"cityscapes19"', '"cityscapes91"', "did you mean cityscapes19"),
    ],
)
def test_a_merge_with_a_fault(tmp_path, old, new, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_class_set(written(tmp_path, MERGED.replace(old, new, 1)))


WRONG = (3, True, "x", [], {}, [3], [[3]], {"a": 3}, {"a": []}, 1.5)
"""Values of every type; some of them are right somewhere."""


def with_wrong_values(content):
    """``content`` with each of WRONG in each place, sections and lists included."""
    for key, value in content.items():
        for wrong in WRONG:
            yield content | {key: wrong}
        if isinstance(value, dict):
            for part in with_wrong_values(value):
                yield content | {key: part}


@pytest.mark.parametrize("text", [DRONE, MERGED], ids=["own", "merged"])
def test_a_value_of_a_wrong_type_is_an_error_with_a_text(text):
    """Whatever a key holds: a sound class set, or an error that names the file."""
    faults = []
    for content in with_wrong_values(tomllib.loads(text) | {"name": "n", "title": "t"}):
        try:
            class_set = class_set_of(content, "x", "mine.toml")
        except (ValueError, FileNotFoundError) as error:
            faults.append(str(error))
            continue
        for encoding, rule in class_set.encodings.items():
            if rule.read != "color":
                class_set.table(encoding)
    assert len(faults) > 100
    assert all("mine.toml" in text or "No class set" in text for text in faults)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('based_on = "mine.toml"\n[merge]\na = "b"', "mine.toml is based on itself. Give"),
        ('based_on = "two.toml"\n[merge]\na = "b"', r"itself, by .*two\.toml\. Give based_on"),
        ("based_on = 3", "names the class set 3; expected the name of a built-in one"),
        (MERGED.replace('flat = ["road", "sidewalk"]', "flat = 3"), "flat is 3; expected the name"),
        (DRONE + "[merge]\nx = 3", "merge is of a class set that is based on another"),
        (
            DRONE.replace("{ground = 1, building = [2, 3], tree = 255}", "{tree = []}"),
            "gives a value to no class",
        ),
    ],
)
def test_faults_that_are_not_found_by_a_type(tmp_path, text, message):
    written(tmp_path, 'based_on = "mine.toml"\n[merge]\na = "b"', "two.toml")
    with pytest.raises(ValueError, match=message):
        load_class_set(written(tmp_path, text))


def test_one_ignored_class_needs_no_list(tmp_path):
    """ignored = "sky" is the class sky, as flat = "road" is the class road."""
    ignored = '["pole", "traffic light", "traffic sign", "sky"]'
    text = MERGED.replace(ignored, '"sky"').replace('"fence"]', '"fence", "pole", LIGHTS]')
    text = text.replace("LIGHTS", '"traffic light", "traffic sign"')
    merged = load_class_set(written(tmp_path, text))
    assert LabelFormat(merged, "labelIds").train_id_of[23] == 255


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_of_windows_are_read(encoding, tmp_path):
    """Notepad writes a mark before UTF-8, PowerShell UTF-16; both end lines with CR LF."""
    file = written(tmp_path, MERGED)
    classes = load_class_set(file)
    file.write_bytes(MERGED.replace("\n", "\r\n").encode(encoding))
    assert load_class_set(file) == classes


def test_files_that_are_no_class_set(tmp_path):
    with pytest.raises(ValueError, match=r"is no TOML file"):
        load_class_set(written(tmp_path, "classes = ["))
    with pytest.raises(FileNotFoundError, match="No class set 'camvid'; did you mean camvid11"):
        load_class_set("camvid")
    with pytest.raises(ValueError, match="says nothing of the values"):
        class_set_of({"classes": ["a", "b"]}, "x", "here")
