"""Labels of known data sets are never taken for images, and images never for labels."""

import numpy as np
import pytest
from PIL import Image

from dataset.labels import COLORS, TRAIN_ID_OF
from dataset.source import labelled_images
from dataset.unlabelled import find_inputs, unlabelled_images
from tests.conftest import scene

A, B = "GOPR0122_frame_000161", "GOPR0122_frame_000162"
LAYOUTS = {
    "ACDC": (
        [f"rgb_anon/fog/train/GOPR0122/{name}_rgb_anon.png" for name in (A, B)],
        [
            f"gt/fog/train/GOPR0122/{name}_gt_{kind}.png"
            for name in (A, B)
            for kind in ("labelIds", "labelTrainIds", "invIds", "invGray", "labelColor")
        ],
    ),
    "Dark Zurich": (
        [f"rgb_anon/val/night/GOPR0356/{A}_rgb_anon.png"],
        [f"gt/val/night/GOPR0356/{A}_gt_{kind}.png" for kind in ("invGray", "labelColor")],
    ),
    "BDD100K": (
        ["images/10k/train/0a0a0b1a-7c39d841.jpg", "images/100k/val/b1c66a42-6f7d68ca.jpg"],
        [
            "labels/sem_seg/masks/train/0a0a0b1a-7c39d841.png",
            "labels/sem_seg/colormaps/train/0a0a0b1a-7c39d841.png",
            "labels/pan_seg/bitmasks/train/0a0a0b1a-7c39d841.png",
            "labels/drivable/masks/val/b1c66a42-6f7d68ca.png",
            "labels/lane/colormaps/val/b1c66a42-6f7d68ca.png",
        ],
    ),
    "BDD100K of 2018": (
        ["seg/images/train/0a0a0b1a-7c39d841.jpg"],
        [
            "seg/labels/train/0a0a0b1a-7c39d841_train_id.png",
            "seg/color_labels/train/0a0a0b1a-7c39d841_train_color.png",
            "drivable_maps/labels/val/b1c66a42-6f7d68ca_drivable_id.png",
            "drivable_maps/color_labels/val/b1c66a42-6f7d68ca_drivable_color.png",
        ],
    ),
    "IDD": (
        [
            "leftImg8bit/train/0/frame0000_leftImg8bit.png",
            "leftImg8bit/val/1/005506_leftImg8bit.jpg",
        ],
        [
            "gtFine/train/0/frame0000_gtFine_labelids.png",
            "gtFine/train/0/frame0000_gtFine_labellevel3Ids.png",
            "gtFine/train/0/frame0000_gtFine_instanceids.png",
            "gtFine/val/1/005506_gtFine_color.png",
        ],
    ),
    "Mapillary Vistas 1.2": (
        ["training/images/0035fkbjW.jpg", "testing/images/a.jpg"],
        [f"training/{kind}/0035fkbjW.png" for kind in ("labels", "instances", "panoptic")],
    ),
    "Mapillary Vistas 2.0": (
        ["validation/images/-0AY2h7kW.jpg"],
        [f"validation/v2.0/{kind}/-0AY2h7kW.png" for kind in ("labels", "instances", "panoptic")]
        + ["validation/v1.2/labels/-0AY2h7kW.png"],
    ),
    "KITTI semantics": (
        ["training/image_2/000000_10.png", "testing/image_2/000000_10.png"],
        [f"training/{kind}/000000_10.png" for kind in ("semantic", "semantic_rgb", "instance")],
    ),
    "KITTI road": (
        ["training/image_2/um_000000.png"],
        ["training/gt_image_2/um_lane_000000.png", "training/gt_image_2/um_road_000000.png"],
    ),
    "KITTI stereo": (
        ["training/image_2/000000_10.png", "training/image_3/000000_10.png"],
        [f"training/{kind}/000000_10.png" for kind in ("disp_occ_0", "disp_noc_1", "flow_occ")],
    ),
    "Cityscapes": (
        ["leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png"],
        [
            *(
                f"gtFine/train/ulm/ulm_000000_000019_gtFine_{k}.png"
                for k in ("color", "instanceIds")
            ),
            "gtCoarse/train_extra/ulm/ulm_000000_000019_gtCoarse_labelIds.png",
            "disparity/train/ulm/ulm_000000_000019_disparity.png",
            "gtFine/cityscapes_panoptic_train/ulm_000000_000019_gtFine_panoptic.png",
        ],
    ),
    "GTA5": (["images/00001.png"], ["labels/00001.png"]),
    "SYNTHIA": (["RGB/0000000.png"], ["GT/LABELS/0000000.png", "GT/COLOR/0000000.png"]),
    "CamVid": (
        ["701_StillsRaw_full/0001TP_006690.png"],
        ["LabeledApproved_full/0001TP_006690_L.png"],
    ),
    "CARLA": (["CameraRGB/000.png"], ["CameraSeg/000.png"]),
    "WildDash": (
        ["wd_public_02/images/ad0000.jpg"],
        [f"wd_public_02/{kind}/ad0000.png" for kind in ("semantic", "instances", "panoptic")],
    ),
    "ACDC with references": (
        [
            f"rgb_anon/fog/train/GOPR0122/{A}_rgb_anon.png",
            f"rgb_anon/fog/train_ref/GOPR0122/{A}_rgb_ref_anon.png",
        ],
        [
            f"gt/fog/train/GOPR0122/{A}_gt_labelIds.png",
            f"gt_panoptic/fog/train/GOPR0122/{A}_gt_panoptic.png",
            f"gt_trainval/gt/fog/val/GOPR0122/{B}_gt_labelColor.png",
        ],
    ),
    "ACDC unpacked by archive": (
        [f"rgb_anon_trainvaltest/rgb_anon/night/val/GOPR0356/{A}_rgb_anon.png"],
        [f"gt_trainval/gt/night/val/GOPR0356/{A}_gt_{kind}.png" for kind in ("invIds", "labelIds")],
    ),
    "BDD100K tracking": (
        ["images/seg_track_20/train/b00a/b00a-0000001.jpg"],
        [
            "labels/seg_track_20/bitmasks/train/b00a/b00a-0000001.png",
            "labels/seg_track_20/colormaps/train/b00a/b00a-0000001.png",
        ],
    ),
    "BDD100K one level deeper": (
        ["bdd100k/bdd100k/images/10k/test/cabc30fc-e7726578.jpg"],
        ["bdd100k_labels/bdd100k/labels/ins_seg/bitmasks/val/cabc30fc-e7726578.png"],
    ),
    "IDD Lite": (
        ["idd20k_lite/leftImg8bit/train/0/024541_image.jpg"],
        [
            "idd20k_lite/gtFine/train/0/024541_label.png",
            "idd20k_lite/gtFine/train/0/024541_inst_label.png",
        ],
    ),
    "IDD panoptic": (
        ["leftImg8bit/val/2/frame0029_leftImg8bit.jpg"],
        [
            "gtFine/val_panoptic/2_frame0029_gtFine_panopticlevel3Ids.png",
            "gtFine/val/2/frame0029_gtFine_labelColors.png",
            "gtFine/val/2/frame0029_gtFine_labelcsTrainIds.png",
        ],
    ),
    "Mapillary Vistas in its folder": (
        ["mapillary-vistas-dataset_public_v1.1/training/images/a_B-1.jpg"],
        [f"mapillary-vistas-dataset_public_v1.1/training/{k}/a_B-1.png" for k in ("labels",)],
    ),
    "KITTI-360": (
        ["data_2d_raw/2013_05_28_drive_0000_sync/image_00/data_rect/0000000250.png"],
        [
            f"data_2d_semantics/train/2013_05_28_drive_0000_sync/image_00/{kind}/0000000250.png"
            for kind in ("semantic", "semantic_rgb", "instance", "confidence")
        ],
    ),
    "KITTI raw and depth": (
        [f"train/2011_09_26_drive_0001_sync/image_0{n}/data/0000000005.png" for n in range(4)],
        [
            f"train/2011_09_26_drive_0001_sync/proj_depth/{kind}/image_02/0000000005.png"
            for kind in ("groundtruth", "velodyne_raw")
        ],
    ),
    "Pascal VOC": (["JPEGImages/2007_000032.jpg"], ["SegmentationClass/2007_000032.png"]),
}


