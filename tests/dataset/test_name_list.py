"""Lists of images as people have them: encodings, columns, paths, and what is said to mistakes."""

import itertools
import unicodedata

import pytest

from dataset.cityscapes import cityscapes
from dataset.gta5 import gta5, gta5_tree
from dataset.listing import ImageList, select_by_list
from dataset.name_list import read_name_list
from dataset.prepared.job import PrepareJob, match_pairs
from dataset.prepared.journal import FOLDER
from scripts.prepare import main, parse_arguments
from tests.conftest import write_gta5

NAMES = ["00002", "00001"]


@pytest.mark.parametrize(
    ("encoding", "mark", "end"),
    [
        *itertools.product(["utf-8"], [b"", b"\xef\xbb\xbf"], ["\n", "\r\n", "\r"]),
        ("utf-16", b"", "\r\n"),  # with a mark of its own
        ("utf-16-be", b"\xfe\xff", "\n"),
        ("utf-16-le", b"", "\r\n"),
        ("utf-16-be", b"", "\n"),
        ("utf-32", b"", "\n"),
    ],
)
def test_encodings_and_line_ends(gta5_root, tmp_path, encoding, mark, end):
    """What Notepad, PowerShell and editors of all systems write is read."""
    text = end.join(["# two images", "00002.png", "", "00001", ""])
    (tmp_path / "list.txt").write_bytes(mark + text.encode(encoding))
    assert select_by_list(gta5(gta5_root), tmp_path / "list.txt").names == NAMES


@pytest.mark.parametrize("first", ["[night] 1", "{a}1", "[1]"])
def test_a_name_may_begin_with_a_bracket(tmp_path, first):
    """Only what goes on as JSON does is taken for JSON."""
    (tmp_path / "list.txt").write_text(f"{first}\n2\n", encoding="utf-8")
    images = ImageList(tmp_path, ["2", first], ["2.png", f"{first}.png"])
    assert select_by_list(images, tmp_path / "list.txt").names == [first, "2"]


