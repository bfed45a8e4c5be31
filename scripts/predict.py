"""Segments images, folders, videos and camera pictures; writes overlays, color maps or label maps.

Takes a checkpoint (.pt) or an exported network (.onnx, .pt2), or compares several networks side by
side on the same images.
"""

if not __package__:  # started by its path: nothing of the project can be imported
    raise SystemExit("error: start it in the project's folder: python -m scripts.predict")

import itertools
import re
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from dataset.class_set import ClassSet
from dataset.class_set_file import recorded_class_set
from dataset.find import LeftOut, walk
from dataset.image_io import image_size, read_image
from dataset.label_format import LabelFormat, fitting_format, prediction_format
from dataset.labels import LABEL_ID_OF
from dataset.target import find_inputs
from model.inference.export import EXPORTED_NETWORKS
from model.inference.predictor import load_predictor
from model.inference.tiling import MARGIN, STRIDE, in_tiles
from utils.benchmark.memory import check_memory
from utils.files import output_folder, output_names, told_apart, write_png
from utils.options.groups import add_device_arguments
from utils.options.parser import (
    new_parser,
    non_negative_int,
    positive_float,
    positive_int,
    user_errors_without_traceback,
)
from utils.report.pictures import (
    grid_gap,
    grid_size,
    image_grid,
    in_grid_size,
    overlay,
    resize_to_width,
    with_legend,
)
from utils.training.checkpoint import read_checkpoint
from utils.training.precision import PRECISIONS, choose_device, choose_precision
from utils.training.signals import StopRequest
from utils.video import VIDEO_SUFFIXES, Camera, VideoReader, VideoWriter, due_frames

EPILOG = """examples:
  python -m scripts.predict street.jpg --model checkpoints/ada/last.pt --output out
  python -m scripts.predict drive.mp4 --model ada.onnx --output out
  python -m scripts.predict "frames/*.png" --model checkpoints/ada/last.pt --output out \\
      --save overlay color trainIds
  python -m scripts.predict --camera 0 --seconds 60 --model checkpoints/ada/last.pt --output out
  python -m scripts.predict aerial.png --tile 1024 --model checkpoints/ada/last.pt --output out \\
      --save trainIds
  figure that compares methods:
    python -m scripts.predict frames --labels gtFine --output out \\
        --compare checkpoints/source/last.pt checkpoints/ada/last.pt
"""
LEGEND_WIDTH = 640
"""Pictures with a legend are enlarged, by an integer factor, to about this width in pixels, unless
they get higher than twice this.
"""
COMPARISON_HEIGHT = 32_000
"""Largest height of the rows of comparison.png in pixels: viewers still open such a picture."""

KINDS = ("overlay", "color", "labelIds", "trainIds")
"""What --save draws."""
RESULT = re.compile(rf".+_({'|'.join((*KINDS, 'colour'))})\.(png|mp4)|comparison\.png")
"""Names of results, which are no inputs; "colour" was the name of "color" before."""

Segment = Callable[[np.ndarray], np.ndarray]
"""(H, W, 3) uint8 RGB image of any size -> (H, W) uint8 trainIds."""


class NamedNetwork(NamedTuple):
    """A network ready to segment images, its name in figures, and its classes."""

    name: str
    segment: Segment
    class_set: ClassSet


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
    add_input_arguments(parser)
    add_network_arguments(parser)
    add_output_arguments(parser)
    add_device_arguments(parser)
    args = parser.parse_args(argv)
    check_arguments(parser, args)
    refuse_unused(parser, args, parser.given(argv))
    return args


def add_input_arguments(parser) -> None:
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="image, video, folder, or pattern such as 'frames/*.png' (in quotes)",
    )
    parser.add_argument(
        "--camera",
        type=non_negative_int,
        metavar="N",
        help="record camera N until Ctrl-C, instead of reading files: camera_N_overlay.mp4",
    )
    parser.add_argument(
        "--seconds", type=positive_float, help="with --camera: stop after this duration"
    )


def add_network_arguments(parser) -> None:
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument(
        "--model",
        type=Path,
        metavar="FILE",
        help="last.pt of a run, or an exported .onnx or .pt2 file",
    )
    network.add_argument(
        "--compare",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="draw the predictions of several networks side by side: comparison.png",
    )
    parser.add_argument(
        "--tile",
        type=positive_int,
        metavar="PIXELS",
        help=(
            f"segment larger images in overlapping tiles, to save memory; a multiple of {STRIDE}"
            f" above {2 * MARGIN}"
        ),
    )


