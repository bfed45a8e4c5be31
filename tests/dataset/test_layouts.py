"""Layout files: every known data set by its tree, a user's own, and the errors."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from dataset.class_set_file import builtin_names, class_set_of, load_class_set
from dataset.image_io import read_image
from dataset.layout import classes_of_labels, data_images, find_pairs
from dataset.layout_file import all_layouts, builtin_layouts, load_layout
from dataset.listing_check import check_listing
from dataset.path_pattern import PathPattern
from dataset.prepared.build import check, prepare
from dataset.prepared.job import PrepareJob
from dataset.recognition import detect
from dataset.source import labelled_images
from dataset.target import scored_images, target_images
from dataset.target_flags import TargetFlags
from dataset.unlabelled import unlabelled_images
from tests.helpers.trees import BESIDE, SIZE, TREES, write_label, write_tree
from utils.evaluation.comparability import seen_images

BY_NAME = ("folders", "cityscapes-coarse")
MANY_SPLITS = [name for name, splits in TREES.items() if len(splits) > 1 and name not in BY_NAME]


@pytest.fixture
def root(request, tmp_path):
    return write_tree(tmp_path / "root", request.param)


def each_layout(names=TREES):
    return pytest.mark.parametrize(("root", "name"), [(n, n) for n in names], indirect=["root"])


def pairs_of(name, split):
    return sorted(TREES[name][split])


def found_pairs(images):
    frames = [images[index] for index in range(len(images))]

    def below(path):
        return None if path is None else path.relative_to(images.root).as_posix()

    return sorted((below(frame.image), below(frame.label)) for frame in frames)


def test_every_built_in_layout_has_a_tree():
    """No layout is built in without a tree after its documentation, and its address."""
    assert set(builtin_layouts()) == set(TREES)
    assert all(layout.page or layout.name == "folders" for layout in all_layouts())


@each_layout([name for name in TREES if name not in BY_NAME])
def test_a_tree_is_recognized(root, name):
    """Files that lie beside the data set's images and labels change nothing."""
    assert detect(root).name == name


@each_layout()
def test_all_splits_are_paired_and_read(root, name, capsys):
    """Images and labels are those of the documentation, and every class is read from them."""
    layout = load_layout(name)
    for split in TREES[name]:
        has_labels = bool(layout.splits[split].labels)
        images = data_images(root, split, has_labels, layout)
        assert found_pairs(images) == pairs_of(name, split)
        check_listing(images)
        if has_labels:
            assert images.class_set.name == layout.class_set
            label = images.label_format.read_train_ids(images[0].label)
            assert np.array_equal(label, write_label(root / "again.png", name))
        assert find_pairs(layout, root, split, has_labels).root == root
    said = capsys.readouterr().out.count("NOTE: left out")
    assert said == (2 if name == "kitti" else 0)  # *_11.png of the stereo benchmark


@pytest.mark.parametrize(
    ("name", "split", "first"),
    [
        ("acdc", "train", "fog/train/GOPR0475/GOPR0475_frame_000041_rgb_anon"),
        ("cityscapes-foggy", "val", "lindau/lindau_000000_000019_leftImg8bit_foggy_beta_0.01"),
        ("kitti", "train", "000000_10"),
        ("idd-lite", "train", "0/024541_image"),
        ("camvid-original", "train", "0001TP_006690"),
        ("mapillary", "train", "-0AY2h7kW"),
        ("dark-zurich", "val", "GOPR0356/GOPR0356_frame_000321_rgb_anon"),
    ],
)
def test_names_in_lists(tmp_path, name, split, first):
    """The path below the leading folders that are fixed, without suffix; lists may add them."""
    images = data_images(write_tree(tmp_path, name), split)
    assert images.names == sorted(images.names)
    assert images.names[0] == first
    line = images[1].image.relative_to(tmp_path).as_posix()
    assert images.select([first, f"{line}\tmore"], "list").names == images.names