@pytest.fixture(params=LAYOUTS)
def tree(request, tmp_path):
    """A root, its images and its labels; every label has the pixels of a photo."""
    images, labels = LAYOUTS[request.param]
    rng = np.random.default_rng(0)
    for name in (*images, *labels):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).save(tmp_path / name)
    return tmp_path, sorted(images), labels


def test_a_root_gives_its_images_alone(tree, capsys):
    """Labels are known by name and folder, are counted, and are no inputs of predict either."""
    root, images, labels = tree
    for found in (
        unlabelled_images([str(root)]),
        unlabelled_images([f"{root}/**/*.*g"]),
    ):
        paths = [found[index].image for index in range(len(found))]
        assert sorted(path.relative_to(root).as_posix() for path in paths) == images
    paths = find_inputs([str(root)], ())[0]
    assert sorted(path.relative_to(root).as_posix() for path in paths) == images
    assert capsys.readouterr().out.count(f"{len(labels)} label files (such as ") == 3


def test_a_folder_of_labels_gives_nothing(tree):
    """The folder of the labels itself is refused, with their number, by its name or pixels."""
    root, _, labels = tree
    folder = (root / labels[0]).parent
    for path in folder.iterdir():
        Image.fromarray(scene(0, (64, 96))[1]).save(path)
    with pytest.raises(ValueError, match=r"No image at .*[ ,][1-9]\d* label files"):
        unlabelled_images([str(folder)])