def add_output_arguments(parser) -> None:
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the results: INPUT_overlay.png, INPUT_overlay.mp4, ...",
    )
    parser.add_argument(
        "--save",
        nargs="+",
        choices=KINDS,
        default=["overlay"],
        help="class colors over the image or alone, or label maps; for videos: overlay, color",
    )
    parser.add_argument(
        "--no-legend",
        action="store_true",
        help="pictures of the size of the image, without class names below",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="DIR",
        help="with --compare: folder with ground truth, searched by the name of the image",
    )


def check_arguments(parser, args) -> None:
    """Ends with a usage error if options do not fit together."""
    if bool(args.inputs) == (args.camera is not None):
        parser.error("give an INPUT or --camera N" + (", not both" if args.inputs else ""))
    if args.camera is not None and args.compare:
        parser.error("--compare draws images; record with one network: --camera N --model FILE")
    if args.seconds and args.camera is None:
        parser.error("--seconds limits --camera N")
    if args.tile and (args.tile % STRIDE or args.tile <= 2 * MARGIN):
        parser.error(
            f"--tile {args.tile}: expected a multiple of {STRIDE} above {2 * MARGIN}, such as 1024"
        )
    if args.labels and not args.compare:
        parser.error(
            "--labels is drawn by --compare only. Compare one network with its ground truth:"
            " --compare FILE --labels DIR"
        )


def refuse_unused(parser, args, given: set[str]) -> None:
    """Ends with a usage error for options that would do nothing."""
    if args.compare:
        parser.refuse_unused(given, ["save"], "with --compare, which draws one picture")
    elif not {"overlay", "color"} & set(args.save):
        parser.refuse_unused(given, ["no_legend"], "with label maps alone, which have no legend")
    if all(path.suffix in EXPORTED_NETWORKS for path in args.compare or [args.model]):
        condition = "with exported networks, which have a precision already"
        parser.refuse_unused(given, ["precision"], condition)


# Networks and images


def load_named_network(path: Path, device: torch.device, precision: str) -> NamedNetwork:
    """Loads a checkpoint or an exported network, by file suffix; raises what reading it raises."""
    if path.suffix in EXPORTED_NETWORKS:
        exported = EXPORTED_NETWORKS[path.suffix](path, device)
        class_set = recorded_class_set(exported.metadata)
        exported.require_classes(len(class_set))
        return NamedNetwork(exported.name, lambda image: exported(image[None])[0], class_set)
    checkpoint = read_checkpoint(path)
    class_set = recorded_class_set(checkpoint)
    predictor = load_predictor(checkpoint, len(class_set), device, PRECISIONS[precision])

    def predict(image: np.ndarray) -> np.ndarray:
        return predictor(torch.from_numpy(np.array(image))[None])[0].cpu().numpy()

    return NamedNetwork(checkpoint["name"], predict, class_set)


def read_images(
    paths: list[Path], device: torch.device, tile: int | None = None, is_only_input: bool = False
) -> Iterator[tuple[Path, np.ndarray]]:
    """Yields (path, image), with a progress bar; skips unreadable images with a warning.

    ``is_only_input``: the error is raised instead, since there is nothing else to segment.
    """
    for path in tqdm(paths, unit="image", disable=True if len(paths) < 2 else None):
        try:
            check_memory(path, image_size(path), device, tile)
            image = read_image(path)
        except (OSError, ValueError) as error:
            if is_only_input:
                raise
            tqdm.write(f"WARNING: skipped: {error}")
            continue
        yield path, image


def none_read(count: int, kind: str) -> ValueError:
    """The error of a run that could read none of ``count`` inputs."""
    return ValueError(f"None of the {count} {kind} could be read; the warnings above say why.")


def render(
    kind: str, image: np.ndarray, train_ids: np.ndarray, class_set: ClassSet, legend: bool
) -> np.ndarray:
    """Draws a kind of --save: a picture (h, w, 3), or a label map (H, W)."""
    if kind in ("labelIds", "trainIds"):
        return train_ids if kind == "trainIds" else LABEL_ID_OF[train_ids]
    colors = class_set.color_table
    picture = overlay(image, train_ids, colors) if kind == "overlay" else colors[train_ids]
    if not legend:
        return picture
    height, width = picture.shape[:2]
    factor = max(1, round(min(LEGEND_WIDTH / width, 2 * LEGEND_WIDTH / height)))
    return with_legend(resize_to_width(picture, factor * width), class_set.names, colors)


