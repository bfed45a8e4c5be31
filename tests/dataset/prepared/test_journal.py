"""A prepared root gives the same names and samples as the raw one, and nothing stale."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.cityscapes import cityscapes, cityscapes_tree
from dataset.gta5 import gta5, gta5_tree
from dataset.image_io import read_image
from dataset.label_io import read_label
from dataset.labels import NUM_CLASSES, TRAIN_ID_OF
from dataset.listing import select_by_list
from dataset.listing_check import check_listing, mask_of, values_of
from dataset.loader import LoaderOptions, evaluation_loader, training_loader
from dataset.prepared.build import prepare
from dataset.prepared.job import PrepareJob
from dataset.sampling import ShuffledIndex
from dataset.segmentation import SampleOptions, SegmentationDataset
from dataset.style.lab import LabStatistics, LabTransfer, lab_statistics
from dataset.transforms import RandomScaleCropFlip
from tests.conftest import write_gta5


def prepared(tree, data: str, output: Path, **options) -> Path:
    report = prepare(PrepareJob(tree, data, **options), output, "the command")
    assert not report.problems
    return output


@pytest.fixture
def gta5_prepared(gta5_root, tmp_path) -> Path:
    return prepared(gta5_tree(gta5_root), "gta5", tmp_path / "prepared-gta5")


@pytest.fixture
def cityscapes_prepared(cityscapes_root, tmp_path) -> Path:
    for split in ("train", "val"):
        prepared(
            cityscapes_tree(cityscapes_root, split),
            f"cityscapes-{split}",
            tmp_path / "prepared-cityscapes",
        )
    return tmp_path / "prepared-cityscapes"


def test_lists_the_same_frames_with_the_same_pixels(
    gta5_root, gta5_prepared, cityscapes_root, cityscapes_prepared
):
    for raw, ours in (
        (gta5(gta5_root), gta5(gta5_prepared)),
        (cityscapes(cityscapes_root, "val"), cityscapes(cityscapes_prepared, "val")),
    ):
        assert len(raw) in (6, 3)
        assert ours.names == raw.names
        assert ours.fingerprint() == raw.fingerprint()
        check_listing(ours)
        for index in range(len(raw)):
            assert ours[index].image.suffix == ".npy"
            assert np.array_equal(read_image(ours[index].image), read_image(raw[index].image))
            assert np.array_equal(read_label(ours[index].label), read_label(raw[index].label))


def test_an_image_is_mapped_not_read(gta5_prepared):
    image = read_image(gta5(gta5_prepared)[0].image)
    assert isinstance(image.base, np.memmap)
    assert not image.flags.writeable


def test_stored_facts_are_those_of_the_raw_image(gta5_root, gta5_prepared):
    raw, ours = gta5(gta5_root), gta5(gta5_prepared)
    for index in range(len(raw)):
        expected = lab_statistics(read_image(raw[index].image))
        found = LabStatistics(ours).of(index)
        assert np.array_equal(found.mean, expected.mean)
        assert np.array_equal(found.std, expected.std)
        label = read_label(raw[index].label)
        train_ids = TRAIN_ID_OF[label]
        assert ours.statistics.classes[index].tolist() == [
            *((train_ids == c).sum() for c in range(NUM_CLASSES)),
            (train_ids == 255).sum(),
        ]
        assert values_of(int(ours.statistics.values[index])) == set(np.unique(label).tolist())


def test_a_subset_keeps_its_own_facts(gta5_prepared, tmp_path):
    listing = gta5(gta5_prepared)
    part = listing.select(["00005", "00002"], "test")
    assert np.array_equal(part.statistics.lab, listing.statistics.lab[[4, 1]])
    assert np.array_equal(part.statistics.classes, listing.statistics.classes[[4, 1]])
    (tmp_path / "list.txt").write_text("00005\n00077\n")
    with pytest.raises(FileNotFoundError, match=r"'00077'.*what was left out"):
        select_by_list(listing, tmp_path / "list.txt")


def samples(source, target, workers: int, crop=(48, 64), count: int = 6) -> list[torch.Tensor]:
    """Batches of source images in the target's colors."""
    order = ShuffledIndex(len(source), seed=3, rng_stream=0)
    dataset = SegmentationDataset(
        source,
        RandomScaleCropFlip((0.5, 0.75, 1.0, 1.5), crop),
        order,
        [LabTransfer(source, target)],
        seed=3,
    )
    loader = training_loader(dataset, 4, range(count), LoaderOptions(workers, False))
    return [part.clone() for batch in loader for part in (batch.image, batch.label, batch.index)]