def test_a_source_of_labels_that_are_there(tmp_path):
    """BDD100K and Mapillary pass for GTA5 by their folders; their labels decide."""
    image, label = scene(0, (24, 32))
    for name, content in (("images/a.png", image), ("labels/a.png", TRAIN_ID_OF[label])):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(content).save(tmp_path / name)
    assert len(labelled_images(tmp_path)) == 1


def palette_picture(label):
    picture = Image.fromarray(label, "P")
    picture.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    return picture


@pytest.mark.parametrize("kind", ["indices", "palette", "colors", "trainIds", "mask"])
def test_labels_are_known_by_their_pixels(tmp_path, kind, capsys):
    """In a folder of any name: maps of few values, or in Cityscapes' colors, are no images."""
    label = scene(0, (64, 96))[1]
    picture = {
        "indices": lambda: Image.fromarray(label),
        "palette": lambda: palette_picture(label),
        "colors": lambda: Image.fromarray(COLORS[TRAIN_ID_OF[label]]),
        "trainIds": lambda: Image.fromarray(TRAIN_ID_OF[label]),
        "mask": lambda: Image.fromarray(np.where(label == 7, 255, 0).astype(np.uint8)),
    }[kind]()
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    for folder, content in (("drive", Image.fromarray(noise)), ("abc", picture)):
        (tmp_path / folder).mkdir()
        content.save(tmp_path / folder / "1.png")
        content.save(tmp_path / folder / "2.png")
    assert unlabelled_images([str(tmp_path)]).names == ["1", "2"]
    said = capsys.readouterr().out
    assert "2 label files by their pixels (such as abc/1.png)" in said


@pytest.mark.parametrize("count", [3, 40])
def test_frames_without_signal_tell_nothing(tmp_path, count, capsys):
    """A camera's folder whose first and last images are black, with a text, holds images."""
    no_signal = np.zeros((64, 96), np.uint8)
    no_signal[20:30, 20:60] = 255
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    for number in range(count):
        is_black = number in (0, count - 1)
        Image.fromarray(no_signal if is_black else noise).save(tmp_path / f"{number:03}.png")
    assert len(unlabelled_images([str(tmp_path)])) == count
    assert len(find_inputs([str(tmp_path)], ())[0]) == count
    assert not capsys.readouterr().out