def predict_files(
    network: NamedNetwork, images: list[Path], videos: list[Path], args, device: torch.device
) -> None:
    """Segments images and videos; unreadable ones are skipped with a warning.

    Raises ValueError if none can be read; a single file raises its own error.
    """
    count = len(images) + len(videos)
    done = predict_images(network, images, args, device, count == 1)
    for path, stem in output_names(videos).items():
        try:
            reader = VideoReader(path)
            check_memory(path, reader.size, device, args.tile)
        except (OSError, ValueError) as error:
            if count == 1:
                raise
            print(f"WARNING: skipped: {error}")
            continue
        predict_video(network, path, reader, stem, args)
        done += 1
    if not done:
        raise none_read(count, "videos" if not images else "inputs" if videos else "images")


def predict_images(
    network: NamedNetwork, paths: list[Path], args, device: torch.device, is_only_input: bool
) -> int:
    """Writes one file for each image and each kind of --save; returns the number of images."""
    seconds = []
    stems = output_names(paths)
    for path, image in read_images(paths, device, args.tile, is_only_input):
        start = time.perf_counter()
        train_ids = network.segment(image)
        seconds.append(time.perf_counter() - start)
        for kind in args.save:
            picture = render(kind, image, train_ids, network.class_set, not args.no_legend)
            write_png(args.output / f"{stems[path]}_{kind}.png", picture)
    if seconds:
        print(
            f"{len(seconds)} images into {args.output}: {1 / np.median(seconds):.1f} frames per"
            " second, reading and writing not counted."
        )
    return len(seconds)


# Videos


class PredictionVideos:
    """Segments frames and writes one MP4 for each kind of --save.

    A context; the files appear at its end. Frames and pictures are (H, W, 3) uint8 RGB.
    """

    def __init__(self, network: NamedNetwork, stem: str, fps: float, kinds: list[str], args):
        self.seconds: list[float] = []  # of each frame, in the network
        self._network, self._fps, self._legend = network, fps, not args.no_legend
        self._writers = {
            kind: VideoWriter(args.output / f"{stem}_{kind}.mp4", fps) for kind in kinds
        }
        self._stack = ExitStack()

    def __enter__(self) -> "PredictionVideos":
        for writer in self._writers.values():
            self._stack.enter_context(writer)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)

    def segment(self, frame: np.ndarray) -> np.ndarray:
        """(H, W, 3) -> (H, W) uint8 trainIds; the time is measured."""
        start = time.perf_counter()
        train_ids = self._network.segment(frame)
        self.seconds.append(time.perf_counter() - start)
        return train_ids

    def due(self, elapsed_s: float) -> int:
        """How often a video of ``elapsed_s`` seconds needs the next frame."""
        return due_frames(elapsed_s, self._fps, next(iter(self._writers.values())).written)

    def write(self, frame: np.ndarray, train_ids: np.ndarray, repeats: int) -> None:
        """Writes a frame ``repeats`` times."""
        for kind, writer in self._writers.items():
            if repeats:
                class_set = self._network.class_set
                picture = render(kind, frame, train_ids, class_set, self._legend)
            for _ in range(repeats):
                writer.write(picture)

    def print_summary(self, not_counted: str) -> None:
        files = ", ".join(str(writer.path) for writer in self._writers.values())
        print(
            f"{len(self.seconds)} frames into {files}: {1 / np.median(self.seconds):.1f} frames per"
            f" second, {not_counted}."
        )


def video_kinds(source: str, args) -> list[str]:
    """Kinds of --save that are possible for a video; raises ValueError if there is none."""
    kinds = [kind for kind in args.save if kind in ("overlay", "color")]
    if not kinds:
        raise ValueError(
            f"{source} is a video, whose compression would spoil {' and '.join(args.save)}. Choose"
            " --save overlay or color."
        )
    return kinds


def predict_video(network: NamedNetwork, path: Path, reader: VideoReader, stem: str, args) -> None:
    """Writes one MP4 for each kind of --save, frame by frame."""
    kinds = video_kinds(str(path), args)
    with PredictionVideos(network, stem, reader.fps, kinds, args) as videos:
        frames = reader.frames or None
        for frame in tqdm(reader, total=frames, desc=path.name, unit="frame", disable=None):
            if reader.repeats:
                videos.write(frame, videos.segment(frame), reader.repeats)
    if reader.ended_early:
        print(
            f"WARNING: {path} ended after {reader.read} of the {reader.frames} frames that its"
            " header promises: it is truncated or damaged."
        )
    videos.print_summary("decoding and encoding not counted")