@each_layout()
def test_prepared_roots_give_the_same(root, name, tmp_path):
    """Names, labels and statistics; the prepared root is recognized like the raw one."""
    layout = load_layout(name)
    split = "val" if "val" in TREES[name] else "train"
    tree = find_pairs(layout, root, split)
    job = PrepareJob(tree, layout.data_name(split))
    report = check(job)
    assert (report.good, report.problems) == (2, [])
    prepare(job, tmp_path / "p", "")
    raw, prepared = data_images(root, split, layout=layout), data_images(tmp_path / "p", split)
    assert prepared.names == raw.names
    assert prepared.statistics.classes.shape == (2, len(raw.class_set) + 1)
    check_listing(prepared)
    for index in range(2):
        labels = [one.label_format.read_train_ids(one[index].label) for one in (raw, prepared)]
        assert np.array_equal(*labels)


@each_layout(MANY_SPLITS)
def test_a_target_is_the_split_train(root, name, capsys):
    """Adapting never takes images of val or test by the way, and says what it takes."""
    images = target_images([str(root)])
    train = [image for image, _ in pairs_of(name, "train")]
    assert found_pairs(images) == [(image, None) for image in train]
    title = load_layout(name).title
    assert f"root: taken for {title}, split train, 2 images." in capsys.readouterr().out


@each_layout(["gta5", "camvid-original", "folders"])
def test_targets_without_splits_are_any_images(root, name, capsys):
    assert target_images([str(root)]).names == unlabelled_images([str(root)]).names
    assert "taken for" not in capsys.readouterr().out


def test_a_target_in_prepared_form(tmp_path):
    """The prepared split of a known data set is a target; the other splits are named as missing."""
    root, layout = write_tree(tmp_path / "raw", "acdc"), load_layout("acdc")
    tree = find_pairs(layout, root, "val", labels=False)
    prepare(PrepareJob(tree, "acdc-val", labels=False), tmp_path / "p", "")
    assert len(target_images([str(tmp_path / "p")], "val")) == 2
    with pytest.raises(FileNotFoundError, match="holds acdc-val, but not acdc-train"):
        target_images([str(tmp_path / "p")])


def test_other_places_of_the_same_files(tmp_path):
    """Mapillary's package of 2.0 holds the labels of 1.2; BDD100K of 2018; archives of ACDC."""
    root = write_tree(tmp_path / "mapillary", "mapillary")
    (root / "training/v1.2").mkdir()
    (root / "training/labels").rename(root / "training/v1.2/labels")
    assert len(labelled_images(root)) == 2
    root = write_tree(tmp_path / "bdd", "bdd100k")
    (root / "seg/labels").mkdir(parents=True)
    (root / "images/10k").rename(root / "seg/images")
    (root / "labels/sem_seg/masks/train").rename(root / "seg/labels/train")
    for path in (root / "seg/labels/train").iterdir():
        path.rename(path.with_name(f"{path.stem}_train_id.png"))
    shutil.rmtree(root / "labels")
    assert len(labelled_images(root)) == 2
    root = write_tree(tmp_path / "acdc", "acdc")
    names = labelled_images(root).names
    for folder, archive in (("rgb_anon", "rgb_anon_trainvaltest"), ("gt", "gt_trainval")):
        (root / archive).mkdir()
        (root / folder).rename(root / archive / folder)
    assert labelled_images(root).names == names
    for folder in ("rgb_anon_trainvaltest/rgb_anon", "gt_trainval/gt"):  # once more into itself
        (root / folder.split("/")[1]).mkdir()
        (root / folder).rename(root / folder.split("/")[1] / folder.split("/")[1])
    assert labelled_images(root).names == names


def test_splits_that_are_used_together_are_said(tmp_path, capsys):
    """Own images in images/train and images/val: a tree of one split, such as GTA5, takes both."""
    for path in ("train/1", "val/2"):
        for folder in ("images", "labels"):
            write_label(tmp_path / f"{folder}/{path}.png", "gta5")
    together, names = "images of train/, val/ are used together. ", tmp_path / "names.txt"
    names.write_text("train/1\n")
    images = str(tmp_path / "images")

    def target(*words, list_file=None):
        return TargetFlags(target=words).images("train", list_file)

    for read, is_said in (
        (lambda: labelled_images(tmp_path), True),
        (lambda: labelled_images(tmp_path, list_file=names), False),
        (lambda: target(images), True),
        (lambda: target(images, list_file=names), False),
        (lambda: target(f"{images}/train"), False),
        (lambda: target(f"{images}/train", f"{images}/val"), False),
    ):
        assert len(read()) > 0
        assert (together in capsys.readouterr().out) is is_said