def test_raw_and_prepared_roots_give_the_same_samples(
    gta5_root, cityscapes_root, cityscapes_prepared, tmp_path
):
    """Samples with LAB are equal bit for bit, raw or prepared, with any number of workers."""
    target = cityscapes(cityscapes_prepared, "train", labels=False)
    expected = samples(gta5(gta5_root), cityscapes(cityscapes_root, "train", labels=False), 0)
    source = gta5(prepared(gta5_tree(gta5_root), "gta5", tmp_path / "p"))
    for workers in (0, 2):
        assert all(
            torch.equal(a, b)
            for a, b in zip(expected, samples(source, target, workers), strict=True)
        )


def test_the_same_samples_by_class(gta5_root, cityscapes_root, tmp_path):
    """Samples that need the labels of the source are the same, raw or prepared.

    These are class-balanced color statistics, and crops of more than one class.
    """
    target = cityscapes(cityscapes_root, "train", labels=False)

    def by_class(source):
        styles, crops = (
            [LabTransfer(source, target, class_balanced=True)],
            RandomScaleCropFlip((1.5,), (24, 32)),
        )
        dataset = SegmentationDataset(
            source, crops, styles=styles, options=SampleOptions(max_class_ratio=0.6)
        )
        return [dataset[position] for position in range(len(dataset))]

    raw = by_class(gta5(gta5_root))
    ours = by_class(gta5(prepared(gta5_tree(gta5_root), "gta5", tmp_path / "p")))
    for a, b in zip(raw, ours, strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.label, b.label)


def test_the_same_samples_on_real_frames(real_data, tmp_path):
    raw, raw_target = (
        gta5(real_data / "frames/gta5"),
        cityscapes(real_data / "frames/cityscapes", "train", labels=False),
    )
    source = gta5(prepared(gta5_tree(raw.root), "gta5", tmp_path / "g"))
    prepared(cityscapes_tree(raw_target.root, "train"), "cityscapes-train", tmp_path / "c")
    target = cityscapes(tmp_path / "c", "train", labels=False)
    expected = samples(raw, raw_target, 0, (512, 1024), 4)
    assert all(
        torch.equal(a, b)
        for a, b in zip(expected, samples(source, target, 0, (512, 1024), 4), strict=True)
    )


def test_evaluation_reads_the_same(cityscapes_root, cityscapes_prepared):
    raw, ours = (
        list(evaluation_loader(cityscapes(root, "val"), LoaderOptions(0, False)))
        for root in (cityscapes_root, cityscapes_prepared)
    )
    assert len(raw) == 3
    for a, b in zip(raw, ours, strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.label, b.label)


def test_lab_opens_no_target_image(gta5_prepared, cityscapes_prepared):
    source, target = gta5(gta5_prepared), cityscapes(cityscapes_prepared, "train", labels=False)
    for path in (cityscapes_prepared / "leftImg8bit").rglob("*.npy"):
        path.unlink()
    assert len(samples(source, target, 0)) == 18


def test_a_target_without_labels(cityscapes_root, tmp_path):
    tree = cityscapes_tree(cityscapes_root, "train", labels=False)
    root = prepared(tree, "cityscapes-train", tmp_path / "p", labels=False)
    assert len(cityscapes(root, "train", labels=False)) == 5
    assert not (root / "gtFine").exists()
    with pytest.raises(FileNotFoundError, match="prepared without the labels"):
        cityscapes(root, "train")


def test_a_prepared_target_keeps_its_labels_to_itself(cityscapes_prepared):
    listing = cityscapes(cityscapes_prepared, "train", labels=False)
    assert listing[0].label is None
    assert listing.statistics.classes is None


@pytest.mark.parametrize("spelling", ["colors", "colours"])
def test_a_root_with_lab_copies_is_read_and_completed(gta5_root, tmp_path, spelling):
    """Earlier versions could store LAB copies; their journals are read, and their images kept."""
    root = prepared(gta5_tree(gta5_root), "gta5", tmp_path / "p", wanted=["00001", "00002"])
    journal = root / "prepared/gta5-1-of-1.jsonl"
    header, *lines, end = journal.read_text().splitlines()
    old = [json.loads(line) for line in lines]
    old = [{**line, "lab_copy": f"images_lab/{line['name']}.npy", spelling: 9} for line in old]
    journal.write_text("\n".join([header, *map(json.dumps, old), end, ""]))
    assert gta5(root).names == ["00001", "00002"]
    written = (root / "images/00001.npy").stat().st_mtime_ns
    prepared(gta5_tree(gta5_root), "gta5", root)
    assert gta5(root).names == gta5(gta5_root).names
    assert (root / "images/00001.npy").stat().st_mtime_ns == written
    assert "lab_copy" not in journal.read_text()