FORMS = {
    "names": "{name}",
    "files": "{name}.png",
    "another suffix": "{name}.JPG",
    "spaces around": "  {name}.png\t",
    "paths from the root": "images/{name}.png",
    "paths from here": "./images/{name}.png",
    "with the root": "{root}/images/{name}.png",
    "absolute": "{place}/images/{name}.png",
    "of another machine": "/home/someone/data/GTA5/images/{name}.png",
    "of Windows": r"D:\data\GTA5\images\{name}.png",
    "tab and label": "images/{name}.png\tlabels/{name}.png",
    "space and label": "images/{name}.png labels/{name}.png",
    "spaces and label": "images/{name}.png   labels/{name}.png",
    "comma and label": "{name}.png,labels/{name}.png",
    "semicolon": "{name};12",
    "quoted": '"images/{name}.png","labels/{name}.png"',
    "comment behind": "{name}  # a good one",
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_lines(gta5_root, tmp_path, form):
    """Names and paths, with or without suffix and further columns, at each door."""
    lines = [FORMS[form].format(name=name, place=gta5_root, root=gta5_root.name) for name in NAMES]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    assert select_by_list(gta5(gta5_root), tmp_path / "list.txt").names == NAMES
    wanted = read_name_list(tmp_path / "list.txt")
    pairs, problems = match_pairs(PrepareJob(gta5_tree(gta5_root), "gta5", wanted=wanted))
    assert not problems
    assert [pair.name for pair in pairs] == sorted(NAMES)


@pytest.mark.parametrize(
    "line",
    [
        "leftImg8bit/train/aachen/aachen_000001_000019_leftImg8bit.png",
        "aachen/aachen_000001_000019_leftImg8bit",
        "aachen_000001_000019_leftImg8bit.png",
        "aachen/aachen_000001_000019",
        "train/aachen/aachen_000001_000019_leftImg8bit.png\tgtFine/train/aachen/x.png",
    ],
)
def test_lines_of_cityscapes(cityscapes_root, line):
    """Paths from the root, below the split, or file names alone."""
    listing = cityscapes(cityscapes_root, "train").select([line], "list")
    assert listing.names == ["aachen/aachen_000001_000019_leftImg8bit"]


def test_names_with_dots_spaces_and_accents():
    """A dot is no suffix, a space no column, and both spellings of an accent are one."""
    names = [
        "street_beta_0.02",
        "12.30.00",
        "my street 1",
        unicodedata.normalize("NFD", "straße é"),
    ]
    listing = ImageList("/data", names, [f"images/{name}.png" for name in names])
    for index, name in enumerate(names):
        for line in (
            name,
            f"{name}.png",
            f"images/{name}.png x.png",
            unicodedata.normalize("NFC", name),
        ):
            assert listing.select([line], "list").names == [names[index]], line


def test_a_heading_is_no_name(gta5_root):
    """The first line of a table may name its columns."""
    lines = ["image,label", "00001.png,00001.png"]
    assert gta5(gta5_root).select(lines, "list").names == ["00001"]


def test_an_image_named_twice_counts_once(gta5_root, capsys):
    """In any spelling; which one is said."""
    listing = gta5(gta5_root).select(["00002", "00001", "images/00002.png", "00001.png"], "a list")
    assert listing.names == NAMES
    said = capsys.readouterr().out
    assert "a list names 2 images more than once, the first images/00002.png" in said


def test_an_unknown_name_is_answered_with_the_nearest(gta5_root, tmp_path):
    """The error says what is there, in training and in the report of prepare."""
    with pytest.raises(FileNotFoundError, match=r"1 of 2 .*'0004'; the nearest .* '00004'"):
        gta5(gta5_root).select(["00001", "0004"], "list")
    job = PrepareJob(gta5_tree(gta5_root), "gta5", wanted=["0004", "00001"], origin="list")
    pairs, problems = match_pairs(job)
    assert [pair.name for pair in pairs] == ["00001"]
    assert "the nearest name there is 00004" in problems[0].text


def test_a_path_of_other_images_is_no_name():
    """The folder counts: drive_b/1 is no image of drive_a, a bare name of two is not guessed."""
    listing = ImageList("/data/drive_a", ["1", "2"], ["1.png", "2.png"])
    assert listing.select(["drive_a/1.png"], "list").names == ["1"]
    with pytest.raises(FileNotFoundError, match="drive_b"):
        listing.select(["drive_b/1.png"], "list")
    listing = ImageList("/data", ["a/1", "b/1"], ["a/1.png", "b/1.png"])
    with pytest.raises(ValueError, match="fits 2 images, such as a/1 and b/1"):
        listing.select(["1.png"], "list")


def test_lists_of_acdc_are_paths_from_its_root():
    """As published, and with the root of another machine."""
    name = "fog/train/GOPR0475/GOPR0475_frame_000041_rgb_anon"
    listing = ImageList("/data/ACDC/rgb_anon", [name], [f"{name}.png"])
    for line in (f"rgb_anon/{name}.png", f"/home/someone/ACDC/rgb_anon/{name}.png", f"{name}.png"):
        assert listing.select([line], "list").names == [name]
    with pytest.raises(FileNotFoundError):
        listing.select([f"rgb_anon/{name}.png".replace("fog", "night")], "list")


IMAGES_OF_OWNERS = (
    "images/10k/train/0a0a0b1a-7c39d841.jpg",
    "leftImg8bit/train/0/frame0000_leftImg8bit.jpg",
    "leftImg8bit/train/1/frame0000_leftImg8bit.jpg",
    "training/images/-0AY2h7kWDW4bD4iFmnVQ.jpg",
    "training/images/_0a.b_c.jpg",
    "training/image_2/000007_10.png",
    "2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png",
    "2011_09_26/2011_09_26_drive_0002_sync/image_03/data/0000000069.png",
    "rgb_anon/fog/train/GOPR0475/GOPR0475_frame_000041_rgb_anon.png",
)
LISTS_OF_OWNERS = {
    "0a0a0b1a-7c39d841": 0,
    "0a0a0b1a-7c39d841.jpg 0a0a0b1a-7c39d841_train_id.png": 0,
    "seg/images/train/0a0a0b1a-7c39d841.jpg": None,  # of the other release
    "train/0/frame0000_leftImg8bit.jpg": 1,
    "/leftImg8bit/train/1/frame0000_leftImg8bit.jpg /gtFine/train/1/frame0000_gtFine_x.png": 2,
    "1/frame0000": 2,
    "-0AY2h7kWDW4bD4iFmnVQ": 3,
    "_0a.b_c": 4,
    "training/image_2/000007_10.png training/semantic/000007_10.png": 5,
    "000007_10,3": 5,
    "2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png None 721.5377": 6,
    "2011_09_26/2011_09_26_drive_0002_sync/image_03/data/0000000069.jpg x/image_02/0.jpg": 7,
    "2011_09_26_drive_0002_sync/image_03/data/0000000069.png": 7,
    "rgb_anon/fog/train/GOPR0475/GOPR0475_frame_000041_rgb_anon.png,gt/fog/x_gt_labelIds.png": 8,
    "GOPR0475_frame_000041_rgb_anon": 8,
}


@pytest.mark.parametrize("line", LISTS_OF_OWNERS)
def test_lists_of_the_owners(line):
    """Of BDD100K, IDD, Mapillary, KITTI and ACDC: ids, pairs of paths, and paths from a root."""
    names = [path.rsplit(".", 1)[0] for path in IMAGES_OF_OWNERS]
    listing, index = ImageList("/data", names, list(IMAGES_OF_OWNERS)), LISTS_OF_OWNERS[line]
    if index is None:
        with pytest.raises(FileNotFoundError, match=names[0]):
            listing.select([line], "list")
        return
    assert listing.select([line], "list").names == [names[index]]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ('["00001.png",\n "00002.png"]', ["00001.png", "00002.png"]),
        ('[{"name": "00001.png", "labels": []}]', ["00001.png"]),  # BDD100K
        ('{"images": [{"id": 1, "file_name": "images/00002.png"}]}', ["images/00002.png"]),  # COCO
        ('{"frames": [{"name": "00001.png"}], "config": {}}', ["00001.png"]),  # Scalabel
    ],
)
def test_a_list_in_json_names_its_images(tmp_path, content, names):
    """As the owners of BDD100K and Mapillary publish theirs."""
    (tmp_path / "list.json").write_text(content)
    assert read_name_list(tmp_path / "list.json") == names