def test_labels_by_content_are_named_as_such(tmp_path, capsys):
    """The note, and the error where nothing else is there, tell names from contents."""
    label = Image.fromarray(scene(0, (64, 96))[1])
    for name in ("abc/1.png", "abc/2.png", "drive/a_gtFine_labelIds.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        label.save(tmp_path / name)
    Image.fromarray(scene(0, (64, 96))[0]).save(tmp_path / "drive/1.png")
    assert unlabelled_images([str(tmp_path)]).names == ["1"]
    note = capsys.readouterr().out
    assert "1 label files (such as drive/a_gtFine_labelIds.png)" in note
    assert "2 label files by their pixels (such as abc/1.png)" in note
    for find in (unlabelled_images, lambda patterns: find_inputs(patterns, ())):
        with pytest.raises(ValueError, match="2 label files by their pixels"):
            find([str(tmp_path / "abc")])


@pytest.mark.parametrize(
    "name",
    ["labels/1.png", "gt/1.jpg", "ferrari_gt_001.png", "main_road_000001.png", "depth/1.png"]
    + ["semantic/1.png", "train/1.png", "masks/2.jpg", "a_segmentation.jpg", "instance/1.png"],
)
@pytest.mark.parametrize("kind", ["photo", "night", "black", "grey"])
def test_images_are_never_taken_for_labels(tmp_path, name, kind):
    """Names that a user may choose, dark, black and grey images, with no image folder beside."""
    rng = np.random.default_rng(0)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    pixels = {
        "photo": rng.integers(0, 256, (48, 64, 3), np.uint8),
        "night": rng.integers(0, 30, (48, 64), np.uint8),
        "black": np.zeros((48, 64), np.uint8),
        "grey": np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1)),
    }[kind]
    Image.fromarray(pixels).save(tmp_path / name)
    assert len(unlabelled_images([str(tmp_path)])) == 1


def test_a_file_that_is_named_is_meant(tmp_path):
    """predict segments a file given by itself, whatever it is called."""
    image = scene(0, (24, 32))[0]
    Image.fromarray(image).save(tmp_path / "a_gtFine_color.png")
    assert find_inputs([str(tmp_path / "a_gtFine_color.png")], ())[0]
    with pytest.raises(ValueError, match="No image and no video"):
        find_inputs([str(tmp_path)], ())


def test_the_only_file_that_is_named_is_an_image(tmp_path):
    """One of several is a label still: a shell makes many words of labels/*.png."""
    Image.fromarray(scene(0, (64, 96))[1]).save(tmp_path / "a_gtFine_labelIds.png")
    Image.fromarray(scene(0, (64, 96))[1]).save(tmp_path / "b.png")
    named = [str(tmp_path / name) for name in ("a_gtFine_labelIds.png", "b.png")]
    for word in named:
        assert len(unlabelled_images([word])) == 1
    for words in (named, [str(tmp_path)]):
        with pytest.raises(ValueError, match="No image at"):
            unlabelled_images(words)


def test_folders_above_the_given_one_tell_nothing(tmp_path):
    """Images below somebody's folder annotation are images; the folder that decides is named."""
    for folder in ("annotation/cam1", "images", "gtFine/cam1", "cam2/annotation", "cam2/images"):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(scene(0, (64, 96))[0]).save(tmp_path / folder / "1.png")
    assert unlabelled_images([str(tmp_path / "annotation/cam1")]).names == ["1"]
    assert unlabelled_images([str(tmp_path / "annotation/cam1/*.png")]).names == ["1"]
    for given, decided in (
        ("annotation",) * 2,
        ("gtFine/cam1", "gtFine"),
        ("cam2/annotation",) * 2,
    ):
        with pytest.raises(ValueError, match=f"1 label files .by the name of .*{decided}.,"):
            unlabelled_images([str(tmp_path / given)])


@pytest.mark.parametrize("kind", ["trainIds", "other colors"])
@pytest.mark.parametrize("ending", ["_mask", "_L", ".annotation", "_left_color"])
def test_label_maps_beside_their_images(tmp_path, kind, ending, capsys):
    """In one folder with the images, the maps whose names add a word to an image's are labels."""
    image, label = scene(0, (64, 96))
    colors = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
    content = {"trainIds": TRAIN_ID_OF, "other colors": colors}[kind][label]
    for number in ("drive_1", "drive_2"):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
        Image.fromarray(content).save(tmp_path / f"{number}{ending}.png")
    for find in (unlabelled_images, lambda words: find_inputs(words, ())[0]):
        assert len(find([str(tmp_path)])) == 2
        assert f"label files by their pixels (such as drive_1{ending}.png)" in (
            capsys.readouterr().out
        )


def test_pictures_beside_others_are_images(tmp_path):
    """Names that add a word, or a number, do not make labels of photos or of black frames."""
    image, no_signal = scene(0, (64, 96))[0], np.zeros((64, 96), np.uint8)
    no_signal[20:30, 20:60] = 255
    for name, content in (("a", image), ("a_left", image), ("a_1", no_signal), ("a_b_2", image)):
        Image.fromarray(content).save(tmp_path / f"{name}.png")
    assert len(unlabelled_images([str(tmp_path)])) == 4