def test_a_target_one_level_too_high_is_said(tmp_path, capsys):
    """Images of val are never used unnoticed."""
    write_tree(tmp_path / "data/cityscapes", "cityscapes")
    TargetFlags(target=(str(tmp_path / "data/cityscapes"),)).images("train")
    assert "used together" not in capsys.readouterr().out
    TargetFlags(target=(str(tmp_path / "data"),)).images("train")
    assert re.search("images of .*train/, val/ are used together", capsys.readouterr().out)


def test_several_images_have_one_label(tmp_path):
    """Fog densities share the label of the clear image; one that lacks is an error."""
    root = write_tree(tmp_path, "cityscapes-foggy")
    images = labelled_images(root)
    assert images[0].label == images[1].label
    assert images[0].image != images[1].image
    images[0].label.unlink()
    with pytest.raises(FileNotFoundError, match="unpack gtFine_trainvaltest.zip"):
        labelled_images(root)


@pytest.mark.parametrize("name", ["cityscapes-foggy", "cityscapes-rain", "cityscapes-coarse"])
def test_scenes_of_cityscapes_are_recognized_in_its_other_forms(tmp_path, name):
    """A network that was trained on them has seen the scenes that are scored."""
    layout, split = load_layout(name), "val"
    other = data_images(write_tree(tmp_path, name), split, layout=layout).identities
    place = re.sub("_leftImg8bit.*", "_leftImg8bit", other[0])
    assert place.startswith("cityscapes::")
    assert seen_images(other, [place]) == 1


def test_coarse_labels_only_by_name(tmp_path):
    """gtCoarse beside gtFine is never taken unless it is asked for."""
    root = write_tree(tmp_path, "cityscapes")
    assert "gtFine" in str(labelled_images(root)[0].label)
    shutil.rmtree(root / "gtFine")
    with pytest.raises(FileNotFoundError, match=r"No labels under .*gtFine/train"):
        labelled_images(root)
    root = write_tree(tmp_path / "coarse", "cityscapes-coarse")
    assert "gtCoarse" in str(labelled_images(root, "cityscapes-coarse")[0].label)
    extra = data_images(root, "train_extra", layout=load_layout("cityscapes-coarse"))
    assert extra.names[0] == "bayreuth/bayreuth_000000_000019_leftImg8bit"


def test_idd_without_its_labels_is_no_cityscapes(tmp_path):
    """The same folders, but images of IDD are not called after a city; level3Ids are not enough."""
    root = write_tree(tmp_path, "idd")
    for path in (root / "gtFine").rglob("*_labelids.png"):
        path.unlink()
    assert detect(root).name == "idd"
    with pytest.raises(FileNotFoundError, match=r"--id-type id .*1 files \*_gtFine_labellevel3Ids"):
        labelled_images(root)
    shutil.rmtree(root / "gtFine")
    assert target_images([str(root)]).data_set == "idd-train"
    root = write_tree(tmp_path / "city", "cityscapes")
    shutil.rmtree(root / "gtFine")
    assert target_images([str(root)]).data_set == "cityscapes"
    for path in (root / "leftImg8bit").rglob("*.png"):
        path.rename(path.with_suffix(".tif"))
    with pytest.raises(FileNotFoundError, match=r"Cityscapes needs .*2 files .*\.tif"):
        labelled_images(root)


def test_images_that_have_been_seen(tmp_path):
    """Coarse labels are of the scored images; equal names in two splits are two images."""

    def known(name, split):
        root = write_tree(tmp_path / f"{name}-{split}", name)
        return set(data_images(root, split, layout=load_layout(name)).identities)

    assert known("cityscapes", "val") & known("cityscapes-coarse", "val")
    assert known("idd-lite", "val") & known("idd-lite", "val")
    assert not known("idd-lite", "val") & known("idd-lite", "train")
    assert not known("cityscapes", "val") & known("acdc", "val")


