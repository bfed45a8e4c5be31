"""scripts.predict with images, videos and unusable input."""

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from dataset.class_set_file import load_class_set
from dataset.labels import CLASS_NAMES, COLORS, LABEL_ID_OF
from scripts.predict import __main__ as entry
from scripts.predict import comparison, ground_truth, images
from scripts.predict.network import load_named_network
from tests.conftest import scene
from tests.helpers.forked import run_forked
from tests.helpers.networks import write_checkpoint
from utils.benchmark import memory
from utils.files import output_names
from utils.report.pictures import image_grid, legend, with_legend
from utils.video import VideoReader, VideoWriter

pytestmark = pytest.mark.usefixtures("narrow_networks")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run") / "last.pt")


@pytest.fixture
def frames(tmp_path) -> Path:
    (tmp_path / "frames").mkdir()
    for number in range(3):
        Image.fromarray(scene(number, (64, 96))[0]).save(tmp_path / f"frames/{number}.png")
    return tmp_path / "frames"


def run(*words) -> None:
    entry.main(entry.parse_arguments([*map(str, words), "--device", "cpu", "--precision", "fp32"]))


def read(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def predict(checkpoint: Path, output: Path, *words) -> None:
    """Runs the command with ``words``, inputs first, for one network."""
    run(*words, "--model", checkpoint, "--output", output)


def test_all_kinds_of_results_show_the_same_classes(checkpoint, frames, tmp_path):
    """Overlay, color picture, labelIds and trainIds come from one prediction."""
    kinds = ("trainIds", "labelIds", "color", "overlay")
    predict(checkpoint, tmp_path / "out", frames / "0.png", "--no-legend", "--save", *kinds)
    train_ids, label_ids, color, overlay = (read(tmp_path / f"out/0_{kind}.png") for kind in kinds)
    assert train_ids.shape == (64, 96)
    assert len(np.unique(train_ids)) > 3
    assert np.array_equal(label_ids, LABEL_ID_OF[train_ids])
    assert np.array_equal(color, COLORS[train_ids])
    assert np.abs(overlay - (0.45 * read(frames / "0.png") + 0.55 * color)).max() <= 1


def test_the_legend_shows_all_colors_below_the_picture():
    """with_legend leaves the picture unchanged and adds the color of each class."""
    picture = np.zeros((50, 700, 3), np.uint8)
    found = with_legend(picture, CLASS_NAMES, COLORS)
    assert np.array_equal(found[:50, :700], picture)
    shown = {tuple(color) for color in legend(CLASS_NAMES, COLORS, 700).reshape(-1, 3).tolist()}
    assert shown >= {tuple(color) for color in COLORS[:19].tolist()}


def test_other_files_are_skipped_with_a_warning(checkpoint, frames, tmp_path, capsys):
    """Folders and patterns are read; unreadable and other files are named and skipped."""
    (frames / "notes.txt").write_text("no image")
    (frames / "broken.png").write_bytes((frames / "0.png").read_bytes()[:300])
    predict(checkpoint, tmp_path / "folder", frames)
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == [
        f"{n}_overlay.png" for n in range(3)
    ]
    printed = capsys.readouterr()
    assert "1 files that are neither image nor video (such as notes.txt)" in printed.out
    assert "broken.png" in printed.out + printed.err
    assert "frames per second" in printed.out
    predict(checkpoint, tmp_path / "pattern", frames / "[01].png")
    assert len(list((tmp_path / "pattern").iterdir())) == 2


def test_a_link_that_leads_nowhere_is_skipped(checkpoint, frames, tmp_path, capsys):
    """An image that is gone, or must not be read, ends no folder of thousands."""
    (frames / "1.png").unlink()
    (frames / "1.png").symlink_to(tmp_path / "gone.png")
    predict(checkpoint, tmp_path / "out", frames)
    assert sorted(path.name[0] for path in (tmp_path / "out").iterdir()) == ["0", "2"]
    printed = capsys.readouterr()
    assert "skipped: " in printed.out + printed.err
    network = load_named_network(checkpoint, torch.device("cpu"), "fp32")
    with pytest.raises(FileNotFoundError, match=r"1\.png is a link to"):
        next(images.read_images([frames / "1.png"], network, is_only_input=True))


def test_equal_names_in_two_folders_are_kept_apart(tmp_path):
    """Output names contain as much of the folder as makes them unique."""
    names = output_names(
        [tmp_path / "a/1.png", tmp_path / "b/1.png", tmp_path / "b/2.png", tmp_path / "b/2.jpg"]
    )
    assert len(set(names.values())) == 4
    assert names[tmp_path / "a/1.png"] == "a_1"


def test_names_of_many_files_take_no_time():
    """Their number is counted once, not once for each file."""
    paths = [Path(f"/data/{number % 50}/frame_{number // 50}.png") for number in range(50_000)]
    start = time.perf_counter()
    assert len(set(output_names(paths).values())) == 50_000
    assert time.perf_counter() - start < 30


@pytest.mark.parametrize("kind", ["alpha", "one channel", "one pixel", "thin"])
def test_unusual_images_are_segmented(checkpoint, tmp_path, kind):
    """Results have the size of the image, whatever its mode and size."""
    image = scene(0, (40, 50))[0]
    picture = {
        "alpha": Image.fromarray(np.dstack([image, np.full((40, 50), 99, np.uint8)])),
        "one channel": Image.fromarray(image[..., 0]),
        "one pixel": Image.fromarray(image[:1, :1]),
        "thin": Image.fromarray(image[:3]),
    }[kind]
    picture.save(tmp_path / "x.png")
    predict(checkpoint, tmp_path / "out", tmp_path / "x.png", "--save", "trainIds", "overlay")
    assert read(tmp_path / "out/x_trainIds.png").shape == picture.size[::-1]


@pytest.mark.parametrize("channels", [(), (3,), (4,)])
def test_sixteen_bits_are_refused(checkpoint, tmp_path, channels):
    """Images of more than 8 bits per channel end with an error."""
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((40, 50, *channels), np.uint16))
    with pytest.raises(ValueError, match=r"with 8 bits a channel"):
        run(tmp_path / "x.png", "--model", checkpoint, "--output", tmp_path / "out")