def predict_camera(
    network: NamedNetwork, args, device: torch.device, clock: Callable[[], float] = time.monotonic
) -> None:
    """Records a camera in real time: one MP4 for each kind of --save.

    Ends with the camera, with Ctrl-C, or after --seconds by ``clock`` (in seconds).
    """
    kinds, camera = video_kinds(f"Camera {args.camera}", args), Camera(args.camera)
    check_memory(Path(f"camera {args.camera}"), camera.size, device, args.tile)
    stopped = False
    with ExitStack() as stack:
        stack.callback(camera.close)
        videos = stack.enter_context(
            PredictionVideos(network, f"camera_{args.camera}", camera.fps, kinds, args)
        )
        stop, start = stack.enter_context(StopRequest()), clock()
        title = f"camera {args.camera}, Ctrl-C ends"
        for frame in tqdm(camera, desc=title, unit="frame", disable=None):
            train_ids = videos.segment(frame)
            elapsed_s = clock() - start
            videos.write(frame, train_ids, videos.due(elapsed_s))
            stopped = bool(stop) or (args.seconds is not None and elapsed_s >= args.seconds)
            if stopped:
                break
    if not stopped:
        print(
            f"WARNING: camera {args.camera} gave no more pictures after {camera.read}: was it"
            " unplugged?"
        )
    videos.print_summary("capture and encoding not counted")


# Comparison