def test_labels_of_other_class_sets(tmp_path):
    """The classes of the run decide: IDD as 7 classes, GTA5's tree with one's own values."""
    idd = load_class_set("idd-lite7")
    root = write_tree(tmp_path / "idd", "idd")
    images = data_images(root, "train", class_set=idd)
    label = images.label_format.read_train_ids(images[0].label)
    assert images.class_set == idd
    assert label[0, :4].tolist() == [0, 1, 5, 4]  # road, sidewalk, building, wall
    gta5 = data_images(write_tree(tmp_path / "gta5", "gta5"), "train", class_set=idd)
    assert gta5.label_format.read_train_ids(gta5[0].label)[0, :4].tolist() == [0, 1, 5, 4]
    binary = load_class_set("binary")
    root = write_tree(tmp_path / "mask", "folders")
    for path in (root / "labels").rglob("*.png"):
        Image.fromarray(np.full(SIZE, 255, np.uint8)).save(path)
    for layout in (None, load_layout("folders")):
        masks = data_images(root, "train", layout=layout, class_set=binary)
        assert (masks.label_format.read_train_ids(masks[0].label) == 1).all()


OWN = """
name = "drone"
class_set = "mine.toml"
encoding = "ids"
[splits.train]
images = "photos/{flight}/{key}.JPG"
labels = "masks/{flight}_{key}_mask.png"
[splits.val]
images = "photos_val/{key}.JPG"
labels = "masks_val/{key}_mask.png"
"""
CLASSES = """
classes = ["ground", "building", "tree"]
[encodings.ids]
read = "index"
classes = {ground = 0, building = [1, 2], tree = 3}
"""


@pytest.fixture
def own(tmp_path):
    """(root, layout file) of a user, whose folders are named otherwise."""
    for path, photo in (
        ("photos/monday/1.jpg", True),
        ("photos/tuesday/1.jpeg", True),
        ("masks/monday_1_mask.png", False),
        ("masks/tuesday_1_mask.png", False),
        ("photos_val/a/2.png", True),
        ("masks_val/a/2_mask.png", False),
    ):
        (tmp_path / "data" / path).parent.mkdir(parents=True, exist_ok=True)
        shape = (*SIZE, 3) if photo else SIZE
        Image.fromarray(np.full(shape, 2, np.uint8)).save(tmp_path / "data" / path)
    (tmp_path / "drone.toml").write_text(OWN)
    (tmp_path / "mine.toml").write_text(CLASSES)
    return tmp_path / "data", tmp_path / "drone.toml"


def test_a_file_of_ten_lines(own, tmp_path):
    """A user's own folders, splits and classes, raw and prepared, without code."""
    root, file = own
    assert len(OWN.strip().splitlines()) <= 10
    images = labelled_images(root, file)
    assert images.names == ["monday/1", "tuesday/1"]
    assert images[1].label.name == "tuesday_1_mask.png"
    assert images.class_set.names == ("ground", "building", "tree")
    assert (images.label_format.read_train_ids(images[0].label) == 1).all()
    layout = load_layout(file)
    assert data_images(root, "val", layout=layout).names == ["a/2"]
    job = PrepareJob(find_pairs(layout, root, "train"), layout.data_name("train"))
    prepare(job, tmp_path / "p", "prepare it")
    assert labelled_images(tmp_path / "p", file).names == images.names
    with pytest.raises(FileNotFoundError, match="of drone-train, whose .*It was .*: prepare it"):
        labelled_images(tmp_path / "p")


TWO_ENCODINGS = """
classes = ["ground", "building", "tree"]
[encodings.sim]
read = "index"
classes = {ground = 0, building = 1, tree = 2}
[encodings.real]
read = "index"
classes = {ground = 2, building = 1, tree = 0}
"""


def test_an_encoding_that_the_class_set_lacks(own, tmp_path):
    """Misspelt in a layout it is refused by raw and prepared roots, with the nearest name."""
    root, file = own
    (tmp_path / "mine.toml").write_text(TWO_ENCODINGS)
    file.write_text(OWN.replace('"ids"', '"real"'))
    layout = load_layout(file)
    job = PrepareJob(find_pairs(layout, root, "train"), layout.data_name("train"))
    prepare(job, tmp_path / "p", "prepare it")
    file.write_text(OWN.replace('"ids"', '"reel"'))
    message = r"drone.toml: encoding is 'reel'.*mine has sim, real \(nearest: 'real'\)"
    for data, class_set in (
        (root, None),
        (tmp_path / "p", None),
        (root, load_class_set(tmp_path / "mine.toml")),  # train_da.py scores with the source's
    ):
        with pytest.raises(ValueError, match=message):
            data_images(data, "train", layout=load_layout(file), class_set=class_set)


