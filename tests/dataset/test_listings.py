"""What a user's tree may look like, and what is said where it is not right."""

import shutil

import numpy as np
import pytest
from PIL import Image

from dataset.cityscapes import cityscapes, cityscapes_tree
from dataset.gta5 import gta5
from dataset.image_io import image_size, read_image
from dataset.label_io import read_label
from dataset.labels import COLORS, LABEL_ID_OF, TRAIN_ID_OF
from dataset.listing import select_by_list
from dataset.listing_check import check_listing
from dataset.name_list import read_name_list
from dataset.prepared.build import prepare
from dataset.prepared.job import PrepareJob
from dataset.pseudo_labels import label_path, with_labels
from dataset.segmentation import SegmentationDataset
from dataset.transforms import WholeImage
from dataset.unlabelled import unlabelled_images
from tests.conftest import scene, write_cityscapes


def test_gta5(gta5_root):
    listing = gta5(gta5_root)
    assert listing.names == [f"{number:05}" for number in range(1, 7)]
    image, label = scene(3, (72, 136))
    assert np.array_equal(read_image(listing[2].image), image)
    assert np.array_equal(read_label(listing[2].label), label)
    check_listing(listing)


def test_cityscapes(cityscapes_root):
    assert [len(cityscapes(cityscapes_root, split)) for split in ("train", "val")] == [5, 3]
    frame = cityscapes(cityscapes_root, "val")[1]
    assert frame.name == "lindau/lindau_000001_000019_leftImg8bit"
    assert np.array_equal(read_label(frame.label), scene(101, (64, 128))[1])


def test_a_target_needs_no_labels(tmp_path):
    root = write_cityscapes(tmp_path / "unlabelled", {"train": 2}, labels=False)
    listing = cityscapes(root, "train", labels=False)
    assert len(listing) == 2
    assert not listing.has_labels
    assert listing[0].label is None


def test_jpeg_images_are_found(gta5_root):
    for path in (gta5_root / "images").glob("*.png"):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    assert len(gta5(gta5_root)) == 6


@pytest.mark.parametrize("kind", ["palette", "indices", "colors", "colors with alpha"])
def test_labels_are_read_from_indices_or_colors(tmp_path, kind):
    """Palette indices, plain indices and Cityscapes colors give the same labelIds."""
    _, label = scene(0, (40, 60))
    picture = {
        "palette": Image.fromarray(label, mode="P"),
        "indices": Image.fromarray(label),
        "colors": Image.fromarray(COLORS[TRAIN_ID_OF[label]]),
        "colors with alpha": Image.fromarray(COLORS[TRAIN_ID_OF[label]]).convert("RGBA"),
    }[kind]
    if kind == "palette":
        picture.putpalette(
            [0, 0, 0] * 256
        )  # a reader that goes through the palette sees only black
    picture.save(tmp_path / "label.png")
    found = read_label(tmp_path / "label.png")
    assert np.array_equal(TRAIN_ID_OF[found], TRAIN_ID_OF[label])
    assert np.array_equal(found, LABEL_ID_OF[TRAIN_ID_OF[label]])


def test_a_list_restricts_and_orders(cityscapes_root, tmp_path):
    names = [
        "aachen/aachen_000003_000019_leftImg8bit.png",
        "aachen/aachen_000000_000019_leftImg8bit.png",
    ]
    (tmp_path / "list.txt").write_text("# two\n" + "\n".join(names) + "\n")
    listing = select_by_list(cityscapes(cityscapes_root, "train"), tmp_path / "list.txt")
    assert [name + ".png" for name in listing.names] == names
    assert listing[0].label.name == "aachen_000003_000019_gtFine_labelIds.png"


def test_the_papers_lists_are_whole():
    sizes = {"gta5_train_500": 500, "cityscapes_train_500": 500, "cityscapes_val_250": 250}
    assert {name: len(read_name_list(f"dataset/splits/{name}.txt")) for name in sizes} == sizes


def test_selection_images_are_cities_of_their_own():
    """Images for model selection are two whole cities that adaptation never sees."""
    choosing, adapting = (
        set(read_name_list(f"dataset/splits/cityscapes_train_{use}.txt"))
        for use in ("select", "adapt")
    )
    cities, others = ({name.split("/")[0] for name in names} for names in (choosing, adapting))
    assert len(cities) == 2
    assert not cities & others
    assert len(choosing | adapting) == 2975  # together the whole split


def test_a_fingerprint_is_that_of_the_names_alone(tmp_path):
    """Also of a part of a list whose other names are longer."""
    for name in ("a.png", "bb.png", "longer.png"):
        Image.new("RGB", (32, 32)).save(tmp_path / name)
    both = unlabelled_images([str(tmp_path / name) for name in ("a.png", "bb.png")])
    everything = unlabelled_images([str(tmp_path)])
    part = everything.subset([everything.names.index(name) for name in both.names])
    assert part.names == both.names
    assert part.fingerprint() == both.fingerprint() != everything.fingerprint()