@pytest.mark.parametrize("content", ['{"a": 1}', "[1, 2]", "[]", '[{"x": "y"}]', '["a"'])
def test_json_without_names_is_no_list(tmp_path, content):
    """The error says that it is JSON, and what is read of it."""
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(ValueError, match='JSON.*"file_name"'):
        read_name_list(tmp_path / "list.json")


def test_a_list_of_bytes_is_no_list(tmp_path):
    """A file that is no text ends with an error that names it."""
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00\xd8\x00\xd8\x01")
    with pytest.raises(ValueError, match=r"list.txt is no text"):
        read_name_list(tmp_path / "list.txt")


def test_prepare_takes_the_lists_of_training(tmp_path, capsys):
    """A list with dotted names, a mark and columns prepares what training would read."""
    root = write_gta5(tmp_path / "gta5", 3)
    for folder in ("images", "labels"):
        (root / folder / "00001.png").rename(root / folder / "a_beta_0.02.png")
    (tmp_path / "list.txt").write_bytes(
        b"\xef\xbb\xbfimages/a_beta_0.02.png\tlabels/x\r\n00002\r\n"
    )
    words = ["--gta5", root, "--list", tmp_path / "list.txt", "--output", tmp_path / "prepared"]
    main(parse_arguments([*map(str, words), "--workers", "1"]))
    assert (tmp_path / "prepared" / FOLDER).is_dir()
    assert "2 good images, 0 problems" in capsys.readouterr().out
    listing = select_by_list(gta5(tmp_path / "prepared"), tmp_path / "list.txt")
    assert listing.names == ["a_beta_0.02", "00002"]