def test_an_encoding_of_another_class_set(own, tmp_path):
    """With other classes than the layout's, the encoding that fits is found."""
    root, file = own
    (tmp_path / "two.toml").write_text(
        'classes = ["low", "high"]\n[encodings.other]\nread = "index"\n'
        "classes = {low = 0, high = [1, 2]}\n"
    )
    two = load_class_set(tmp_path / "two.toml")
    images = data_images(root, "train", layout=load_layout(file), class_set=two)
    assert images.label_format.encoding == "other"


def test_labels_are_read_as_their_own_layout_says(own, tmp_path):
    """In a run of the same classes, too: more values are read; other meanings are refused."""
    root, file = own
    run = data_images(root, "train", layout=load_layout(file)).class_set  # labels hold 2: building
    more = CLASSES.replace('"ids"', '"other"').replace("[encodings.ids]", "[encodings.other]")
    (tmp_path / "mine.toml").write_text(more.replace("tree = 3", "tree = [3, 7]"))
    file.write_text(OWN.replace('encoding = "ids"', ""))
    Image.fromarray(np.full(SIZE, 7, np.uint8)).save(root / "masks_val/a/2_mask.png")
    layout = load_layout(file)
    images = data_images(root, "val", layout=layout, class_set=classes_of_labels(layout, root, run))
    assert images.class_set == run
    assert (images.label_format.read_train_ids(images[0].label) == 2).all()
    for old, new, message in (
        ("[1, 2]", "1", None),  # 2 is not named: no contradiction
        ("ground = 0, building = [1, 2]", "ground = [1, 2], building = 0", "'building' as 0"),
        ('"index"', '"first-channel"', "are read as 'first-channel', not 'index'"),
    ):
        (tmp_path / "mine.toml").write_text(CLASSES.replace(old, new))
        if message is None:
            classes = classes_of_labels(load_layout(file), root, run)
            assert classes.named_values("ids")[2] == run.named_values("ids")[2]
            continue
        with pytest.raises(ValueError, match=f"drone.toml: by its class set mine.*{message}"):
            classes_of_labels(load_layout(file), root, run)
        with pytest.raises(ValueError, match="name it in the layout"):
            scored_images(root, run, file)


def test_a_list_chooses_the_complete_pairs(own, tmp_path):
    """Images without label outside the list, and labels without image, are no fault."""
    root, file = own
    (root / "masks/monday_1_mask.png").rename(root / "masks/sunday_1_mask.png")
    with pytest.raises(FileNotFoundError, match="name the complete pairs in a list"):
        labelled_images(root, file)
    names = tmp_path / "names.txt"
    names.write_text("tuesday/1\n")
    images = labelled_images(root, file, list_file=names)
    assert images.names == ["tuesday/1"]
    assert images[0].label.name == "tuesday_1_mask.png"
    names.write_text("tuesday/1\nmonday/1\n")
    with pytest.raises(FileNotFoundError, match="1 of 2 images .* have no label .*monday/1.jpg"):
        labelled_images(root, file, list_file=names)