def test_value_masks():
    for values in ({0, 7, 34}, {255}, {33, 255}, set()):
        assert values_of(mask_of(values)) == values


class TestBadInput:
    def test_stale(self, gta5_root, gta5_prepared):
        """The message says what is known: not that the content is another one."""
        path = gta5_root / "labels/00003.png"
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000))
        with pytest.raises(
            ValueError,
            match=(
                r"is stale: 1 files .* have another size or time of change .*, the first"
                r" labels/00003.png: they were changed, or copied anew. .* kept: the command"
            ),
        ):
            gta5(gta5_prepared)

    def test_the_remedy_completes_a_root_that_was_moved(self, gta5_root, tmp_path):
        """The recorded command with the root's place of now, not that of then."""
        old, now = tmp_path / "p", tmp_path / "moved here"
        command = f"python -m scripts.prepare --gta5 {gta5_root} --output {old}"
        prepare(PrepareJob(gta5_tree(gta5_root), "gta5"), old, command)
        old.rename(now)
        (now / "images/00002.npy").unlink()
        with pytest.raises(FileNotFoundError, match=f"with: .* --output '{now}'$"):
            gta5(now)

    def test_a_raw_root_that_has_gone_is_no_objection(self, gta5_root, gta5_prepared):
        gta5_root.rename(gta5_root.with_name("elsewhere"))
        assert len(gta5(gta5_prepared)) == 6

    @pytest.mark.parametrize("cut", [1, 40, 400])
    def test_interrupted(self, gta5_prepared, cut):
        journal = gta5_prepared / "prepared/gta5-1-of-1.jsonl"
        journal.write_bytes(journal.read_bytes()[:-cut])
        with pytest.raises(
            ValueError,
            match=r"is incomplete: .* stopped after [56] images. Go on with: the command",
        ):
            gta5(gta5_prepared)

    def test_a_file_that_is_missing_or_cut_short(self, gta5_prepared):
        path = gta5_prepared / "images/00002.npy"
        os.truncate(path, path.stat().st_size - 1)
        with pytest.raises(
            FileNotFoundError,
            match=r"is incomplete: 1 files are missing or cut short, the first images/00002.npy",
        ):
            gta5(gta5_prepared)
        path.unlink()
        with pytest.raises(FileNotFoundError, match=r"images/00002.npy"):
            gta5(gta5_prepared)

    def test_what_was_never_prepared(self, gta5_prepared):
        with pytest.raises(
            FileNotFoundError, match="is a prepared root that holds gta5, but not cityscapes-val"
        ):
            cityscapes(gta5_prepared, "val")

    def test_a_damaged_array(self, gta5_prepared):
        listing = gta5(gta5_prepared)
        for content in (b"", b"\x93NUMPY\x01\x00", b"x" * 200):
            listing[0].image.write_bytes(content)
            with pytest.raises(
                ValueError, match=r"00001.npy cannot be read .*run scripts.prepare again"
            ):
                read_image(listing[0].image)
        np.save(listing[0].image, np.zeros((4, 4, 3)))
        with pytest.raises(ValueError, match=r"00001.npy holds float64"):
            read_image(listing[0].image)
        listing[0].image.unlink()
        with pytest.raises(FileNotFoundError, match="prepared copy is incomplete"):
            read_image(listing[0].image)

    def test_a_damaged_journal(self, gta5_prepared):
        journal = gta5_prepared / "prepared/gta5-1-of-1.jsonl"
        lines = journal.read_text().splitlines(keepends=True)
        for damage in ("no json\n", '{"a": 1}\n', "\udc93\n"):  # the last: no UTF-8
            content = "".join([*lines[:2], damage, *lines[3:]])
            journal.write_text(content, encoding="utf-8", errors="surrogateescape")
            with pytest.raises(
                ValueError, match=r"gta5-1-of-1.jsonl, line 3, is not what scripts.prepare writes"
            ):
                gta5(gta5_prepared)