def test_fingerprint_follows_names_not_places(cityscapes_root, tmp_path):
    shutil.copytree(cityscapes_root, tmp_path / "elsewhere")
    assert (
        cityscapes(tmp_path / "elsewhere", "train").fingerprint()
        == cityscapes(cityscapes_root, "train").fingerprint()
    )
    assert (
        cityscapes(cityscapes_root, "train").fingerprint()
        != cityscapes(cityscapes_root, "val").fingerprint()
    )


class TestLabelsOfAnotherRoot:
    """Pseudo-labels: labelId PNGs in the layout of Cityscapes, under a root of their own."""

    @pytest.fixture
    def other(self, cityscapes_root, tmp_path):
        """Labels that differ from the ground truth: all road or sky, but for an ignored corner."""
        root = tmp_path / "other"
        for number, name in enumerate(cityscapes(cityscapes_root, "train").names):
            label = np.full((64, 128), 7 if number % 2 else 23, np.uint8)
            label[:8, :8] = 0
            path = root / label_path(name, "train")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(label).save(path)
        return root

    def test_they_are_read_in_place_of_the_ground_truth(self, cityscapes_root, other):
        listing, truth = (
            with_labels(cityscapes(cityscapes_root, "train", labels=False), other),
            cityscapes(cityscapes_root, "train"),
        )
        assert listing.fingerprint() == truth.fingerprint()
        assert [listing[i].image for i in range(5)] == [truth[i].image for i in range(5)]
        check_listing(listing)
        label = SegmentationDataset(listing, WholeImage())[1].label.numpy()
        assert (label[8:] == 0).all()
        assert (label[:8, :8] == 255).all()

    def test_the_ground_truth_is_not_needed(self, cityscapes_root, other):
        shutil.rmtree(cityscapes_root / "gtFine")
        assert (
            with_labels(cityscapes(cityscapes_root, "train", labels=False), other)[4].label
            == other / "gtFine/train/aachen/aachen_000004_000019_gtFine_labelIds.png"
        )

    @pytest.mark.parametrize("labels", [True, False])
    def test_images_of_a_prepared_root(self, cityscapes_root, other, tmp_path, labels):
        tree = cityscapes_tree(cityscapes_root, "train")
        prepare(
            PrepareJob(tree, "cityscapes-train", labels=labels), tmp_path / "prepared", "command"
        )
        listing = with_labels(cityscapes(tmp_path / "prepared", "train", labels=False), other)
        assert listing[0].image.suffix == ".npy"
        assert listing[0].label.suffix == ".png"
        assert listing.statistics.lab.shape == (5, 2, 3)
        check_listing(listing)
        raw = SegmentationDataset(
            with_labels(cityscapes(cityscapes_root, "train", labels=False), other), WholeImage()
        )
        for sample, same in zip(SegmentationDataset(listing, WholeImage()), raw, strict=False):
            assert np.array_equal(sample.image, same.image)
            assert np.array_equal(sample.label, same.label)

    def test_a_wrong_size_is_found_at_the_start(self, cityscapes_root, other, tmp_path):
        Image.fromarray(np.full((64, 120), 7, np.uint8)).save(
            other / "gtFine/train/aachen/aachen_000002_000019_gtFine_labelIds.png"
        )
        prepare(
            PrepareJob(cityscapes_tree(cityscapes_root, "train"), "cityscapes-train"),
            tmp_path / "prepared",
            "command",
        )
        for root in (cityscapes_root, tmp_path / "prepared"):
            with pytest.raises(ValueError, match=r"1 of 5 pairs .*\(64, 128\).*\(64, 120\)"):
                check_listing(with_labels(cityscapes(root, "train", labels=False), other))

    def test_train_ids_are_refused_by_their_place(self, cityscapes_root, other):
        for path in other.rglob("*.png"):
            Image.fromarray(TRAIN_ID_OF[np.asarray(Image.open(path))]).save(path)
        with pytest.raises(ValueError, match=r"other/gtFine/train/aachen .*these are trainIds"):
            check_listing(with_labels(cityscapes(cityscapes_root, "train", labels=False), other))

    def test_a_list_chooses_the_labelled_ones(self, cityscapes_root, other):
        next(other.rglob("*_000003_*")).unlink()
        with pytest.raises(
            FileNotFoundError,
            match=r"1 of 5 images have no label under .*aachen_000003_000019_gtFine_labelIds.png",
        ):
            with_labels(cityscapes(cityscapes_root, "train", labels=False), other)
        images = cityscapes(cityscapes_root, "train", labels=False)
        assert len(with_labels(images.subset([0, 1, 2, 4]), other)) == 4

    def test_images_from_anywhere(self, tmp_path):
        for name in ("monday/0001", "tuesday/0001"):
            image, label = scene(1, (40, 60))
            for path, content in (
                (tmp_path / f"dashcam/{name}.jpg", image),
                (tmp_path / "labels" / label_path(name, "train"), label),
            ):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(content).save(path)
        listing = with_labels(unlabelled_images([str(tmp_path / "dashcam")]), tmp_path / "labels")
        check_listing(listing)
        assert np.array_equal(read_label(listing[1].label), label)