class TestNotFound:
    def test_what_was_looked_for_and_how_near_it_came(self, tmp_path):
        """Every layout with its images, labels and pairs; a data set in or above the folder."""
        root = write_tree(tmp_path / "data" / "root", "acdc")
        shutil.rmtree(root / "rgb_anon")
        with pytest.raises(FileNotFoundError) as caught:
            labelled_images(root)
        lines = str(caught.value).splitlines()
        acdc = next(line for line in lines if "(ACDC)" in line)
        assert acdc.endswith(": 0 images, 4 labels, 0 pairs")
        assert sum(line.endswith(": nothing") for line in lines) == len(TREES) - len(BY_NAME) - 1
        write_tree(tmp_path / "data" / "deeper", "kitti")
        with pytest.raises(FileNotFoundError, match="deeper looks like KITTI: give that folder"):
            labelled_images(tmp_path / "data")
        with pytest.raises(FileNotFoundError, match="deeper looks like KITTI: give that folder"):
            labelled_images(tmp_path / "data/deeper/training")

    def test_images_that_have_no_labels(self, tmp_path):
        """The patterns match images, and no label: what is needed, and what lies there."""
        root = write_tree(tmp_path, "acdc")
        for path in (root / "gt").rglob("*_gt_labelIds.png"):
            path.unlink()
        with pytest.raises(
            FileNotFoundError,
            match=r"No labels under .*gt\. ACDC .*gt_trainval.zip.*1 files \*_gt_labelTrainIds",
        ):
            labelled_images(root)
        root = write_tree(tmp_path / "s", "synscapes")
        shutil.rmtree(root / "img/class")
        with pytest.raises(
            FileNotFoundError,
            match=r"No labels under .*Synscapes needs img/class/\*.png in .* See https://synscapes",
        ):
            labelled_images(root)

    def test_one_image_of_many_has_no_label(self, tmp_path):
        root = write_tree(tmp_path, "bdd100k")
        next((root / "labels/sem_seg/masks/train").iterdir()).unlink()
        with pytest.raises(FileNotFoundError, match=r"1 of 2 images .* have no label"):
            labelled_images(root)

    def test_several_data_sets_in_one_root(self, tmp_path):
        write_tree(write_tree(tmp_path, "kitti"), "acdc")
        for take in (labelled_images, lambda root: target_images([str(root)])):
            with pytest.raises(ValueError, match="holds several data sets, acdc and kitti"):
                take(tmp_path)
        assert len(labelled_images(tmp_path, "kitti")) == 2

    def test_unlabelled_splits_and_unknown_ones(self, tmp_path):
        root = write_tree(tmp_path, "dark-zurich")
        with pytest.raises(ValueError, match="train of Dark Zurich has no labels; .*: val"):
            labelled_images(root)
        with pytest.raises(ValueError, match="KITTI has no split 'val'; expected one of train"):
            target_images([str(write_tree(tmp_path / "k", "kitti"))], "val")


class TestDoubtfulFiles:
    def test_an_image_with_two_labels(self, own):
        """A placeholder that only the labels have lets two of them fit one image."""
        root, file = own
        file.write_text(OWN.replace("{flight}_{key}_mask", "{flight}_{key}_{kind}"))
        shutil.copy(root / "masks/monday_1_mask.png", root / "masks/monday_1_depth.png")
        with pytest.raises(
            ValueError,
            match="monday/1.jpg has two labels, masks/monday_1_depth.png and masks/monday_1_mask",
        ):
            labelled_images(root, file)

    @pytest.mark.parametrize(
        "twin", ["photos/monday/1.png", "photos/monday/1.JPEG", "masks/monday_1_mask.PNG"]
    )
    def test_twins_that_differ_in_their_suffix(self, own, twin):
        root, file = own
        (root / twin).touch()
        with pytest.raises(ValueError, match="holds 1 files twice.*remove one of each"):
            labelled_images(root, file)

    @pytest.mark.parametrize("labels", ["photos/{flight}/{key}.png", "photos/{key}.png"])
    def test_a_label_beside_its_image(self, own, tmp_path, labels):
        """One name, image and label by their suffixes: a pair, and no image twice."""
        root, file = own
        file.write_text(OWN.replace("masks/{flight}_{key}_mask.png", labels))
        for day in ("monday", "tuesday"):
            (root / f"masks/{day}_1_mask.png").rename(root / f"photos/{day}/1.png")
        layout = load_layout(file)
        names = [f"{day}/1" for day in ("monday", "tuesday")]
        assert data_images(root, "train", False, layout).names == names
        raw = labelled_images(root, file)
        assert raw.names == names
        assert [raw[index].label.name for index in range(2)] == ["1.png", "1.png"]
        job = PrepareJob(find_pairs(layout, root, "train"), "drone-train")
        prepare(job, tmp_path / "p", "")
        prepared = labelled_images(tmp_path / "p", file)
        assert read_image(prepared[0].image).shape == (*SIZE, 3)
        assert (prepared.label_format.read_train_ids(prepared[0].label) == 1).all()

    def test_a_label_without_image(self, own):
        root, file = own
        (root / "photos/monday/1.jpg").unlink()
        with pytest.raises(FileNotFoundError, match="1 of 2 labels .* no image .*monday_1_mask"):
            labelled_images(root, file)
        tree = find_pairs(load_layout(file), root, "train")
        problems = check(PrepareJob(tree, "drone-train")).problems
        assert [problem.file for problem in problems] == ["masks/monday_1_mask.png"]


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('"drone"', '"my drone"', "'my drone' names files of prepared roots"),
        ("encoding", "encodings", "'encodings', which nothing reads.*Did you mean 'encoding'"),
        ('encoding = "ids"', "encoding = 3", "encoding is 3; expected a text"),
        ('encoding = "ids"', 'other_labels = "_x"', "expected a list of texts"),
        ("labels =", "label =", r"\[splits.train\] has the key 'label'.*Did you mean 'labels'"),
        ("images =", "labls =", r"\[splits.train\]: expected images ="),
        ("{key}_mask.png", "{key}_mask.jpg", "labels are PNG files"),
        ("photos/{flight}/{key}.JPG", "photos/{flight}/*.JPG", "has no {key}"),
        ("photos/{flight}/{key}.JPG", "/photos/{key}.JPG", "is no path below the root"),
        ("photos/{flight}/{key}.JPG", "photos/{key}", "does not end in one of .png, .jpg"),
        ("photos/{flight}/{key}.JPG", "photos/{Flight}/{key}.JPG", "a brace that belongs to no"),
        ("photos/{flight}/{key}.JPG", "photos/{flight}{key}.JPG", "two placeholders without a"),
        ("[splits.train]", "[splits.train", "is no TOML file"),
        ("[splits", "[parts", "'parts', which nothing reads"),
        (
            "[splits.train]",
            "[messages]\nimages = 3\n[splits.train]",
            "images is 3; expected a text",
        ),
    ],
)
def test_a_layout_file_with_a_fault(own, old, new, text):
    """Every fault is named with the file and what is expected."""
    root, file = own
    file.write_text(OWN.replace(old, new, 1))
    with pytest.raises(ValueError, match=text) as caught:
        labelled_images(root, file)
    assert "drone.toml" in str(caught.value)