READER = """
import resource, sys
import dataset.loader
from dataset.sampling import ShuffledIndex
from dataset.style.lab import LabTransfer
from dataset.gta5 import gta5
from dataset.segmentation import SegmentationDataset
from dataset.transforms import RandomScaleCropFlip
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
listing = gta5(sys.argv[1])
order = ShuffledIndex(len(listing), 0, 0)
crops, styles = RandomScaleCropFlip((1.0,), (8, 8)), [LabTransfer(listing, listing)]
samples = SegmentationDataset(listing, crops, order, styles)
indexed = peak()
for position in range(200):  # the first ones allocate what all others use
    samples[position]
warm = peak()
for position in range(200, 3000):
    samples[position]
print(len(listing), indexed - before, peak() - warm)
"""


@pytest.mark.parametrize(
    ("size", "most_mb"), [(5_000, 20), pytest.param(25_000, 50, marks=pytest.mark.slow)]
)
def test_an_index_of_25000_costs_under_50_mb(tmp_path, size, most_mb):
    """And one of 5000 under 20 MB; reading images adds little to it."""
    root = write_gta5(tmp_path / "raw", 1, (8, 8))
    output = prepared(gta5_tree(root), "gta5", tmp_path / "p")
    journal = output / "prepared/gta5-1-of-1.jsonl"
    header, record, _ = journal.read_text().splitlines(keepends=True)
    shutil.rmtree(root)
    with open(journal, "w") as file:
        file.write(header + record)
        for number in range(2, size + 1):
            file.write(record.replace("00001", f"{number:05}"))
            for folder in ("images", "labels"):
                os.link(output / folder / "00001.npy", output / folder / f"{number:05}.npy")
        file.write(f'{{"complete": {size}}}\n')
    (tmp_path / "reader.py").write_text(READER)
    # In an interpreter of its own: a forked one gets pages of its parent while it reads.
    command = [sys.executable, str(tmp_path / "reader.py"), str(output)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    found = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment)
    assert found.returncode == 0, found.stderr
    count, index_mb, reading_mb = map(float, found.stdout.split())
    assert count == size
    assert index_mb < most_mb
    assert reading_mb < 10


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS])
def test_a_disk_without_fsync_is_prepared_on(number, gta5_root, tmp_path, monkeypatch):
    """Some network and FUSE file systems refuse it; files are complete without it."""

    def refuse(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    report = prepare(PrepareJob(gta5_tree(gta5_root), "gta5"), tmp_path / "p", "")
    assert report.made == 6
    assert not report.problems


def test_images_prepared_before_orientation_are_found(gta5_root, tmp_path, capsys):
    """An earlier version left them sideways: prepare again, which makes these alone anew."""
    turned = gta5_root / "images/00003.png"
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(turned).save(turned.with_suffix(".jpg"), exif=exif)
    turned.unlink()
    root = prepared(gta5_tree(gta5_root), "gta5", tmp_path / "prepared")
    journal = next((root / "prepared").glob("*.jsonl"))
    old = journal.read_text(encoding="utf-8").replace(', "upright": true', "")
    journal.write_text(old, encoding="utf-8")
    with pytest.raises(ValueError, match=r"left 1 images.*00003.jpg. Prepare them again with: the"):
        gta5(root)
    (root / "images/00003.npy").write_bytes((root / "images/00002.npy").read_bytes())
    job = PrepareJob(gta5_tree(gta5_root), "gta5")
    assert prepare(job, root, "the command").made == 1
    assert len(gta5(root)) == 6
    upright = read_image(turned.with_suffix(".jpg"))
    np.testing.assert_array_equal(np.load(root / "images/00003.npy"), upright)
    journal.write_text(old, encoding="utf-8")
    shutil.rmtree(gta5_root)
    assert len(gta5(root)) == 6
    assert "of 1 photographs, such as images/00003.jpg" in capsys.readouterr().out


def test_sound_roots_of_an_earlier_version_stay(gta5_root, tmp_path):
    """Where no image is turned, nothing is decoded again."""
    root = prepared(gta5_tree(gta5_root), "gta5", tmp_path / "prepared")
    journal = next((root / "prepared").glob("*.jsonl"))
    new = journal.read_text(encoding="utf-8")
    journal.write_text(new.replace(', "upright": true', ""), encoding="utf-8")
    assert len(gta5(root)) == 6
    job = PrepareJob(gta5_tree(gta5_root), "gta5")
    assert prepare(job, root, "the command").made == 0
    assert sorted(journal.read_text(encoding="utf-8")) == sorted(new)