def compare(networks: list[NamedNetwork], paths: list[Path], args, device: torch.device) -> None:
    """Writes comparison.png: a row for each image; columns are image, label, and each network.

    Of more images than fit into COMPARISON_HEIGHT, evenly spaced ones are drawn. Each picture is
    resized at once, so that memory does not grow with the size of the images.
    """
    class_set = networks[0].class_set
    has_labels, rows = args.labels is not None, []
    if has_labels:
        labels = find_labels(args.labels, paths)
        label_format = format_of_labels(class_set, list(labels.values()), args.labels)
    titles = ["image", *(["ground truth"] if has_labels else []), *(n.name for n in networks)]
    width = int(np.clip(2400 // len(titles), 256, 640))
    drawn = evenly_spaced(paths, [height_in_grid(path, width) for path in paths], COMPARISON_HEIGHT)
    for path, image in read_images(drawn, device, args.tile, len(paths) == 1):
        row = [image]
        if has_labels:
            row.append(draw_label(labels.get(path), image, label_format))
        row += (class_set.color_table[network.segment(image)] for network in networks)
        rows.append([in_grid_size(picture, width) for picture in row])
    if not rows:
        raise none_read(len(drawn), "images")
    picture = image_grid(rows, titles, width=width)
    if not args.no_legend:
        picture = with_legend(picture, class_set.names, class_set.color_table)
    write_png(args.output / "comparison.png", picture)
    count = f"{len(rows)} images"
    if len(drawn) < len(paths):
        count = f"{len(rows)} of {len(paths)} images, evenly spaced"
    print(f"{count}, {len(networks)} networks: {args.output / 'comparison.png'}")


def height_in_grid(path: Path, width: int) -> int:
    """Height of the row of an image in ``image_grid``, by its header; 0 if it cannot be read."""
    try:
        return grid_size(image_size(path), width)[0] + grid_gap(width)
    except (OSError, ValueError):  # read_images says why
        return 0


def evenly_spaced(paths: list[Path], heights: list[int], most: int) -> list[Path]:
    """As many of ``paths``, evenly spaced, as have ``most`` as the sum of their heights; one at
    least.
    """
    count, chosen, height = len(paths), np.arange(len(paths)), sum(heights)
    while height > most and count > 1:
        count = max(1, min(count - 1, int(count * most / height)))
        chosen = np.linspace(0, len(paths) - 1, count).round().astype(int)
        height = sum(heights[index] for index in chosen)
    return [paths[index] for index in chosen]


def find_labels(folder: Path, images: list[Path]) -> dict[Path, Path]:
    """{image: its label below ``folder``}. Raises ValueError where no image has one."""
    by_name = labels_by_name(folder)
    labels = {image: label_of(image, by_name) for image in images}
    found = {image: label for image, label in labels.items() if label is not None}
    if not found:
        raise ValueError(
            f"No labels below {folder} for these images. Expected NAME_gtFine_labelIds.png for"
            " NAME_leftImg8bit.png, else equal names."
        )
    return found


def labels_by_name(folder: Path) -> dict[str, list[Path]]:
    """{name without suffix: files} of the PNGs below a folder, found like data sets."""
    left_out, labels = LeftOut(), defaultdict(list)
    for file in walk(folder, left_out).files:
        path = folder.absolute() / file
        if path.suffix.lower() == ".png":
            labels[path.stem].append(path)
    left_out.say(folder)
    return labels


def label_of(image: Path, labels: dict[str, list[Path]]) -> Path | None:
    """The label of an image by its name; of equal names, the one in folders of equal names.

    Raises ValueError when several labels fit equally well.
    """
    found = labels.get(image.stem.replace("_leftImg8bit", "_gtFine_labelIds"), [])
    folders = image.absolute().parts[-2::-1]

    def fit(label: Path) -> int:
        pairs = zip(folders, label.parts[-2::-1], strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

    best = [label for label in found if fit(label) == max(map(fit, found))]
    if len(best) > 1:
        raise ValueError(
            f"{best[0]} and {best[1]} can both be the label of {image}. Give the folder of the"
            " right one as --labels."
        )
    return best[0] if best else None


def format_of_labels(class_set: ClassSet, labels: list[Path], folder: Path) -> LabelFormat:
    """How all ``labels`` are read: one alone may fit several encodings.

    Raises ValueError where no encoding of ``class_set``, or more than one, fits them.
    """
    label_format = prediction_format(class_set)
    if label_format.holds_label_ids:
        return label_format
    return fitting_format(class_set, labels, folder)


def draw_label(path: Path | None, image: np.ndarray, label_format: LabelFormat) -> np.ndarray:
    """Class colors of a label file, (H, W, 3) uint8; white of the size of ``image`` for None."""
    if path is None:
        return np.full_like(image, 255)
    return label_format.class_set.color_table[label_format.read_train_ids(path)]


def require_one_class_set(networks: list[NamedNetwork], paths: list[Path]) -> None:
    """Raises ValueError for networks of different classes, whose colors would mean other things."""
    first = networks[0].class_set
    for network, path in zip(networks, paths, strict=True):
        if network.class_set.names != first.names:
            raise ValueError(
                f"{paths[0]} has the classes of {first.name} ({', '.join(first.names)}), {path}"
                f" those of {network.class_set.name} ({', '.join(network.class_set.names)}): one"
                " picture cannot show both. Compare networks of one class set."
            )


def require_label_ids(network: NamedNetwork, kinds: list[str]) -> None:
    """Raises ValueError for --save labelIds of classes that have none."""
    if "labelIds" in kinds and not prediction_format(network.class_set).holds_label_ids:
        raise ValueError(
            f"--save labelIds: {network.name} has the classes of {network.class_set.name}, which"
            " have no labelIds of Cityscapes. Give --save trainIds."
        )


def main(args) -> None:
    device = choose_device(args.device)
    precision = choose_precision(args.precision, device)
    output_folder(args.output)
    # check_memory compares every image with the available memory; Pillow need not warn as well.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    images, videos = [], []
    if args.inputs:
        images, videos = find_inputs(args.inputs, VIDEO_SUFFIXES, args.output, RESULT)
    if args.compare and not images:
        raise ValueError("--compare draws images; found videos only. Segment a video with --model.")
    if videos and not args.compare:
        video_kinds(str(videos[0]), args)  # raises before any work is done
    if args.labels is not None and not args.labels.is_dir():
        raise FileNotFoundError(
            f"No folder {args.labels}. --labels expects the folder that holds the ground truth,"
            " such as gtFine."
        )

    paths = args.compare or [args.model]
    networks = [load_named_network(path, device, precision) for path in paths]
    if args.tile:
        networks = [n._replace(segment=in_tiles(n.segment, args.tile)) for n in networks]

    if args.compare:
        require_one_class_set(networks, paths)
        names = told_apart([network.name for network in networks], paths)
        named = [n._replace(name=name) for n, name in zip(networks, names, strict=True)]
        compare(named, images, args, device)
        return
    (network,) = networks
    require_label_ids(network, args.save)
    if args.camera is not None:
        predict_camera(network, args, device)
    else:
        predict_files(network, images, videos, args, device)


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