def test_a_layout_that_is_not_there(own):
    root, file = own
    with pytest.raises(FileNotFoundError, match="No layout 'bdd100'; did you mean bdd100k"):
        labelled_images(root, "bdd100")
    file.write_text('name = "drone"')
    with pytest.raises(ValueError, match=r"says nothing of images. .*\[splits.train\]"):
        labelled_images(root, file)


def test_patterns():
    """{key} spans folders, other words do not; a word that comes twice is the same text."""
    pattern = PathPattern("gt/{city}/x/{city}_{key}_id.png")
    assert (pattern.folder, pattern.ending) == ("gt", "_id")
    assert pattern.expression.fullmatch("ulm/x/ulm_1/2_id")["key"] == "1/2"
    assert not pattern.expression.fullmatch("ulm/x/bonn_1_id")
    assert not pattern.expression.fullmatch("a/ulm/x/ulm_1_id")
    assert pattern.key_of({"city": "ulm", "key": "1"}) == "ulm/x/ulm_1"
    assert pattern.path_of({"city": "ulm"}) is None
    assert pattern.example() == "gt/CITY/x/CITY_*_id.png"
    assert [pattern.may_contain(f) for f in ("ulm", "ulm/y", "ulm/x", "ulm/x/a/b")] == [
        *(True, False, True, True)
    ]
    assert PathPattern("{key}/image.png").ending == "/image"


@pytest.mark.parametrize(
    ("encoding", "values"),
    [
        ("mapillary12", {13: "road", 2: "sidewalk", 44: "pole", 58: "train", 49: None, 65: None}),
        ("idd", {0: "road", 5: "terrain", 29: "building", 11: None, 1: None, 35: None}),
        ("trainIds", {0: "road", 18: "bicycle", 255: None}),
    ],
)
def test_values_of_other_data_sets(encoding, values):
    """Mapillary's 66 classes and IDD's ids as Cityscapes' classes; None: ignored."""
    classes = load_class_set("cityscapes19")
    table = classes.table(encoding)
    for value, name in values.items():
        assert table[value] == (255 if name is None else classes.names.index(name))


@pytest.mark.parametrize("name", builtin_names())
def test_a_class_set_as_plain_values(name):
    """What checkpoints and prepared roots store gives the same class set, encodings included."""
    class_set = load_class_set(name)
    stored = class_set_of(json.loads(json.dumps(class_set.as_dict())), "x", "a checkpoint")
    assert (stored, stored.encodings) == (class_set, class_set.encodings)


def test_beside_files_are_in_trees():
    """The files that must not disturb are those of layouts with a tree."""
    assert set(BESIDE) <= set(TREES)