def test_an_image_too_large_for_memory_is_not_decoded(checkpoint, frames, tmp_path, monkeypatch):
    """The size is compared with the available memory before the image is read."""
    monkeypatch.setattr(memory, "available_memory", lambda device: 1_000_000)
    monkeypatch.setattr(images, "read_image", lambda path: pytest.fail("was decoded"))
    with pytest.raises(ValueError, match=r"0.png is 64x96 .*Shrink it"):
        run(frames / "0.png", "--model", checkpoint, "--output", tmp_path / "out")


def test_a_decompression_bomb_is_refused(checkpoint, tmp_path):
    """Small files of very many pixels end with an error."""
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match=r"bomb.png has more than 178,956,970 pixels"):
        run(tmp_path / "bomb.png", "--model", checkpoint, "--output", tmp_path / "out")


def test_nothing_to_read_is_an_error(checkpoint, tmp_path):
    """Absent files, and folders without image or video, end with an error."""
    with pytest.raises(FileNotFoundError, match="Nothing at"):
        run(tmp_path / "absent.png", "--model", checkpoint, "--output", tmp_path / "out")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match="No image and no video"):
        run(tmp_path / "notes.txt", "--model", checkpoint, "--output", tmp_path / "out")


def test_a_checkpoint_from_elsewhere_is_refused(frames, tmp_path):
    """A file that is no checkpoint of this project ends with an error."""
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="no checkpoint of this project"):
        run(frames, "--model", tmp_path / "other.pt", "--output", tmp_path / "out")


# Videos


def write_video(path: Path, count: int = 6, size: tuple[int, int] = (64, 96)) -> Path:
    with VideoWriter(path, fps=10) as writer:
        for number in range(count):
            writer.write(scene(number, size)[0])
    return path


def test_a_video_becomes_a_video_of_as_many_frames(checkpoint, tmp_path, capsys):
    """A video of each kind, with frame count and frame rate of the input, that browsers play."""
    video = write_video(tmp_path / "drive.mp4")
    predict(checkpoint, tmp_path / "out", video, "--save", "overlay", "color")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "drive_color.mp4",
        "drive_overlay.mp4",
    ]
    reader = VideoReader(tmp_path / "out/drive_overlay.mp4")
    assert len(list(reader)) == 6
    assert reader.fps == 10
    assert reader.size[0] > 64  # the legend
    assert b"vp09" in (tmp_path / "out/drive_overlay.mp4").read_bytes()  # what browsers play
    assert "6 frames into" in capsys.readouterr().out


def test_the_old_spelling_of_a_kind_is_named(capsys):
    """colour is called color now."""
    with pytest.raises(SystemExit):
        entry.parse_arguments(
            ["a.png", "--model", "m.pt", "--output", "o", "--save", "overlay", "colour"]
        )
    assert "--save colour is called --save color now" in capsys.readouterr().err


def test_odd_sizes_lose_their_last_row_and_column(tmp_path):
    """VP9 with subsampled color needs even sizes."""
    assert VideoReader(write_video(tmp_path / "odd.mp4", size=(63, 95))).size == (62, 94)