class TestBadInput:
    def test_missing_root(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="No folder .*leftImg8bit"):
            cityscapes(tmp_path / "absent", "train")
        with pytest.raises(FileNotFoundError, match="No folder .*images/"):
            gta5(tmp_path / "absent")

    def test_empty_tree(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="unpack leftImg8bit_trainvaltest.zip"):
            cityscapes(tmp_path, "train")
        with pytest.raises(FileNotFoundError, match="01_images.zip"):
            gta5(tmp_path)

    def test_no_labels_at_all(self, tmp_path):
        root = write_cityscapes(tmp_path / "unlabelled", {"train": 2}, labels=False)
        with pytest.raises(FileNotFoundError, match="gtFine_trainvaltest.zip"):
            cityscapes(root, "train")

    def test_image_without_label(self, gta5_root):
        (gta5_root / "labels/00002.png").unlink()
        with pytest.raises(
            FileNotFoundError, match="1 of 6 images .* have no label .*images/00002.png"
        ):
            gta5(gta5_root)

    def test_label_without_image(self, cityscapes_root):
        next((cityscapes_root / "leftImg8bit/val").rglob("*_000001_*")).unlink()
        with pytest.raises(FileNotFoundError, match="1 of 3 labels .* have no image"):
            cityscapes(cityscapes_root, "val")

    def test_image_and_label_of_different_sizes(self, gta5_root):
        Image.fromarray(np.full((70, 136), 7, np.uint8)).save(gta5_root / "labels/00004.png")
        with pytest.raises(ValueError, match=r"1 of 6 pairs .*00004.png \(72, 136\) .*\(70, 136\)"):
            check_listing(gta5(gta5_root))

    def test_truncated_png(self, gta5_root):
        path = gta5_root / "images/00001.png"
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ValueError, match=r"00001.png cannot be decoded .*damaged or cut short"):
            read_image(path)

    def test_no_image_at_all(self, tmp_path):
        (tmp_path / "x.png").write_text("text")
        for read in (read_image, read_label, image_size):
            with pytest.raises(ValueError, match=r"x\.png .*damaged"):
                read(tmp_path / "x.png")
            with pytest.raises(FileNotFoundError, match="incomplete"):
                read(tmp_path / "y.png")

    def test_sixteen_bit_images(self, tmp_path):
        Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
        with pytest.raises(
            ValueError, match="deep.png has 16 bits a channel; expected RGB or grey"
        ):
            read_image(tmp_path / "deep.png")
        with pytest.raises(ValueError, match="deep.png has pixel format 'I;16'; expected labelIds"):
            read_label(tmp_path / "deep.png")

    def test_values_that_are_no_label_ids(self, tmp_path):
        Image.fromarray(np.array([[7, 40], [200, 255]], np.uint8)).save(tmp_path / "label.png")
        with pytest.raises(ValueError, match=r"\[40, 200\].*neither labelIds"):
            read_label(tmp_path / "label.png")

    def test_unknown_colors(self, tmp_path):
        Image.fromarray(np.full((4, 4, 3), 77, np.uint8)).save(tmp_path / "label.png")
        with pytest.raises(ValueError, match=r"RGB \(77, 77, 77\)"):
            read_label(tmp_path / "label.png")

    def test_train_ids_instead_of_label_ids(self, cityscapes_root):
        for path in (cityscapes_root / "gtFine").rglob("*.png"):
            Image.fromarray(TRAIN_ID_OF[np.asarray(Image.open(path))]).save(path)
        with pytest.raises(ValueError, match="these are trainIds, labelIds"):
            check_listing(cityscapes(cityscapes_root, "train"))

    def test_lists(self, cityscapes_root, tmp_path):
        listing, path = cityscapes(cityscapes_root, "train"), tmp_path / "list.txt"
        with pytest.raises(FileNotFoundError, match="No list at"):
            select_by_list(listing, path)
        path.write_text("\n# nothing\n")
        with pytest.raises(ValueError, match="names no image"):
            select_by_list(listing, path)
        path.write_text("aachen/aachen_000000_000019_leftImg8bit.png\naachen/nothing.png\n")
        with pytest.raises(FileNotFoundError, match=r"names 1 of 2 images .*nothing"):
            select_by_list(listing, path)