def test_a_video_that_cannot_be_decoded_is_refused(checkpoint, tmp_path):
    """The error tells how to convert it, and nothing is written."""
    (tmp_path / "x.mp4").write_bytes(b"no video" * 1000)
    with pytest.raises(ValueError, match=r"x.mp4 cannot be decoded as a video.*convert it"):
        run(tmp_path / "x.mp4", "--model", checkpoint, "--output", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_damaged_videos_do_not_end_a_run(checkpoint, frames, tmp_path, capsys):
    """Unreadable images and videos are skipped, and those after them segmented; of none that can
    be read, the run fails.
    """
    (frames / "a.mp4").write_bytes(b"no video" * 1000)
    (frames / "b.mp4").touch()
    write_video(frames / "c.mp4", 2)
    for name in "12":
        (frames / f"{name}.png").unlink()
    (frames / "0.png").write_bytes(b"no image")
    predict(checkpoint, tmp_path / "out", frames)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["c_overlay.mp4"]
    printed = capsys.readouterr()
    said = printed.out + printed.err
    assert f"skipped: {frames / 'a.mp4'} cannot be decoded as a video" in said
    assert f"skipped: {frames / 'b.mp4'} is empty; expected a video" in said
    assert f"skipped: {frames / '0.png'} is no image" in said
    (frames / "c.mp4").unlink()
    with pytest.raises(ValueError, match="None of the 3 inputs could be read"):
        predict(checkpoint, tmp_path / "none", frames)
    with pytest.raises(ValueError, match=r"b\.mp4 is empty"):
        predict(checkpoint, tmp_path / "none", frames / "b.mp4")


def test_a_truncated_video_is_segmented_with_a_warning(checkpoint, tmp_path, capsys):
    """The frames before the damage are written, and the missing ones are counted."""
    writer = cv2.VideoWriter(
        str(tmp_path / "cut.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (96, 64)
    )
    for number in range(20):
        writer.write(scene(number, (64, 96))[0])
    writer.release()
    content = (tmp_path / "cut.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    run(tmp_path / "cut.avi", "--model", checkpoint, "--output", tmp_path / "out")
    assert "of the 20 frames that its header promises: it is truncated" in capsys.readouterr().out
    assert 5 < len(list(VideoReader(tmp_path / "out/cut_overlay.mp4"))) < 15


def test_label_maps_of_a_video_are_refused(checkpoint, tmp_path):
    """Lossy compression would change labels."""
    video = write_video(tmp_path / "drive.mp4")
    with pytest.raises(ValueError, match="compression would spoil trainIds"):
        predict(checkpoint, tmp_path / "out", video, "--save", "trainIds")


def test_label_maps_of_videos_are_refused_first(frames, tmp_path):
    """Before a network is loaded, and before images beside the video are segmented."""
    write_video(frames / "drive.mp4")
    with pytest.raises(ValueError, match=r"drive\.mp4 is a video, whose compression would spoil"):
        predict(tmp_path / "never-read.pt", tmp_path / "out", frames, "--save", "trainIds")


def test_label_maps_that_a_video_does_not_get_are_said(checkpoint, tmp_path, capsys):
    """Not left out in silence, beside kinds of --save that are possible."""
    video = write_video(tmp_path / "drive.mp4")
    predict(checkpoint, tmp_path / "out", video, "--save", "trainIds", "color")
    assert "NOTE: a video gets no trainIds, which its" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["drive_color.mp4"]


# Output that cannot be written, also for root, to whom permissions do not apply


def test_an_output_below_a_file_is_refused_first(frames, tmp_path):
    """The output folder is tested before the network is loaded."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Cannot write into .*file/out"):
        run(frames, "--model", "never-read.pt", "--output", tmp_path / "file/out")


@pytest.mark.parametrize("source", ["image", "video"])
def test_a_full_disk_is_no_success(checkpoint, tmp_path, source):
    """A process that may write at most 2 kB a file: OpenCV's video writer reports no error."""
    rng = np.random.default_rng(0)
    if source == "image":
        Image.fromarray(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(tmp_path / "x.png")
    else:
        with VideoWriter(tmp_path / "x.mp4", 10) as writer:
            for _ in range(8):
                writer.write(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8))
    words = [next(tmp_path.glob("x.*")), "--model", checkpoint, "--output", tmp_path / "out"]
    found = run_forked("scripts.predict", *words, file_limit=2000)
    assert found.returncode != 0
    assert "error: " in found.stderr
    assert str(tmp_path / "out") in found.stderr.splitlines()[-1]
    assert not list((tmp_path / "out").iterdir())


# Networks side by side


def test_comparison_has_a_column_for_each_network(checkpoint, cityscapes_root, tmp_path):
    """Columns: the image, its label if --labels is given, and each network."""
    other = write_checkpoint(tmp_path / "other.pt", name="other", seed=1)
    images = cityscapes_root / "leftImg8bit/val"
    words = [images, "--compare", checkpoint, other, "--output", tmp_path / "out", "--no-legend"]
    run(*words, "--labels", cityscapes_root / "gtFine")
    with_labels = read(tmp_path / "out/comparison.png")
    run(*words)
    without_labels = read(tmp_path / "out/comparison.png")
    width = 2400 // 4
    assert with_labels.shape[1] // (width + 7) == 3  # four columns with gaps between them
    assert without_labels.shape[1] // 640 == 3
    label = with_labels[-300:, width + 7 : 2 * width + 7].reshape(-1, 3)
    class_colors = {tuple(color) for color in COLORS.tolist()}
    assert {tuple(color) for color in label.tolist()} <= class_colors | {(255, 255, 255)}


def test_a_comparison_keeps_small_pictures_of_few_images(
    checkpoint, frames, tmp_path, monkeypatch, capsys
):
    """Rows are resized when they are drawn; of too many for the height, evenly spaced ones are."""
    kept = []

    def note(rows, *words, **options):
        kept.extend(picture.shape for row in rows for picture in row)
        return image_grid(rows, *words, **options)

    monkeypatch.setattr(comparison, "image_grid", note)
    Image.fromarray(scene(0, (1024, 1536))[0]).save(frames / "1.png")
    words = [frames, "--compare", checkpoint, "--output", tmp_path / "out"]
    run(*words)
    assert kept == [(427, 640, 3)] * 6
    assert "3 images, 1 networks: " in capsys.readouterr().out
    monkeypatch.setattr(comparison, "COMPARISON_HEIGHT", 1000)
    kept.clear()
    run(*words)
    assert len(kept) == 4
    assert "2 of 3 images, evenly spaced, 1 networks: " in capsys.readouterr().out
    assert read(tmp_path / "out/comparison.png").shape[0] < 1200


def test_rows_of_any_heights_are_evenly_spaced():
    """As many as fit; one at least; all where they fit."""
    paths = [Path(str(number)) for number in range(100)]
    rng = np.random.default_rng(0)
    for most in (1, 1000, 20_000, 10**6):
        heights = rng.integers(0, 400, 100).tolist()
        chosen = [int(str(path)) for path in comparison.evenly_spaced(paths, heights, most)]
        assert len(chosen) == 1 or sum(heights[index] for index in chosen) <= most
        assert np.ptp(np.diff([-1, *chosen, 100])[1:-1]) <= 1 if len(chosen) > 2 else chosen
        assert len(chosen) == 100 or sum(heights) > most


def test_narrow_images_do_not_make_huge_pictures(checkpoint, tmp_path):
    """Neither with a legend below, nor in a comparison."""
    Image.fromarray(np.tile(scene(0, (100, 4))[0], (20, 1, 1))).save(tmp_path / "x.png")
    predict(checkpoint, tmp_path / "out", tmp_path / "x.png")
    assert read(tmp_path / "out/x_overlay.png").shape[0] < 3000
    run(tmp_path / "x.png", "--compare", checkpoint, "--output", tmp_path / "out")
    assert read(tmp_path / "out/comparison.png").shape[0] < 2000


def test_all_labels_together_tell_their_encoding(tmp_path):
    """A mask of background alone could be of several: the others say of which one."""
    binary, paths = load_class_set("binary"), [tmp_path / "0.png", tmp_path / "1.png"]
    for path, value in zip(paths, (0, 255), strict=True):
        Image.new("L", (4, 4), value).save(path)
    label_format = ground_truth.format_of_labels(binary, paths, tmp_path)
    assert label_format.encoding == "mask"
    drawn = [
        ground_truth.draw_label(path, np.zeros((4, 4, 3)), label_format)[0, 0] for path in paths
    ]
    assert np.array_equal(drawn, binary.colors)


def test_labels_of_equal_names_are_told_apart(tmp_path):
    """frame0000 of two drives has the label in the folder of its drive, or an error."""
    labels = {"frame0000": [tmp_path / "gt/0/frame0000.png", tmp_path / "gt/1/frame0000.png"]}
    for drive in "01":
        image = tmp_path / f"images/{drive}/frame0000.jpg"
        assert ground_truth.label_of(image, labels) == tmp_path / f"gt/{drive}/frame0000.png"
    assert ground_truth.label_of(tmp_path / "images/0/frame0001.jpg", labels) is None
    with pytest.raises(ValueError, match="can both be the label of"):
        ground_truth.label_of(tmp_path / "frame0000.jpg", labels)


def test_labels_of_other_images_are_an_error(checkpoint, frames, gta5_root, tmp_path):
    """A folder without a label for any of the images, or no folder at all, ends with an error."""
    words = [frames, "--compare", checkpoint, "--output", tmp_path / "out"]
    with pytest.raises(ValueError, match="No labels below"):
        run(*words, "--labels", gta5_root / "labels")
    with pytest.raises(FileNotFoundError, match="No folder"):
        run(*words, "--labels", tmp_path / "absent")
